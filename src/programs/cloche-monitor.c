#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <base/log.h>
#include <base/text.h>
#include <monitor/monitor.h>
#include <monitor/protocol.h>

enum {
    STOP_TIMEOUT_DEFAULT_MS = 10 * 1000,
    STOP_TIMEOUT_MAX_S = 1000000,
    FD_MAX = 1 << 20,
};

enum option_code {
    OPTION_PROTOCOL = 256,
    OPTION_ID,
    OPTION_BUNDLE,
    OPTION_RUNTIME,
    OPTION_RUNTIME_ROOT,
    OPTION_LOG,
    OPTION_LOG_PACKER,
    OPTION_MEMORY_CGROUP,
    OPTION_FREEZER,
    OPTION_JOIN_USER,
    OPTION_JOIN_PID,
    OPTION_JOIN_IPC,
    OPTION_JOIN_NETWORK,
    OPTION_SHM,
    OPTION_SHARED_BIND,
    OPTION_VOLUME,
    OPTION_SUBPATH,
    OPTION_TTY,
    OPTION_OPEN_STDIN,
    OPTION_STDIN_ONCE,
    OPTION_STOP_SIGNAL,
    OPTION_STOP_TIMEOUT,
    OPTION_CONTROL_FD,
    OPTION_ROOTFS_FD,
    OPTION_NETNS_FD,
    OPTION_USERNS_FD,
    OPTION_ROOT_UID,
    OPTION_ROOT_GID,
};

static const struct option long_options[] = {
    {"protocol", required_argument, NULL, OPTION_PROTOCOL},
    {"id", required_argument, NULL, OPTION_ID},
    {"bundle", required_argument, NULL, OPTION_BUNDLE},
    {"runtime", required_argument, NULL, OPTION_RUNTIME},
    {"runtime-root", required_argument, NULL, OPTION_RUNTIME_ROOT},
    {"log", required_argument, NULL, OPTION_LOG},
    {"log-packer", required_argument, NULL, OPTION_LOG_PACKER},
    {"memory-cgroup", required_argument, NULL, OPTION_MEMORY_CGROUP},
    {"freezer", required_argument, NULL, OPTION_FREEZER},
    {"join-user", required_argument, NULL, OPTION_JOIN_USER},
    {"join-pid", required_argument, NULL, OPTION_JOIN_PID},
    {"join-ipc", required_argument, NULL, OPTION_JOIN_IPC},
    {"join-network", required_argument, NULL, OPTION_JOIN_NETWORK},
    {"shm", required_argument, NULL, OPTION_SHM},
    {"shared-bind", required_argument, NULL, OPTION_SHARED_BIND},
    {"volume", required_argument, NULL, OPTION_VOLUME},
    {"subpath", required_argument, NULL, OPTION_SUBPATH},
    {"tty", no_argument, NULL, OPTION_TTY},
    {"open-stdin", no_argument, NULL, OPTION_OPEN_STDIN},
    {"stdin-once", no_argument, NULL, OPTION_STDIN_ONCE},
    {"stop-signal", required_argument, NULL, OPTION_STOP_SIGNAL},
    {"stop-timeout", required_argument, NULL, OPTION_STOP_TIMEOUT},
    {"control-fd", required_argument, NULL, OPTION_CONTROL_FD},
    {"rootfs-fd", required_argument, NULL, OPTION_ROOTFS_FD},
    {"netns-fd", required_argument, NULL, OPTION_NETNS_FD},
    {"userns-fd", required_argument, NULL, OPTION_USERNS_FD},
    {"root-uid", required_argument, NULL, OPTION_ROOT_UID},
    {"root-gid", required_argument, NULL, OPTION_ROOT_GID},
    {NULL, 0, NULL, 0},
};

