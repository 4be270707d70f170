#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/process.h>
#include <base/socket.h>
#include <base/text.h>
#include <door/address.h>
#include <door/serve.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/door.h>

#include "door.h"
#include "door_guests.h"

#define NS_PER_MS 1000000ULL

enum {
    CONTROL_FD = 3, /* numbers in the door */
    FIRST_SOCKET_FD = 4,
    LISTEN_MAX = 16,
    BIND_STEP_MS = 50,
    END_MS = 1000, /* for a door to end when it is asked to */
    SAID_MAX = 4096,
    COMPLAIN_MS = 1000, /* between two lines of the same complaint */
};

struct place {
    struct door_keeper *keeper;
    struct rpc_watch watch;
};

struct door_keeper {
    struct rpc_loop *loop;
    struct door_settings *settings;
    char *program;
    struct place places[LISTEN_MAX];
    size_t places_count;
    uid_t uid;
    gid_t gid;
    struct process process; /* pidfd -1: none runs */
    struct rpc_watch child;
    struct rpc_watch control;
    struct door_guests *guests;
    bool shot; /* it made no sense, and was ended for it */
    struct rpc_timer retry;
    uint64_t started;
    uint64_t pause_ms; /* after the next crash */
    uint64_t complained;
};

/* ---- who it runs as ---- */

/* /etc/passwd alone: what else NSS may ask could block, or be a stranger. */
static void find_user(struct door_keeper *keeper)
{
    const char *name = keeper->settings->user ? keeper->settings->user : "cloche-door";
    _cleanup_fclose_ FILE *file = fopen("/etc/passwd", "re");
    struct passwd *entry;

    keeper->uid = keeper->gid = DOOR_FALLBACK_ID;
    while (file && (entry = fgetpwent(file))) {
        if (text_equal(entry->pw_name, name)) {
            keeper->uid = entry->pw_uid;
            keeper->gid = entry->pw_gid;
            return;
        }
    }
}

static int check_user(struct door_keeper *keeper, struct error *err)
{
    const char *name = keeper->settings->user;

    find_user(keeper);
    if (name && keeper->uid == DOOR_FALLBACK_ID)
        return error_set(err, -ENOENT, "door: there is no user '%s'", name);
    if (keeper->uid == 0 || keeper->gid == 0)
        return error_set(err, -EINVAL, "door: it may not run as root");
    return 0;
}

/* ---- how it is called ---- */

static void add_text(char ***argv, const char *option, const char *value)
{
    if (!value)
        return;
    strv_append(argv, option);
    strv_append(argv, value);
}

static void add_number(char ***argv, const char *option, bool given, uint32_t value)
{
    if (!given)
        return;
    strv_append(argv, option);
    strv_take(argv, xasprintf("%u", value));
}

static char **arguments(const struct door_keeper *keeper)
{
    const struct door_settings *settings = keeper->settings;
    char **argv = NULL;

    strv_append(&argv, "cloche-door");
    for (size_t i = 0; i < settings->listen_count; i++)
        add_text(&argv, "--listen", settings->listen[i]);
    add_text(&argv, "--tls-cert", settings->tls_cert);
    add_text(&argv, "--tls-key", settings->tls_key);
    add_text(&argv, "--tls-client-ca", settings->tls_client_ca);
    add_text(&argv, "--tls-crl", settings->tls_crl);
    add_text(&argv, "--page", settings->page);
    for (size_t i = 0; i < settings->origins_count; i++)
        add_text(&argv, "--origin", settings->origins[i]);
    if (settings->insecure_loopback)
        strv_append(&argv, "--insecure-loopback");
    add_number(&argv, "--connections", settings->has_connections, settings->connections);
    add_number(&argv, "--connections-per-address", settings->has_connections_per_address,
               settings->connections_per_address);
    add_number(&argv, "--handshakes-per-address", settings->has_handshakes_per_address,
               settings->handshakes_per_address);
    add_number(&argv, "--handshake-seconds", settings->has_handshake_seconds,
               settings->handshake_seconds);
    add_number(&argv, "--ping-seconds", settings->has_ping_seconds, settings->ping_seconds);
    add_number(&argv, "--stall-seconds", settings->has_stall_seconds, settings->stall_seconds);
    add_number(&argv, "--idle-seconds", settings->has_idle_seconds, settings->idle_seconds);
    add_number(&argv, "--exit-seconds", true,
               settings->has_exit_seconds ? settings->exit_seconds : DOOR_EXIT_SECONDS);
    add_number(&argv, "--control-fd", true, CONTROL_FD);
    add_number(&argv, "--sockets-from", true, FIRST_SOCKET_FD);
    add_number(&argv, "--uid", true, keeper->uid);
    add_number(&argv, "--gid", true, keeper->gid);
    return argv;
}

static int spawn(const struct door_keeper *keeper, char *const *argv, const int *fds, int fds_count,
                 struct process *ret, struct error *err)
{
    static char *const environment[] = {NULL};

