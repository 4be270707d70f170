#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/log.h>

#include "monitor_internal.h"

enum { IDLE_MS = 2000 };

void monitor_use_scratch(struct monitor *monitor)
{
    if (!monitor->deadlines[DEADLINE_IDLE])
        deadline_set(monitor, DEADLINE_IDLE, IDLE_MS);
}

void monitor_release_scratch(struct monitor *monitor)
{
    madvise(monitor->scratch, sizeof(*monitor->scratch), MADV_DONTNEED);
}

static int open_scratch(struct monitor *monitor, struct error *err)
{
    void *memory = mmap(NULL, sizeof(*monitor->scratch), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return error_errno(err, errno, "allocate memory");
    monitor->scratch = memory;
    return 0;
}

static int open_bundle(struct monitor *monitor, struct error *err)
{
    const char *bundle = monitor->options->bundle;

    monitor->bundle_fd = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (monitor->bundle_fd < 0)
        return error_errno(err, errno, "open bundle %s", bundle);
    unlinkat(monitor->bundle_fd, "status", 0); /* of an earlier run */
    health_remove_files(monitor);
    return 0;
}

/* SIGCHLD tells of children; SIGTERM stops the container, for machines that shut down by
 * signalling everything. SIGPIPE: errors of write(2) say the same. */
static int open_loop(struct monitor *monitor, struct error *err)
{
    sigset_t mask;

    monitor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (monitor->epoll_fd < 0)
        return error_errno(err, errno, "make an epoll set");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    int fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return error_errno(err, errno, "receive signals");
    int r = watch_add(monitor->epoll_fd, &monitor->signals, WATCH_SIGNALS, fd, EPOLLIN);
    return r < 0 ? error_errno(err, -r, "watch signals") : 0;
}

/* What fails here is the answer to START. */
static void prepare(struct monitor *monitor)
{
    const struct monitor_options *options = monitor->options;
    struct error *err = &monitor->failure;

    umask(022);
    if (isolate_process(err) < 0 ||
        container_log_open(&monitor->log, options->log, monitor->scratch->log_text, err) < 0 ||
        isolate_mounts(options, err) < 0 || chdir("/") < 0)
        log_failure(LOG_ERROR, err, "container %s", options->id);
}

static void init(struct monitor *monitor, const struct monitor_options *options)
{
    monitor->options = options;
    monitor->epoll_fd = monitor->bundle_fd = -1;
    monitor->signals = monitor->listener = (struct watch)WATCH_INIT;
    for (size_t i = 0; i < CONTROLS_MAX; i++)
        monitor->controls[i].watch = (struct watch)WATCH_INIT;
    session_init(&monitor->container, "");
    session_init(&monitor->health.session, "");
    monitor->restart.policy = (struct monitor_policy){.log_files = 1};
    monitor->container.tty = options->tty;
    monitor->container.with_stdin = options->open_stdin;
    monitor->container.with_output = true;
    monitor->container.stdin_once = options->stdin_once;
}

static int serve(struct monitor *monitor, struct error *err)
{
    int r = 0;

    while (r == 0 && monitor->phase != PHASE_DONE) {
        r = loop_once(monitor, err);
        if (monitor->phase == PHASE_LINGERING && !clients_close_served(monitor))
            monitor->phase = PHASE_DONE;
    }
    return r;
}

static void finish(struct monitor *monitor)
{
    clients_finish(monitor);
    control_finish(monitor);
    session_close_streams(monitor, &monitor->container);
    watch_close(monitor->epoll_fd, &monitor->signals);
    container_log_close(&monitor->log);
    close_fd(monitor->bundle_fd);
    close_fd(monitor->epoll_fd);
    if (monitor->scratch)
        munmap(monitor->scratch, sizeof(*monitor->scratch));
    error_finish(&monitor->failure);
}

int monitor_run(const struct monitor_options *options)
{
    static struct monitor
        monitor; /* too large for the stack; pages that are not used cost nothing */
    _cleanup_error_ struct error err = ERROR_INIT;
    int r;

    init(&monitor, options);
    r = open_scratch(&monitor, &err);
    if (r == 0)
        r = open_bundle(&monitor, &err);
    if (r == 0)
        r = open_loop(&monitor, &err);
    if (r == 0)
        r = control_open(&monitor, &err);
    if (r == 0) {
        prepare(&monitor);
        r = serve(&monitor, &err);
    }
    if (r < 0)
        log_failure(LOG_ERROR, &err, "container %s", options->id);
    finish(&monitor);
    return r < 0 ? 1 : 0;
}
