/*
 * The process of a stick, cloche-usb:
 *
 *     open_work      another thread: the device's node opened or the server of a remote one
 * reached, interfaces authorised, a cgroup made launch         a socket for it and the daemons to
 * come, the process, its record adopt          the same socket, when an earlier daemon has started
 * it
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>
#include <base/socket.h>
#include <base/text.h>

#include "cgroup.h"
#include "errand.h"
#include "usb_internal.h"
#include "usb_sysfs.h"
#include "usb_turns.h"
#include "usb_url.h"

enum {
    CONNECT_TIMEOUT_MS = 10 * 1000,
    END_TIMEOUT_MS = 60 * 1000, /* for what is left to be written */
    KILL_TIMEOUT_MS = 5000,
    KILL_POLL_MS = 10,
    MEMORY_LEAST = 32 * 1024 * 1024, /* that cloche-usb takes */
    KEPT_PART = 2, /* of it, for what is known of the stick; the rest is for caches and threads */
    LISTEN_FD = 3,
    DEVICE_FD = 4,
};

struct starting {
    uv_work_t work;
    struct stick *stick; /* a reference */
    struct usb_url *url; /* owned copies for the other thread; NULL: a local one */
    char port[USB_PORT_MAX];
    unsigned bus, device;
    char *cgroup; /* its name; owned */
    bool check_unused;
    uint8_t configuration; /* to be set before; 0: none */
    char *record;          /* of usb_sysfs_configure(); owned */
    int device_fd;
    bool authorized;
    struct error err;
};

uint64_t usb_memory(const struct usb *usb)
{
    return usb->settings && usb->settings->has_memory ? usb->settings->memory : USB_MEMORY;
}

/* --- another thread --------------------------------------------------------------------------- */

static int wait_connected(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof(error);

    int r = poll(&poll_fd, 1, CONNECT_TIMEOUT_MS);
    if (r <= 0)
        return r < 0 ? -errno : -ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? -errno : -error;
}

static int connect_to(const struct addrinfo *address)
{
    const int one = 1;
    _cleanup_close_ int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                    address->ai_protocol);

    if (fd < 0)
        return -errno;
    int r = connect(fd, address->ai_addr, address->ai_addrlen) < 0 ? -errno : 0;
    if (r == -EINPROGRESS)
        r = wait_connected(fd);
    if (r < 0)
        return r;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    return steal_fd(&fd);
}

static int reach(const struct usb_url *url, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses;
    int r = getaddrinfo(url->host, url->port, &hints, &addresses);

    if (r)
        return error_set(err, -EHOSTUNREACH, "find the USB/IP server %s: %s", url->host,
                         gai_strerror(r));
    r = -EHOSTUNREACH;
    for (const struct addrinfo *at = addresses; at && r < 0; at = at->ai_next)
        r = connect_to(at);
    freeaddrinfo(addresses);
    return r < 0 ? error_errno(err, -r, "connect to the USB/IP server %s port %s", url->host,
                               url->port)
                 : r;
}

static int open_local(struct starting *starting, int devices_fd, struct error *err)
{
    int r = 0;

    if (starting->check_unused)
        r = usb_sysfs_check_unused(devices_fd, starting->port, err);
    if (r >= 0 && starting->configuration)
        r = usb_sysfs_configure(devices_fd, starting->port, starting->configuration,
                                starting->record, err);
    if (r >= 0)
        r = usb_sysfs_authorize_storage(devices_fd, starting->port, &starting->authorized, err);
    if (r >= 0)
        r = usb_sysfs_open_node(starting->bus, starting->device, err);
    return r;
}

static void open_work(uv_work_t *work)
{
    struct starting *starting = work->data;
    const struct usb *usb = starting->stick->usb;
    int r = starting->url ? reach(starting->url, &starting->err)
                          : open_local(starting, usb->devices_fd, &starting->err);

    if (r >= 0)
        starting->device_fd = r;
    if (r >= 0)
        r = usb_room_make(usb, starting->cgroup, &starting->err);
    engine_settle(&starting->err, r < 0 ? r : 0);
}