    return process_spawn(&(struct process_spec){.path = keeper->program,
                                                .argv = argv,
                                                .environment = environment,
                                                .fds = fds,
                                                .fds_count = fds_count,
                                                .directory = "/",
                                                .new_session = true},
                         ret, err);
}

/* What the door says against its configuration, before anybody comes. */
static int check(const struct door_keeper *keeper, struct error *err)
{
    _cleanup_strv_ char **argv = arguments(keeper);
    _cleanup_close_ int said_fd = memfd_create("door", MFD_CLOEXEC);
    const int fds[] = {-1, said_fd, said_fd};
    struct process process;
    char said[SAID_MAX];
    int status;

    if (said_fd < 0)
        return error_errno(err, errno, "make a file in memory");
    strv_append(&argv, "--check");
    int r = spawn(keeper, argv, fds, ARRAY_SIZE(fds), &process, err);
    if (r == 0)
        r = process_wait(&process, &status, err);
    if (r < 0)
        return error_context(err, "door"), r;
    if (process_exit_code(status) == 0)
        return 0;
    ssize_t length = pread(said_fd, said, sizeof(said) - 1, 0);
    said[length > 0 ? length : 0] = '\0';
    char *hint = strchr(said, '\n');
    if (hint)
        *hint++ = '\0';
    error_set(err, -EINVAL, "door: %s", said[0] ? said : "it does not start");
    if (!text_empty(hint)) {
        hint[strcspn(hint, "\n")] = '\0';
        error_hint(err, "%s", hint);
    }
    return -EINVAL;
}

/* ---- a running door ---- */

static void watch_places(struct door_keeper *keeper, bool on)
{
    for (size_t i = 0; i < keeper->places_count; i++)
        rpc_loop_watch(keeper->loop, &keeper->places[i].watch, on ? EPOLLIN : 0);
}

static void on_retry(struct rpc_timer *timer)
{
    watch_places((struct door_keeper *)((char *)timer - offsetof(struct door_keeper, retry)), true);
}

static void forget_door(struct door_keeper *keeper)
{
    if (keeper->control.fd >= 0)
        rpc_loop_watch(keeper->loop, &keeper->control, 0);
    close_fd(steal_fd(&keeper->control.fd));
    if (keeper->child.fd >= 0)
        rpc_loop_watch(keeper->loop, &keeper->child, 0);
    keeper->child.fd = -1;
}

static void wait_before_retry(struct door_keeper *keeper, int status)
{
    uint64_t now = rpc_loop_now(keeper->loop);

    if (now - keeper->started >= DOOR_STEADY_MS * NS_PER_MS)
        keeper->pause_ms = DOOR_RETRY_MIN_MS;
    log_error("cloche-door ended %s %d; the next one in %.1f s",
              WIFSIGNALED(status) ? "on signal" : "with exit code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
              (double)keeper->pause_ms / 1000);
    rpc_loop_set_timer(keeper->loop, &keeper->retry, now + keeper->pause_ms * NS_PER_MS);
    keeper->pause_ms *= 2;
    if (keeper->pause_ms > DOOR_RETRY_MAX_MS)
        keeper->pause_ms = DOOR_RETRY_MAX_MS;
}

static void on_end(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct door_keeper *keeper =
        (struct door_keeper *)((char *)watch - offsetof(struct door_keeper, child));
    int status = 0;

    forget_door(keeper);
    process_wait(&keeper->process, &status, NULL);
    if (status == 0 && !keeper->shot)
        watch_places(keeper, true);
    else
        wait_before_retry(keeper, status);
}

/* The connection is lost with its descriptor: the door sees its end close, and tells its client. */
static void complain(struct door_keeper *keeper)
{
    uint64_t now = rpc_loop_now(keeper->loop);

    if (keeper->complained && now - keeper->complained < COMPLAIN_MS * NS_PER_MS)
        return;
    keeper->complained = now;
    log_warning("there is no descriptor left for a client of the door's, which is turned away");
}

/* A connection, beside the words of who has come. */
static void on_control(struct rpc_watch *watch, uint32_t events)
{
    struct door_keeper *keeper =
        (struct door_keeper *)((char *)watch - offsetof(struct door_keeper, control));
    char text[DOOR_INTRODUCTION_MAX] _uninitialized_;
    _cleanup_error_ struct error err = ERROR_INIT;
    size_t count = 1;
    int fd;

    ssize_t n = socket_receive_now(watch->fd, text, sizeof(text), &fd, &count);
    if (n > 0 && count == 1) {
        if (door_guests_adopt(keeper->guests, fd, text, (size_t)n, &err) < 0)
            log_failure(LOG_WARNING, &err, "a connection of the door's");
    } else if (n == -EMSGSIZE || n == -ENOMEM || n == -ENOBUFS) {
        complain(keeper);
    } else if (n != -EAGAIN) {
        /* It is ending, or makes no sense. */
        rpc_loop_watch(keeper->loop, watch, 0);
        if (n != 0) {
            keeper->shot = true;
            pidfd_send_signal(keeper->process.pidfd, SIGTERM, NULL, 0);
        }
    }
}

