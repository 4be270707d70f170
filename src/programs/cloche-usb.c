/* One stick, served in a jail: cloche-usb(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include <base/log.h>
#include <base/text.h>
#include <server/server.h>

enum { NOBODY_ELSE = 65526 }; /* the user where none is given */
enum { PRIORITY_MAX = 99, FDS_FIRST = 3, MEMORY_LEAST = 32 << 20, KEPT_LEAST = 64 << 10 };

static const char usage[] =
    "usage: cloche-usb --listen FD SOURCE [OPTION...]\n"
    "Serves one USB stick to whoever connects to a socket. cloched(8) starts it, as root.\n"
    "  --listen FD        the socket: a listening Unix stream socket\n"
    "SOURCE, one of:\n"
    "  --device FD        the device, from /dev/bus/usb, opened to be read and written\n"
    "  --usbip FD         a connection to a USB/IP server\n"
    "  --image FD         a file as a medium\n"
    "OPTION:\n"
    "  --bus-id ID        of the device of --usbip (1-1)\n"
    "  --sector-size N    bytes, of --image (512)\n"
    "  --read-only        nothing is ever written\n"
    "  --locked-in        a process before may have locked its media in: they are let go of\n"
    "  --uid N, --gid N   what it runs as (65526)\n"
    "  --memory N         bytes of data at most (256m)\n"
    "  --kept N           of these, for what is known of files, folders and checks (half)\n"
    "  --real-time N      priority of SCHED_FIFO, 1 to 99; memory stays in memory\n"
    "  --cpus LIST        processors to stay on, as 2 or 0-1,3\n"
    "  --help\n";

enum option_name {
    OPT_LISTEN = 256,
    OPT_DEVICE,
    OPT_USBIP,
    OPT_IMAGE,
    OPT_BUS_ID,
    OPT_SECTOR_SIZE,
    OPT_READ_ONLY,
    OPT_LOCKED_IN,
    OPT_UID,
    OPT_GID,
    OPT_MEMORY,
    OPT_KEPT,
    OPT_REAL_TIME,
    OPT_CPUS,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"usbip", required_argument, NULL, OPT_USBIP},
    {"image", required_argument, NULL, OPT_IMAGE},
    {"bus-id", required_argument, NULL, OPT_BUS_ID},
    {"sector-size", required_argument, NULL, OPT_SECTOR_SIZE},
    {"read-only", no_argument, NULL, OPT_READ_ONLY},
    {"locked-in", no_argument, NULL, OPT_LOCKED_IN},
    {"uid", required_argument, NULL, OPT_UID},
    {"gid", required_argument, NULL, OPT_GID},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"kept", required_argument, NULL, OPT_KEPT},
    {"real-time", required_argument, NULL, OPT_REAL_TIME},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static int number(uint64_t least, uint64_t most, uint64_t *ret)
{
    return text_to_u64(optarg, least, most, ret);
}

static int descriptor(int *fd)
{
    uint64_t value;
    int r = *fd >= 0 ? -EINVAL : number(FDS_FIRST, INT32_MAX, &value);
    if (r == 0)
        *fd = (int)value;
    return r;
}

static int source(struct server_options *options, enum server_kind kind)
{
    options->kind = kind;
    return descriptor(&options->fd);
}

/* "0-1,3" */
static int parse_cpus(struct server_options *options)
{
    char **parts = strv_split(optarg, ',');
    int r = parts ? 0 : -EINVAL;
    for (char **part = parts; r == 0 && part && *part; part++) {
        uint64_t first, last;
        char **ends = strv_split(*part, '-');
        size_t count = strv_length(ends);
        r = count < 1 || count > 2 ? -EINVAL : text_to_u64(ends[0], 0, CPU_SETSIZE - 1, &first);
        if (r == 0)
            r = text_to_u64(ends[count - 1], first, CPU_SETSIZE - 1, &last);
        for (uint64_t cpu = first; r == 0 && cpu <= last; cpu++)
            CPU_SET(cpu, &options->cpus);
        strv_free(ends);
    }
    strv_free(parts);
    options->has_cpus = true;
    return r;
}

static int memory(struct server_options *options)
{
    int r = text_to_size(optarg, &options->memory);
    return r == 0 && options->memory < MEMORY_LEAST ? -ERANGE : r;
}

static int take(struct server_options *options, int option)
{
    uint64_t value = 0;
    int r;
    switch (option) {
    case OPT_LISTEN:
        return descriptor(&options->listen);
    case OPT_DEVICE:
        return source(options, SERVER_DEVICE);
    case OPT_USBIP:
        return source(options, SERVER_USBIP);
    case OPT_IMAGE:
        return source(options, SERVER_IMAGE);
    case OPT_BUS_ID:
        options->bus_id = optarg;
        return 0;
    case OPT_SECTOR_SIZE:
        r = number(512, 4096, &value);
        options->sector_size = (uint32_t)value;
        return r;
    case OPT_READ_ONLY:
        options->read_only = true;
        return 0;
    case OPT_LOCKED_IN:
        options->locked_in = true;
        return 0;
    case OPT_UID:
        r = number(1, UINT32_MAX - 1, &value);
        options->uid = (uid_t)value;
        return r;
    case OPT_GID:
        r = number(1, UINT32_MAX - 1, &value);
        options->gid = (gid_t)value;
        return r;
    case OPT_MEMORY:
        return memory(options);
    case OPT_KEPT:
        r = text_to_size(optarg, &options->kept);
        return r == 0 && options->kept < KEPT_LEAST ? -ERANGE : r;
    case OPT_REAL_TIME:
        r = number(1, PRIORITY_MAX, &value);
        options->real_time = (int)value;
        return r;
    case OPT_CPUS:
        return parse_cpus(options);
    default:
        return -EINVAL;
    }
}

static int parse(int argc, char **argv, struct server_options *options)
{
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "", long_options, &index)) >= 0) {
        if (option == OPT_HELP) {
            fputs(usage, stdout);
            exit(0);
        }
        if (option == '?')
            return -EINVAL;
        if (take(options, option) != 0) {
            fprintf(stderr, "cloche-usb: --%s: cannot be %s\n", long_options[index].name,
                    optarg ? optarg : "given");
            return -EINVAL;
        }
    }
    if (optind < argc || options->listen < 0 || options->fd < 0) {
        fputs(usage, stderr);
        return -EINVAL;
    }
    if (options->kept > options->memory) {
        fprintf(stderr, "cloche-usb: --kept: more than --memory, of which it is\n");
        return -EINVAL;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct server_options options = {
        .listen = -1,
        .fd = -1,
        .bus_id = "1-1",
        .sector_size = 512,
        .uid = NOBODY_ELSE,
        .gid = NOBODY_ELSE,
        .memory = SERVER_MEMORY,
    };
    _cleanup_error_ struct error err = ERROR_INIT;
    if (parse(argc, argv, &options) != 0)
        return 2;
    log_configure("cloche-usb", STDERR_FILENO, LOG_INFO, LOG_FORMAT_AUTO);
    if (server_isolate(&options, &err) != 0) {
        log_failure(LOG_ERROR, &err, "cannot start");
        return SERVER_FAILED;
    }
    _exit(server_run(&options));
}