/* --- the process ------------------------------------------------------------------------------ */

struct watched {
    struct stick *stick; /* a reference */
};

static void on_child_ended(int status, void *data)
{
    struct watched *watched = data;
    struct stick *stick = watched->stick;

    stick->child = false;
    if (!stick->usb->ending)
        stick_ended(stick, process_exit_code(status));
    stick_unref(stick);
    free(watched);
}

static void add_option(char ***argv, const char *name, char *value)
{
    strv_append(argv, name);
    strv_take(argv, value);
}

static char **arguments_of(const struct stick *stick, const struct starting *starting)
{
    const struct usb_settings_settings *settings = stick->usb->settings;
    uint64_t set = usb_memory(stick->usb), memory = set < MEMORY_LEAST ? MEMORY_LEAST : set;
    char **argv = NULL;

    strv_append(&argv, "cloche-usb");
    add_option(&argv, "--uid", xasprintf("%u", stick->user));
    add_option(&argv, "--gid", xasprintf("%u", stick->user));
    add_option(&argv, "--listen", xasprintf("%d", LISTEN_FD));
    add_option(&argv, starting->url ? "--usbip" : "--device", xasprintf("%d", DEVICE_FD));
    if (starting->url)
        add_option(&argv, "--bus-id", xstrdup(starting->url->bus_id));
    add_option(&argv, "--kept", xasprintf("%" PRIu64, memory / KEPT_PART));
    if (stick->locked)
        strv_append(&argv, "--locked-in");
    if (settings && settings->has_real_time)
        add_option(&argv, "--real-time", xasprintf("%u", settings->real_time));
    if (settings && settings->has_memory)
        add_option(&argv, "--memory", xasprintf("%" PRIu64, memory));
    if (settings && settings->cpus)
        add_option(&argv, "--cpus", xstrdup(settings->cpus));
    return argv;
}

static int spawn(struct stick *stick, const struct starting *starting, int listen_fd,
                 struct error *err)
{
    _cleanup_strv_ char **argv = arguments_of(stick, starting);
    char *const environment[] = {NULL};
    const int fds[] = {-1, -1,
                       STDERR_FILENO, [LISTEN_FD] = listen_fd, [DEVICE_FD] = starting->device_fd};
    int cgroups[CGROUP_SMALL_FILES];
    const char *parent = stick->usb->engine->cgroup_parent;
    int cgroups_count = cgroup_open_small(parent, starting->cgroup, cgroups);
    const struct process_spec spec = {
        .path = stick->usb->program,
        .argv = argv,
        .environment = environment,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .cgroups = cgroups,
        .cgroups_count = cgroups_count,
        .directory = "/",
        .new_session = true,
    };
    struct process process;

    if (parent && cgroups_count == 0)
        return error_set(err, -ENOENT, "the cgroup %s of cloche-usb cannot be joined",
                         starting->cgroup);
    int r = process_spawn(&spec, &process, err);
    while (cgroups_count > 0)
        close_fd(cgroups[--cgroups_count]);
    if (r < 0)
        return r;
    struct watched *watched = xnew(struct watched);
    watched->stick = stick_ref(stick);
    stick->pid = process.pid;
    stick->pidfd = fcntl(process.pidfd, F_DUPFD_CLOEXEC, 0);
    stick->child = true;
    stick->is_old = false;
    stick->running_since_ms = uv_now(stick->usb->engine->loop);
    if (process_start_time(process.pid, &stick->started) < 0)
        stick->started = 0;
    return loop_watch_child(stick->usb->engine->loop, &process, 0, on_child_ended, watched, err);
}

static int connect_to_process(struct stick *stick, const char *path, struct error *err)
{
    struct usb *usb = stick->usb;
    int r = usb_link_connect(usb->engine->loop, path, usb_patience(usb), &stick_link_handlers,
                             stick, &stick->link, err);

    if (r == 0)
        usb_pulse_start(usb);
    return r;
}

