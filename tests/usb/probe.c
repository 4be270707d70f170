/* A stick read by the host stack, as itself and as a disk: probe --help. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/clock.h>
#include <usb/disk.h>
#ifdef HAVE_LIBUSB
#include <usb/libusb.h>
#endif

#include "timing.h"

static const char usage[] =
    "usage: probe [--command-ms N] DEVICE [UNIT] COMMAND\n"
    "DEVICE: /dev/bus/usb/BBB/DDD, or the port of a USB/IP server of this machine and BUS-ID: "
    "3240/1-1;\n"
    "        or a block device of the kernel's, for `time` only\n"
    "COMMAND:\n"
    "  facts                  what it says of itself\n"
    "  read                   all of it to stdout\n"
    "  write                  stdin to its start, and flush\n"
    "  first                  its first bytes, and how long they took from opening the device on\n"
    "  time SIZE COUNT [write] [random] [depth N] [ahead] [rounds N] [beside PATH]\n"
    "                         COUNT reads or writes of SIZE bytes: percentiles, rate; ahead: as\n"
    "                         doors read; beside: a block device of the kernel's in turn\n"
    "  idle SECONDS           says when a unit's state changes\n";

enum { FIRST = 4096 };

struct probe {
    int64_t begun; /* nanoseconds */
    struct usb_stick *stick;
    struct block_device *disk;
    unsigned unit;
    char **command;
    atomic_int result;
    atomic_bool done;
};

static int connect_to(const char *text, struct usb_transport **transport, struct error *err)
{
    char *end;
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((uint16_t)strtoul(text, &end, 10));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        return error_errno(err, errno, "connect to %s", text);
    return usb_usbip_open(fd, *end == '/' ? end + 1 : "1-1", 30000, transport, err);
}