static int start_door(struct door_keeper *keeper, struct error *err)
{
    _cleanup_strv_ char **argv = arguments(keeper);
    int fds[FIRST_SOCKET_FD + LISTEN_MAX] = {-1, -1, STDERR_FILENO};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_errno(err, errno, "make the door's socket");
    fds[CONTROL_FD] = pair[1];
    for (size_t i = 0; i < keeper->places_count; i++)
        fds[FIRST_SOCKET_FD + i] = keeper->places[i].watch.fd;
    int r = spawn(keeper, argv, fds, FIRST_SOCKET_FD + (int)keeper->places_count, &keeper->process,
                  err);
    close(pair[1]);
    if (r < 0) {
        keeper->process.pidfd = -1;
        close(pair[0]);
        return r;
    }
    keeper->started = rpc_loop_now(keeper->loop);
    keeper->shot = false;
    keeper->control = (struct rpc_watch){.fd = pair[0], .callback = on_control};
    keeper->child = (struct rpc_watch){.fd = keeper->process.pidfd, .callback = on_end};
    r = rpc_loop_watch(keeper->loop, &keeper->control, EPOLLIN);
    if (r == 0)
        r = rpc_loop_watch(keeper->loop, &keeper->child, EPOLLIN);
    return r < 0 ? error_errno(err, -r, "watch the door") : 0;
}

static void on_client(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct door_keeper *keeper =
        ((struct place *)((char *)watch - offsetof(struct place, watch)))->keeper;
    _cleanup_error_ struct error err = ERROR_INIT;

    watch_places(keeper, false);
    if (start_door(keeper, &err) < 0) {
        log_failure(LOG_ERROR, &err, "no cloche-door could be started");
        rpc_loop_set_timer(keeper->loop, &keeper->retry,
                           rpc_loop_now(keeper->loop) + DOOR_RETRY_MAX_MS * NS_PER_MS);
    }
}

/* ---- begin and end ---- */

static int open_place(struct door_keeper *keeper, const char *url, struct error *err)
{
    struct place *place = &keeper->places[keeper->places_count];
    struct door_address address;

    int fd = door_address_parse(url, &address, err);
    for (int waited = 0; fd >= 0; waited += BIND_STEP_MS) {
        fd = door_address_listen(&address, url, err);
        if (fd != -EADDRINUSE || waited >= DOOR_BIND_MS)
            break;
        poll(NULL, 0, BIND_STEP_MS);
        fd = 0;
    }
    if (fd < 0)
        return error_context(err, "door"), fd;
    *place = (struct place){.keeper = keeper, .watch = {.fd = fd, .callback = on_client}};
    keeper->places_count++;
    return 0;
}

static int prepare(struct door_keeper *keeper, const struct door_keeper_options *options,
                   struct error *err)
{
    int r = check_user(keeper, err);

    if (r == 0)
        r = check(keeper, err);
    for (size_t i = 0; r == 0 && i < keeper->settings->listen_count; i++)
        r = open_place(keeper, keeper->settings->listen[i], err);
    if (r == 0)
        r = door_guests_create(options, keeper->settings, &keeper->guests, err);
    if (r == 0)
        watch_places(keeper, true);
    return r;
}

int door_keeper_create(const struct door_keeper_options *options, struct door_keeper **ret,
                       struct error *err)
{
    struct door_keeper *keeper = xnew(struct door_keeper);

    *keeper = (struct door_keeper){.loop = options->loop,
                                   .settings = options->settings,
                                   .program = xasprintf("%s/cloche-door", options->libexec),
                                   .process = {.pidfd = -1},
                                   .child = {.fd = -1},
                                   .control = {.fd = -1},
                                   .retry = {.callback = on_retry},
                                   .pause_ms = DOOR_RETRY_MIN_MS};
    int r = prepare(keeper, options, err);
    if (r < 0) {
        door_keeper_destroy(keeper);
        return r;
    }
    *ret = keeper;
    return 0;
}

/* It ends with its control socket; a door that does not is killed. */
static void end_door(struct door_keeper *keeper)
{
    struct pollfd end = {.fd = keeper->process.pidfd, .events = POLLIN};
    int status;

    if (end.fd < 0)
        return;
    if (poll(&end, 1, END_MS) <= 0)
        pidfd_send_signal(end.fd, SIGKILL, NULL, 0);
    process_wait(&keeper->process, &status, NULL);
}

void door_keeper_destroy(struct door_keeper *keeper)
{
    if (!keeper)
        return;
    rpc_loop_clear_timer(keeper->loop, &keeper->retry);
    for (size_t i = 0; i < keeper->places_count; i++) {
        rpc_loop_watch(keeper->loop, &keeper->places[i].watch, 0);
        close(keeper->places[i].watch.fd);
    }
    forget_door(keeper);
    end_door(keeper);
    door_guests_destroy(keeper->guests);
    free(keeper->program);
    door_settings_free(keeper->settings);
    free(keeper);
}