static int launch(struct stick *stick, const struct starting *starting, struct error *err)
{
    _cleanup_free_ char *path = usb_run_path(stick->usb, stick->key, ".sock");
    _cleanup_close_ int listen_fd = -1;

    unlink(path);
    listen_fd = socket_listen_unix(path, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    int r = connect_to_process(stick, path, err);
    if (r == 0)
        r = spawn(stick, starting, listen_fd, err);
    if (r < 0)
        return r;
    stick_record(stick);
    stick_ask_status(stick);
    return 0;
}

static void starting_free(struct starting *starting)
{
    close_fd(starting->device_fd);
    error_finish(&starting->err);
    usb_url_free(starting->url);
    free(starting->cgroup);
    free(starting->record);
    stick_unref(starting->stick);
    free(starting);
}

static void open_done(uv_work_t *work, int status)
{
    struct starting *starting = work->data;
    struct stick *stick = starting->stick;

    stick->starting = NULL;
    stick->authorized = starting->authorized;
    if (starting->err.code == 0 && (stick->ending || stick->gone || stick->usb->ending))
        error_set(&starting->err, -ECANCELED, "the stick is let go of");
    if (starting->err.code == 0)
        engine_settle(&starting->err, launch(stick, starting, &starting->err));
    if (starting->err.code)
        stick_start_failed(stick, &starting->err);
    starting_free(starting);
}

void stick_process_start(struct stick *stick)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct starting *starting = xnew(struct starting);

    starting->stick = stick_ref(stick);
    starting->device_fd = -1;
    starting->work.data = starting;
    starting->cgroup = usb_room_name(stick);
    stick->user = usb_room_new_user(stick->usb);
    starting->check_unused = true;
    starting->bus = stick->identity.bus;
    starting->device = stick->identity.device;
    snprintf(starting->port, sizeof(starting->port), "%s", stick->identity.port);
    starting->configuration = usb_identity_wants(&stick->identity);
    if (starting->configuration && !stick->chosen)
        stick->chosen = stick->identity.configuration;
    if (!stick->usb->exclusive)
        starting->record = usb_run_path(stick->usb, "exclusive", ".json");
    if (stick->url && usb_url_parse(stick->url, &starting->url, &err) < 0) {
        starting_free(starting);
        stick_start_failed(stick, &err);
        return;
    }
    stick->starting = starting;
    usb_turn_run(stick->usb, starting->port, &starting->work, open_work, open_done);
}

/* --- its end ---------------------------------------------------------------------------------- */

void stick_process_kill(struct stick *stick)
{
    if (stick->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, stick->pidfd, SIGKILL, NULL, 0U);
    usb_connections_abort(stick, NULL); /* else it may stay where it is in the kernel */
}

static void on_late(uv_timer_t *timer)
{
    struct stick *stick = timer->data;

    log_warning("USB %s: its process does not end and is killed", stick->id);
    uv_timer_stop(timer);
    stick_goes_amiss(stick, "its process did not end and was killed");
    stick_process_kill(stick);
}

static void watch_end(struct stick *stick)
{
    if (stick->timer)
        return;
    stick->timer = xnew(uv_timer_t);
    uv_timer_init(stick->usb->engine->loop, stick->timer);
    stick->timer->data = stick;
    uv_unref((uv_handle_t *)stick->timer);
    uv_timer_start(stick->timer, on_late, END_TIMEOUT_MS, 0);
    stick_ask_in_a_hurry(stick);
}

static void ask_end(struct stick *stick)
{
    struct usb_stick_nothing nothing = {0};
    struct usb_stick_request request = {.end = &nothing};

    if (stick->link)
        usb_link_request(stick->link, &request, -1, NULL, NULL);
    else
        stick_process_kill(stick);
}

