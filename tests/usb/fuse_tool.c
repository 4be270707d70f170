/* The volume of an image, mounted through FUSE doors: fuse-tool --help. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/clock.h>
#include <block/file.h>
#include <block/queue.h>
#include <doors/fuse.h>

static const char usage[] =
    "usage: fuse-tool [OPTIONS] IMAGE FOLDER...\n"
    "Mounts the volume of IMAGE at each FOLDER, as root; writes \"ready\", and what becomes of "
    "the\n"
    "doors. Ends by SIGTERM or when all doors have ended. SIGUSR1: the device is gone.\n"
    "  --read-only  --uid N  --gid N  --file-mode MODE  --folder-mode MODE  --threads N\n"
    "  --bytes-per-second N  --operations-per-second N  --size-limit N  --cache BYTES\n"
    "  --read-ahead KIB  --write-through  --speed BYTES_PER_SECOND  --sector-size N\n";

enum { DOORS_MOST = 8 };

struct tool {
    struct fuse_door_options options;
    struct medium_options medium_options;
    unsigned read_ahead, sector_size;
    uint64_t speed;
    const char *image;
    struct medium *medium;
    struct volume *volume;
    struct served_volume *served;
    unsigned count;
    char **folders;
    struct fuse_door *doors[DOORS_MOST];
    atomic_uint ended;
};

/* A device that can be pulled out, and that is as slow as it is told to be. */
struct pulled {
    struct block_device device; /* first */
    struct block_device *file;
    struct block_queue queue;
    pthread_t thread;
    uint64_t speed; /* bytes per second; 0: as the file is */
    atomic_bool gone, ending;
};

static void submit(struct block_device *whole, struct block_request *request)
{
    struct pulled *pulled = (struct pulled *)whole;
    if (pulled->speed > 0) {
        block_queue_put(&pulled->queue, request);
    } else if (atomic_load(&pulled->gone)) {
        request->result = -ENODEV;
        request->done(request);
    } else {
        pulled->file->ops->submit(pulled->file, request);
    }
}

static int carry_out(struct pulled *pulled, const struct block_request *request)
{
    static const int64_t command = 200000; /* nanoseconds */
    bool moves = request->operation == BLOCK_READ || request->operation == BLOCK_WRITE;
    uint64_t size = moves ? (uint64_t)request->count * pulled->device.sector_size : 0;
    int64_t wait = command + (int64_t)(size * CLOCK_SECOND / pulled->speed);
    struct timespec time = {wait / CLOCK_SECOND, wait % CLOCK_SECOND};
    if (atomic_load(&pulled->gone))
        return -ENODEV;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    switch (request->operation) {
    case BLOCK_READ:
        return block_read(pulled->file, request->at, request->count, request->data, NULL);
    case BLOCK_WRITE:
        return block_write(pulled->file, request->at, request->count, request->data, NULL);
    default:
        return request->operation == BLOCK_FLUSH ? 0 : -EOPNOTSUPP;
    }
}

static void *work_slowly(void *data)
{
    struct pulled *pulled = data;
    while (!atomic_load(&pulled->ending)) {
        struct block_request *next, *request = block_queue_take(&pulled->queue);
        if (!request)
            block_queue_wait(&pulled->queue);
        for (; request; request = next) {
            next = request->next;
            request->result = carry_out(pulled, request);
            request->done(request);
        }
    }
    return NULL;
}

static void destroy(struct block_device *device)
{
    struct pulled *pulled = (struct pulled *)device;
    if (pulled->speed > 0) {
        atomic_store(&pulled->ending, true);
        block_queue_wake(&pulled->queue);
        pthread_join(pulled->thread, NULL);
        block_queue_finish(&pulled->queue);
    }
    block_device_destroy(pulled->file);
    free(pulled);
}

static const struct block_device_ops pulled_ops = {.submit = submit, .destroy = destroy};

static int open_device(const struct tool *tool, struct pulled **ret, struct error *err)
{
    bool read_only = tool->options.read_only;
    struct block_device *file;
    int fd = open(tool->image, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", tool->image);
    int r = block_file_open(fd, tool->sector_size, read_only, &file, err);
    if (r != 0)
        return r;
    struct pulled *pulled = calloc(1, sizeof(*pulled));
    pulled->device = *file;
    pulled->device.ops = &pulled_ops;
    pulled->device.whole = &pulled->device;
    pulled->file = file;
    pulled->speed = tool->speed;
    if (tool->speed > 0 && (block_queue_init(&pulled->queue, err) != 0 ||
                            pthread_create(&pulled->thread, NULL, work_slowly, pulled) != 0))
        return error_set(err, -EAGAIN, "start the device's thread");
    *ret = pulled;
    return 0;
}

static void say_end(struct fuse_door *door, enum fuse_door_end end, const char *message, void *data)
{
    struct tool *tool = data;
    printf("%s: %s\n", fuse_door_end_name(end), message);
    fflush(stdout);
    if (end != FUSE_DOOR_GONE)
        atomic_fetch_add(&tool->ended, 1);
}

static int set_cache(const char *folder, const char *name, unsigned value)
{
    char path[80];
    struct stat status;
    if (stat(folder, &status) != 0)
        return -errno;
    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major(status.st_dev),
             minor(status.st_dev), name);
    FILE *file = fopen(path, "w");
    if (!file)
        return -errno;
    fprintf(file, "%u", value);
    return fclose(file) == 0 ? 0 : -errno;
}

static int set_caches(const struct tool *tool, const char *folder)
{
    unsigned kib = tool->read_ahead ? tool->read_ahead : FUSE_DOOR_READ_AHEAD / 1024;
    int r = set_cache(folder, "read_ahead_kb", kib);
    if (r == 0)
        r = set_cache(folder, "max_ratio", FUSE_DOOR_DIRTY_MOST);
    (void)set_cache(folder, "min_ratio", FUSE_DOOR_DIRTY_LEAST); /* others may have all of it */
    return r;
}

