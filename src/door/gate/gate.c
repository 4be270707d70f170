/*
 * The door from its start to its end:
 *
 *     door_check       the configuration makes sense
 *     gate_network     certificates and the page are read, where there is more than Unix sockets
 *     listen           or the sockets that were passed are taken
 *     jail_enter       from here on nothing of the machine can be reached
 *     ready, loop      until a signal, the daemon's end, or a time without connections
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/socket.h>
#include <base/text.h>
#include <door/docker.h>

#include "gate.h"

enum { ACCEPT_AT_ONCE = 16 };

/* ---- the configuration ---- */

static int check_listener(const struct door_config *config, const char *url,
                          struct door_address *ret, struct error *err)
{
    int r = door_address_parse(url, ret, err);

    if (r < 0)
        return r;
    if (ret->transport != DOOR_DOCKER_UNIX && !gate_network)
        return error_set(err, -EINVAL, "%s is not for this program, but for cloche-door", url);
    bool tls = door_transport_is_tls(ret->transport);
    if (tls && !config->tls_cert)
        return error_set(err, -EINVAL, "%s needs a certificate and its key", url);
    if ((tls && config->tls_client_ca) || ret->transport == DOOR_DOCKER_UNIX)
        return 0;
    if (ret->loopback && config->insecure_loopback)
        return 0;
    error_set(err, -EINVAL, "%s would let in whoever can reach it", url);
    return error_hint(err, "Use tls:// or wss:// with a client authority. On a loopback address "
                           "it can be allowed (insecure-loopback)"),
           -EINVAL;
}

int door_check(const struct door_config *config, struct error *err)
{
    size_t count = strv_length(config->listen);

    if (count == 0 || count > DOOR_LISTENERS_MAX)
        return error_set(err, -EINVAL, "a door listens at 1 to %d places, not %zu",
                         DOOR_LISTENERS_MAX, count);
    if (strv_length(config->origins) > DOOR_ORIGINS_MAX)
        return error_set(err, -EINVAL, "more than %d origins", DOOR_ORIGINS_MAX);
    if ((config->control_fd < 0) == !config->connect)
        return error_set(err, -EINVAL,
                         "either a socket to connect to or a control socket is needed");
    if (config->to_user && config->control_fd < 0)
        return error_set(err, -EINVAL, "in its jail a door can connect to nothing");
    for (size_t i = 0; i < count; i++) {
        struct door_address address;
        int r = check_listener(config, config->listen[i], &address, err);
        if (r < 0)
            return r;
    }
    return gate_network ? gate_network->check(config, err) : 0;
}

/* ---- accepting ---- */

static void watch_listeners(struct gate *gate, bool on)
{
    gate->paused = !on;
    for (size_t i = 0; i < gate->listeners_count; i++)
        rpc_loop_watch(gate->loop, &gate->listeners[i].watch, on ? EPOLLIN : 0);
}

static void on_retry(struct rpc_timer *timer)
{
    struct gate *gate = (struct gate *)((char *)timer - offsetof(struct gate, retry));

    if (gate->peers_count < gate->config->connections)
        watch_listeners(gate, true);
}

static void begin_idle_time(struct gate *gate)
{
    if (gate->config->exit_seconds && !gate->peers_count)
        rpc_loop_set_timer(gate->loop, &gate->exit,
                           rpc_loop_now(gate->loop) + gate->config->exit_seconds * NS_PER_SECOND);
}

void gate_peer_gone(struct gate *gate)
{
    gate->peers_count--;
    if (gate->paused && !gate->ending && !gate->retry.place)
        watch_listeners(gate, true);
    begin_idle_time(gate);
    if (gate->retired && !gate->peers_count)
        gate->ending = true;
}

static void on_idle_for_long(struct rpc_timer *timer)
{
    struct gate *gate = (struct gate *)((char *)timer - offsetof(struct gate, exit));

    if (!gate->peers_count)
        gate->ending = true;
}

static void on_connection(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct listener *listener =
        (struct listener *)((char *)watch - offsetof(struct listener, watch));
    struct gate *gate = listener->gate;

    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        struct sockaddr_storage address = {0};
        socklen_t length = sizeof(address);
        if (gate->peers_count >= gate->config->connections && !gate->handshakes) {
            watch_listeners(gate, false); /* until one goes */
            return;
        }
        int fd =
            accept4(watch->fd, (struct sockaddr *)&address, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            if (listener->address.transport == DOOR_DOCKER_UNIX)
                docker_admit(gate, listener, fd);
            else
                gate_network->admit(gate, listener, fd, &address);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            watch_listeners(gate, false);
            rpc_loop_set_timer(gate->loop, &gate->retry,
                               rpc_loop_update_now(gate->loop) +
                                   DOOR_SEARCH_SECONDS * NS_PER_SECOND);
        }
        return;
    }
}

/* ---- beginning ---- */