static int parse_number(const char *name, const char *text, int64_t min, int64_t max, int *ret)
{
    int64_t number;

    if (text_to_i64(text, min, max, &number) < 0) {
        log_error("--%s: '%s' is not a number from %lld to %lld", name, text, (long long)min,
                  (long long)max);
        return -EINVAL;
    }
    *ret = (int)number;
    return 0;
}

static int parse_id(const char *name, const char *text, uint32_t *ret)
{
    uint64_t number;

    if (text_to_u64(text, 0, UINT32_MAX - 1, &number) < 0) {
        log_error("--%s: '%s' is no user or group", name, text);
        return -EINVAL;
    }
    *ret = (uint32_t)number;
    return 0;
}

static int parse_stop_timeout(const char *name, const char *text, int *ret_ms)
{
    int seconds, r = parse_number(name, text, -1, STOP_TIMEOUT_MAX_S, &seconds);

    if (r == 0)
        *ret_ms = seconds < 0 ? -1 : seconds * 1000;
    return r;
}

/* Where the value of an option goes that is a text. */
static const char **text_option(int code, struct monitor_options *options)
{
    switch (code) {
    case OPTION_ID:
        return &options->id;
    case OPTION_BUNDLE:
        return &options->bundle;
    case OPTION_RUNTIME:
        return &options->runtime;
    case OPTION_RUNTIME_ROOT:
        return &options->runtime_root;
    case OPTION_LOG:
        return &options->log;
    case OPTION_LOG_PACKER:
        return &options->log_packer;
    case OPTION_MEMORY_CGROUP:
        return &options->memory_cgroup;
    case OPTION_FREEZER:
        return &options->freezer;
    case OPTION_JOIN_USER:
        return &options->joined[MONITOR_JOINED_USER];
    case OPTION_JOIN_PID:
        return &options->joined[MONITOR_JOINED_PID];
    case OPTION_JOIN_IPC:
        return &options->joined[MONITOR_JOINED_IPC];
    case OPTION_JOIN_NETWORK:
        return &options->joined[MONITOR_JOINED_NETWORK];
    default:
        return NULL;
    }
}

static int parse_size(const char *name, const char *text, uint64_t *ret)
{
    if (text_to_u64(text, 1, INT64_MAX, ret) < 0) {
        log_error("--%s: '%s' is not a number of bytes", name, text);
        return -EINVAL;
    }
    return 0;
}

static int add_bind(const char *name, const char *path, bool volume,
                    struct monitor_options *options)
{
    if (path[0] != '/' || options->binds_count == MONITOR_BINDS_MAX) {
        log_error("--%s: '%s' is no absolute path, or one of more than %d", name, path,
                  MONITOR_BINDS_MAX);
        return -EINVAL;
    }
    options->binds[options->binds_count++] = (struct monitor_bind){path, NULL, volume};
    return 0;
}

static int add_subpath(const char *path, struct monitor_options *options)
{
    struct monitor_bind *last =
        options->binds_count ? &options->binds[options->binds_count - 1] : NULL;

    if (!last || !last->volume || last->subpath) {
        log_error("--subpath: there is no --volume before '%s'", path);
        return -EINVAL;
    }
    last->subpath = path;
    return 0;
}

static bool *flag_option(int code, struct monitor_options *options)
{
    switch (code) {
    case OPTION_TTY:
        return &options->tty;
    case OPTION_OPEN_STDIN:
        return &options->open_stdin;
    case OPTION_STDIN_ONCE:
        return &options->stdin_once;
    default:
        return NULL;
    }
}