static void on_ejected(const struct error *err, const struct usb_stick_result *result, void *data)
{
    struct stick *stick = data;

    if (err && !stick->usb->ending) {
        log_failure(LOG_WARNING, err, "USB %s", stick->id);
        stick_goes_amiss(stick, error_message(err));
    }
    if (!stick->usb->ending)
        ask_end(stick);
    stick_unref(stick);
}

void stick_process_end(struct stick *stick)
{
    struct usb_stick_eject all = {0};
    struct usb_stick_request request = {.eject = &all};

    if (stick->asked || !stick->pid)
        return;
    watch_end(stick); /* also of what the containers' file systems make of unmounting */
    if (stick->unplacing)
        return;
    stick->asked = true;
    if (stick->eject && stick->link)
        usb_link_request(stick->link, &request, -1, on_ejected, stick_ref(stick));
    else
        ask_end(stick);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

/* Callers have a reference of their own. */
static void drop_adopted(struct stick *stick)
{
    bool adopted = stick->adopted;

    stick->adopted = false;
    if (adopted)
        stick_unref(stick);
}

void stick_process_clear(struct stick *stick)
{
    _cleanup_free_ char *record = usb_run_path(stick->usb, stick->key, ".json");
    _cleanup_free_ char *path = usb_run_path(stick->usb, stick->key, ".sock");

    usb_connections_abort(stick, NULL);
    usb_connections_free(stick);
    usb_link_destroy(steal_ptr(stick->link));
    if (stick->timer)
        uv_close((uv_handle_t *)steal_ptr(stick->timer), on_timer_closed);
    if (stick->pidfd >= 0)
        close_fd(steal_fd(&stick->pidfd));
    stick->pid = 0;
    unlink(record);
    unlink(path);
    usb_room_drop(stick);
    usb_room_drop_user(stick->usb, stick->user);
    stick->user = 0;
    drop_adopted(stick);
}

void stick_process_destroy(struct stick *stick)
{
    _cleanup_free_ char *cgroup = usb_room_name(stick);

    stick_process_kill(stick);
    if (stick->pidfd >= 0)
        poll(&(struct pollfd){.fd = stick->pidfd, .events = POLLIN}, 1, KILL_TIMEOUT_MS);
    /* The jailed process ends because the one that waits for it has ended, and later than that. */
    for (int waited = 0;
         waited < KILL_TIMEOUT_MS && !cgroup_drop_small(stick->usb->engine->cgroup_parent, cgroup);
         waited += KILL_POLL_MS)
        poll(NULL, 0, KILL_POLL_MS);
    stick_process_clear(stick);
}

void stick_process_forget(struct stick *stick)
{
    usb_link_destroy(steal_ptr(stick->link));
    if (stick->timer)
        uv_close((uv_handle_t *)steal_ptr(stick->timer), on_timer_closed);
    if (stick->pidfd >= 0)
        close_fd(steal_fd(&stick->pidfd));
    drop_adopted(stick);
}

/* --- the next daemon -------------------------------------------------------------------------- */

bool stick_process_adopt(struct stick *stick, const struct usb_settings_record *record)
{
    _cleanup_free_ char *path = usb_run_path(stick->usb, stick->key, ".sock");
    uint64_t started;

    stick->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)record->pid, 0U);
    bool is_it = stick->pidfd >= 0 && process_start_time((pid_t)record->pid, &started) == 0 &&
                 started == record->started;
    if (!is_it || connect_to_process(stick, path, NULL) < 0) {
        if (is_it) /* out of reach */
            stick_process_kill(stick);
        close_fd(stick->pidfd);
        stick->pidfd = -1;
        return false;
    }
    stick_ref(stick);
    stick->adopted = true;
    stick->pid = (pid_t)record->pid;
    stick->started = started;
    stick->user = record->user;
    usb_room_take_user(stick->usb, stick->user);
    stick->state = STICK_STARTING;
    stick->running_since_ms = uv_now(stick->usb->engine->loop);
    stick_ask_status(stick);
    return true;
}