static int open_listener(struct gate *gate, size_t i, struct error *err)
{
    const struct door_config *config = gate->config;
    struct listener *listener = &gate->listeners[i];
    int fd;

    *listener = (struct listener){.gate = gate, .url = config->listen[i]};
    int r = check_listener(config, listener->url, &listener->address, err);
    if (r < 0)
        return r;
    if (config->sockets_from < 0) {
        fd = door_address_listen(&listener->address, listener->url, err);
        if (fd < 0)
            return fd;
    } else {
        fd = config->sockets_from + (int)i;
        r = socket_set_nonblocking(fd);
        if (r < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return error_errno(err, r < 0 ? -r : errno, "descriptor %d of %s", fd, listener->url);
    }
    listener->watch = (struct rpc_watch){.fd = fd, .callback = on_connection};
    gate->listeners_count = i + 1;
    return 0;
}

static int open_listeners(struct gate *gate, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && gate->config->listen[i]; i++)
        r = open_listener(gate, i, err);
    if (r == 0 && gate_network)
        r = gate_network->prepare(gate, err);
    if (r == 0)
        docker_server_create(gate->loop, &gate->docker);
    return r;
}

/* Another door listens from now on. */
static void retire(struct gate *gate, const int *fds, size_t count)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = 0;

    for (size_t i = 0; i < gate->listeners_count; i++) {
        rpc_loop_watch(gate->loop, &gate->listeners[i].watch, 0);
        close(gate->listeners[i].watch.fd);
    }
    gate->listeners_count = 0;
    gate->retired = true;
    if (gate_network)
        r = gate_network->trust(gate, fds, count, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "nobody can be let stay");
    gate->ending = r < 0 || !gate->peers_count;
}

static void on_control(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct gate *gate = (struct gate *)((char *)watch - offsetof(struct gate, control));
    char word[sizeof(DOOR_RETIRE)];
    int fds[2];
    size_t count = ARRAY_SIZE(fds);

    ssize_t n = socket_receive_now(watch->fd, word, sizeof(word), fds, &count);
    if (n == -EAGAIN)
        return;
    if (n == (ssize_t)strlen(DOOR_RETIRE)) {
        log_info("another one listens; this one ends with its last client");
        retire(gate, fds, count);
        for (size_t i = 0; i < count; i++)
            close(fds[i]);
        return;
    }
    log_info("ending with the daemon");
    gate->ending = true;
}

static void on_signal(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct gate *gate = (struct gate *)((char *)watch - offsetof(struct gate, signals));
    struct signalfd_siginfo info;

    if (read(watch->fd, &info, sizeof(info)) == sizeof(info)) {
        log_info("ending on signal %u", info.ssi_signo);
        gate->ending = true;
    }
}

static int watch_signals(struct gate *gate, struct error *err)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "watch signals");
    gate->signals = (struct rpc_watch){.fd = fd, .callback = on_signal};
    return rpc_loop_watch(gate->loop, &gate->signals, EPOLLIN);
}

static int prepare(struct gate *gate, struct error *err)
{
    int r = rpc_loop_create(&gate->loop, err);

    if (r == 0)
        r = watch_signals(gate, err);
    if (r == 0)
        r = open_listeners(gate, err);
    if (r == 0 && gate->config->control_fd >= 0) {
        gate->control = (struct rpc_watch){.fd = gate->config->control_fd, .callback = on_control};
        r = socket_set_nonblocking(gate->control.fd);
        if (r == 0)
            r = rpc_loop_watch(gate->loop, &gate->control, EPOLLIN);
        if (r < 0)
            error_errno(err, -r, "control socket %d", gate->control.fd);
    }
    return r;
}

/* ---- ending ---- */

static void finish(struct gate *gate)
{
    if (!gate->loop)
        return;
    for (size_t i = 0; i < gate->listeners_count; i++) {
        rpc_loop_watch(gate->loop, &gate->listeners[i].watch, 0);
        close(gate->listeners[i].watch.fd);
    }
    docker_server_destroy(gate->docker);
    if (gate_network)
        gate_network->finish(gate);
    rpc_loop_clear_timer(gate->loop, &gate->retry);
    rpc_loop_clear_timer(gate->loop, &gate->exit);
    if (gate->control.callback)
        rpc_loop_watch(gate->loop, &gate->control, 0);
    if (gate->signals.callback) {
        rpc_loop_watch(gate->loop, &gate->signals, 0);
        close(gate->signals.fd);
    }
    rpc_loop_destroy(gate->loop);
}

int door_serve(const struct door_config *config, void (*ready)(void *data), void *data,
               struct error *err)
{
    struct gate gate = {
        .config = config, .retry = {.callback = on_retry}, .exit = {.callback = on_idle_for_long}};

    int r = door_check(config, err);
    if (r == 0)
        r = prepare(&gate, err);
    if (r == 0)
        r = jail_enter(config, err);
    if (r == 0) {
        ready(data);
        watch_listeners(&gate, true);
        begin_idle_time(&gate);
        while (!gate.ending)
            rpc_loop_run_once(gate.loop, -1);
    }
    gate.ending = true;
    finish(&gate);
    return r;
}