static int open_device(const char *text, struct usb_transport **transport, struct error *err)
{
    if (text[0] != '/')
        return connect_to(text, transport, err);
#ifdef HAVE_LIBUSB
    int fd = open(text, O_RDWR | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open %s", text)
                  : usb_libusb_open(fd, 0, transport, err);
#else
    return error_set(err, -ENOTSUP, "built without libusb");
#endif
}

static int copy(struct block_device *disk, bool write, struct error *err)
{
    uint32_t most = disk->best_size / disk->sector_size;
    uint8_t *data = block_buffer_alloc(disk, disk->best_size);
    int r = 0;
    for (uint64_t sector = 0; r == 0 && sector < disk->sectors; sector += most) {
        uint64_t left = disk->sectors - sector;
        uint32_t count = left < most ? (uint32_t)left : most;
        size_t size = (size_t)count * disk->sector_size;
        if (write) {
            size = fread(data, 1, size, stdin);
            count = (uint32_t)(size / disk->sector_size);
            if (count == 0)
                break;
            r = block_write(disk, sector, count, data, err);
        } else {
            r = block_read(disk, sector, count, data, err);
            if (r == 0 && fwrite(data, 1, size, stdout) != size)
                r = error_set(err, -EIO, "write to stdout");
        }
    }
    if (r == 0 && write)
        r = block_flush(disk, err);
    block_buffer_free(disk, data, disk->best_size);
    return r;
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * CLOCK_SECOND + now.tv_nsec;
}

static int read_first(const struct probe *probe, struct error *err)
{
    struct block_device *disk = probe->disk;
    void *data = block_buffer_alloc(disk, FIRST);
    int r = block_read(disk, 0, FIRST / disk->sector_size, data, err);
    if (r == 0)
        printf("first byte after %.2f ms\n", (double)(nanoseconds() - probe->begun) / 1e6);
    block_buffer_free(disk, data, FIRST);
    return r;
}

static void *work(void *data)
{
    struct probe *probe = data;
    struct error err = ERROR_INIT;
    char **command = probe->command;
    int r = 0;
    struct timing timing;
    if (strcmp(command[0], "time") == 0)
        r = timing_parse(command + 1, &timing) ? timing_run(probe->disk, &timing, &err)
                                               : error_set(&err, -EINVAL, "time: what, see --help");
    else if (strcmp(command[0], "first") == 0)
        r = read_first(probe, &err);
    else if (strcmp(command[0], "facts") != 0)
        r = copy(probe->disk, strcmp(command[0], "write") == 0, &err);
    if (r != 0)
        fprintf(stderr, "probe: %s\n", error_message(&err));
    error_finish(&err);
    block_device_destroy(probe->disk);
    atomic_store(&probe->result, r);
    atomic_store(&probe->done, true);
    usb_stick_wake(probe->stick);
    return NULL;
}

static void tell(struct usb_stick *stick, unsigned unit, void *data)
{
    static const char *const states[] = {"waiting", "ready", "empty", "failed"};
    struct usb_unit_facts facts;
    usb_stick_unit(stick, unit, &facts);
    printf("unit %u: %s, \"%s\" \"%s\" \"%s\" \"%s\", %llu sectors of %u bytes%s%s%s%s%s\n", unit,
           states[facts.state], facts.vendor, facts.product, facts.revision, facts.name,
           (unsigned long long)facts.sectors, facts.sector_size,
           facts.removable ? ", removable" : "", facts.write_protected ? ", write-protected" : "",
           facts.caching ? ", cache" : "", facts.error[0] ? ": " : "", facts.error);
    fflush(stdout);
}

static int run(struct probe *probe, int seconds)
{
    int64_t end = clock_milliseconds() + (seconds ? seconds : 60) * 1000;
    struct usb_unit_facts facts = {0};
    pthread_t thread;
    struct error err = ERROR_INIT;
    int r = 0;
    while (r == 0 && clock_milliseconds() < end && (seconds || facts.state == USB_UNIT_WAITING)) {
        r = usb_stick_run(probe->stick, 100, &err);
        usb_stick_unit(probe->stick, probe->unit, &facts);
    }
    if (r == 0 && !seconds && facts.state == USB_UNIT_READY) {
        probe->disk = usb_stick_disk(probe->stick, probe->unit);
        pthread_create(&thread, NULL, work, probe);
        while (r == 0 && !atomic_load(&probe->done))
            r = usb_stick_run(probe->stick, -1, &err);
        pthread_join(thread, NULL);
    } else if (r == 0 && !seconds) {
        r = error_set(&err, -ENOMEDIUM, "unit %u: %s", probe->unit, facts.error);
    }
    if (r != 0)
        fprintf(stderr, "probe: %s\n", error_message(&err));
    error_finish(&err);
    return r ? r : atomic_load(&probe->result);
}

static int time_kernel(char **argv)
{
    struct error err = ERROR_INIT;
    struct timing timing;
    int r = strcmp(argv[2], "time") == 0 && timing_parse(argv + 3, &timing)
                ? timing_run_kernel(argv[1], &timing, &err)
                : error_set(&err, -EINVAL, "a block device is for `time SIZE COUNT` only");
    if (r != 0)
        fprintf(stderr, "probe: %s\n", error_message(&err));
    error_finish(&err);
    return r ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct stat st;
    struct usb_transport *transport = NULL;
    struct probe probe = {0};
    struct error err = ERROR_INIT;
    struct usb_stick_options options = {0};
    int at = 2;
    if (argc > 2 && strcmp(argv[1], "--command-ms") == 0) {
        options.command_ms = (uint32_t)atoi(argv[2]);
        argv += 2;
        argc -= 2;
    }
    if (argc > at && argv[at][0] >= '0' && argv[at][0] <= '9')
        probe.unit = (unsigned)atoi(argv[at++]);
    if (argc <= at) {
        fputs(usage, stderr);
        return 2;
    }
    if (stat(argv[1], &st) == 0 && S_ISBLK(st.st_mode))
        return time_kernel(argv);
    probe.command = argv + at;
    bool talks = strcmp(argv[at], "facts") == 0 || strcmp(argv[at], "idle") == 0;
    probe.begun = nanoseconds();
    int r = open_device(argv[1], &transport, &err);
    if (r == 0)
        r = usb_stick_open(transport, &options, talks ? tell : NULL, NULL, &probe.stick, &err);
    if (r != 0) {
        fprintf(stderr, "probe: %s\n", error_message(&err));
        return 1;
    }
    const struct usb_stick_facts *facts = usb_stick_facts(probe.stick);
    if (talks)
        printf("%04x:%04x \"%s\" \"%s\" \"%s\", %u units, by %s, %s\n", facts->vendor,
               facts->product, facts->manufacturer, facts->model, facts->serial, facts->units,
               transport->ops->name,
               facts->interfaces[0].protocol == USB_PROTOCOL_UAS ? "UAS" : "bulk-only");
    r = run(&probe, strcmp(argv[at], "idle") == 0 && argc > at + 1 ? atoi(argv[at + 1]) : 0);
    struct usb_stick_counts counts;
    usb_stick_counts(probe.stick, &counts);
    if (strcmp(argv[at], "time") == 0)
        printf("recoveries %u, resets of the port %u\n", counts.recoveries, counts.port_resets);
    usb_stick_close(probe.stick);
    return r ? 1 : 0;
}