static int open_door(struct tool *tool, unsigned i, struct error *err)
{
    char options[160];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof(options),
             "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd);
    unsigned long flags =
        MS_NOSUID | MS_NODEV | MS_NOATIME | (tool->options.read_only ? MS_RDONLY : 0);
    if (fd < 0 || mount("stick", tool->folders[i], "fuse.cloche", flags, options) != 0)
        return error_errno(err, errno, "mount at %s", tool->folders[i]);
    int r = fuse_door_open(tool->served, fd, &tool->options, &tool->doors[i], err);
    return r == 0 ? set_caches(tool, tool->folders[i]) : r;
}

static void serve(struct tool *tool, struct pulled *pulled)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    while (atomic_load(&tool->ended) < tool->count) {
        if (poll(&poll_fd, 1, 100) == 1) {
            struct signalfd_siginfo info;
            if (read(fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGTERM)
                break;
            atomic_store(&pulled->gone, true);
        }
        medium_tick(tool->medium, (uint64_t)clock_milliseconds(), NULL);
    }
    close(fd);
}

static void close_doors(struct tool *tool)
{
    struct fuse_door_counts counts;
    for (unsigned i = 0; i < tool->count; i++) {
        if (!tool->doors[i])
            continue;
        fuse_door_counts(tool->doors[i], &counts);
        printf("counts: requests %llu read %llu written %llu failed %llu delayed %llu\n",
               (unsigned long long)counts.requests, (unsigned long long)counts.bytes_read,
               (unsigned long long)counts.bytes_written, (unsigned long long)counts.failed,
               (unsigned long long)counts.delayed);
        fuse_door_close(tool->doors[i]);
        umount2(tool->folders[i], MNT_DETACH);
    }
}

static int run(struct tool *tool, struct error *err)
{
    struct volume_options options = {.read_only = tool->options.read_only};
    struct pulled *pulled;
    int r = open_device(tool, &pulled, err);
    if (r != 0)
        return r;
    tool->medium_options.read_only = options.read_only;
    r = medium_open(&pulled->device, &tool->medium_options, &tool->medium, err);
    if (r != 0)
        return r;
    r = volume_mount(tool->medium, &options, &tool->volume, err);
    if (r != 0)
        return r;
    tool->served = served_volume_create(tool->volume);
    for (unsigned i = 0; r == 0 && i < tool->count; i++)
        r = open_door(tool, i, err);
    if (r == 0) {
        printf("ready\n");
        fflush(stdout);
        serve(tool, pulled);
    }
    close_doors(tool);
    served_volume_destroy(tool->served);
    int gone = atomic_load(&pulled->gone);
    int last = tool->volume->ops->unmount(tool->volume, r == 0 && !gone ? err : NULL);
    if (medium_close(tool->medium, NULL) != 0 && !gone)
        last = -EIO;
    block_device_destroy(&pulled->device);
    return r == 0 && !gone ? last : r;
}

static const struct option long_options[] = {
    {"read-only", no_argument, NULL, 'r'},
    {"uid", required_argument, NULL, 'u'},
    {"gid", required_argument, NULL, 'g'},
    {"file-mode", required_argument, NULL, 'f'},
    {"folder-mode", required_argument, NULL, 'd'},
    {"threads", required_argument, NULL, 't'},
    {"bytes-per-second", required_argument, NULL, 'b'},
    {"operations-per-second", required_argument, NULL, 'o'},
    {"size-limit", required_argument, NULL, 's'},
    {"cache", required_argument, NULL, 'c'},
    {"read-ahead", required_argument, NULL, 'a'},
    {"speed", required_argument, NULL, 'S'},
    {"write-through", no_argument, NULL, 'w'},
    {"sector-size", required_argument, NULL, 'k'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void take_option(struct tool *tool, int option)
{
    struct fuse_door_options *options = &tool->options;
    uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;
    switch (option) {
    case 'r':
        options->read_only = true;
        break;
    case 'u':
        options->uid = (uid_t)number;
        break;
    case 'g':
        options->gid = (gid_t)number;
        break;
    case 'f':
        options->file_mode = (mode_t)number;
        break;
    case 'd':
        options->folder_mode = (mode_t)number;
        break;
    case 't':
        options->threads = (unsigned)number;
        break;
    case 'b':
        options->bytes_per_second = number;
        break;
    case 'o':
        options->operations_per_second = number;
        break;
    case 's':
        options->size_limit = number;
        break;
    case 'c':
        tool->medium_options.cache_size = number;
        break;
    case 'a':
        tool->read_ahead = (unsigned)number;
        break;
    case 'w':
        options->write_through = true;
        break;
    case 'k':
        tool->sector_size = (unsigned)number;
        break;
    case 'S':
        tool->speed = number;
        break;
    default:
        fputs(usage, option == 'h' ? stdout : stderr);
        exit(option == 'h' ? 0 : 2);
    }
}

int main(int argc, char **argv)
{
    struct tool tool = {.options.ended = say_end, .sector_size = 512};
    struct error err = ERROR_INIT;
    sigset_t signals;
    int option;
    tool.options.data = &tool;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        take_option(&tool, option);
    if (argc - optind < 2 || argc - optind - 1 > DOORS_MOST)
        take_option(&tool, '?');
    tool.image = argv[optind];
    tool.folders = argv + optind + 1;
    tool.count = (unsigned)(argc - optind - 1);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int r = run(&tool, &err);
    if (r != 0)
        fprintf(stderr, "fuse-tool: %s\n", error_message(&err));
    error_finish(&err);
    return r == 0 ? 0 : 1;
}