static int parse_number_option(int code, const char *name, struct monitor_options *options)
{
    int protocol, r;

    switch (code) {
    case OPTION_PROTOCOL:
        r = parse_number(name, optarg, MONITOR_PROTOCOL_VERSION - 1, MONITOR_PROTOCOL_VERSION,
                         &protocol);
        options->protocol = r < 0 ? 0 : (unsigned)protocol;
        return r;
    case OPTION_SHM:
        return parse_size(name, optarg, &options->shm_size);
    case OPTION_SHARED_BIND:
        return add_bind(name, optarg, false, options);
    case OPTION_VOLUME:
        return add_bind(name, optarg, true, options);
    case OPTION_SUBPATH:
        return add_subpath(optarg, options);
    case OPTION_STOP_SIGNAL:
        return parse_number(name, optarg, 1, 64, &options->stop_signal);
    case OPTION_STOP_TIMEOUT:
        return parse_stop_timeout(name, optarg, &options->stop_timeout_ms);
    case OPTION_CONTROL_FD:
        return parse_number(name, optarg, 3, FD_MAX, &options->control_fd);
    case OPTION_ROOTFS_FD:
        return parse_number(name, optarg, 3, FD_MAX, &options->rootfs_fd);
    case OPTION_NETNS_FD:
        return parse_number(name, optarg, 3, FD_MAX, &options->netns_fd);
    case OPTION_USERNS_FD:
        return parse_number(name, optarg, 3, FD_MAX, &options->userns_fd);
    case OPTION_ROOT_UID:
        return parse_id(name, optarg, &options->root_uid);
    case OPTION_ROOT_GID:
        return parse_id(name, optarg, &options->root_gid);
    default:
        log_error("unknown option, or one without its value");
        return -EINVAL;
    }
}

static int check(const struct monitor_options *options)
{
    const char *const paths[] = {options->bundle, options->runtime_root, options->log};

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        if (!paths[i] || paths[i][0] != '/') {
            log_error("--bundle, --runtime-root and --log are wanted, as absolute paths");
            return -EINVAL;
        }
    }
    for (unsigned i = 0; i < options->binds_count; i++) {
        if (options->binds[i].volume && !options->binds[i].subpath) {
            log_error("--volume: '%s' has no --subpath", options->binds[i].path);
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < MONITOR_JOINED_COUNT; i++) {
        if (options->joined[i] && options->joined[i][0] != '/') {
            log_error("'%s': the bundle of another container is wanted, as an absolute path",
                      options->joined[i]);
            return -EINVAL;
        }
    }
    if (!options->id || !options->runtime || options->control_fd < 0) {
        log_error("this program is started by cloched: see cloche-monitor(8)");
        return -EINVAL;
    }
    return 0;
}

static int parse(int argc, char **argv, struct monitor_options *options)
{
    int code, index = 0, r = 0;

    opterr = 0;
    while (r == 0 && (code = getopt_long(argc, argv, "", long_options, &index)) >= 0) {
        const char **text = text_option(code, options);
        bool *flag = flag_option(code, options);
        if (text)
            *text = optarg;
        else if (flag)
            *flag = true;
        else
            r = parse_number_option(code, long_options[index].name, options);
    }
    if (r == 0 && optind != argc) {
        log_error("'%s': no arguments are wanted", argv[optind]);
        r = -EINVAL;
    }
    return r < 0 ? r : check(options);
}

/* What the daemon passed is for us, not for the runtime. */
static void set_close_on_exec(const struct monitor_options *options)
{
    const int fds[] = {options->control_fd, options->rootfs_fd, options->netns_fd,
                       options->userns_fd};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        if (fds[i] >= 0)
            fcntl(fds[i], F_SETFD, FD_CLOEXEC);
    }
}

int main(int argc, char **argv)
{
    struct monitor_options options = {
        .protocol = MONITOR_PROTOCOL_VERSION,
        .stop_signal = SIGTERM,
        .stop_timeout_ms = STOP_TIMEOUT_DEFAULT_MS,
        .control_fd = -1,
        .rootfs_fd = -1,
        .netns_fd = -1,
        .userns_fd = -1,
    };

    log_configure("cloche-monitor", STDERR_FILENO, LOG_INFO, LOG_FORMAT_AUTO);
    if (parse(argc, argv, &options) < 0)
        return 2;
    set_close_on_exec(&options);
    return monitor_run(&options);
}
