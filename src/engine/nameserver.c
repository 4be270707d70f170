/*
 * The instance's name server, cloche-names: started when the first container needs it, told who has
 * which name, and told all of it anew when it or the daemon has come again (names/protocol.h).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>
#include <base/socket.h>
#include <base/text.h>
#include <names/protocol.h>

#include "nameserver.h"

enum {
    RESOLV_CONF_MAX = 64 * 1024,
    AGAIN_MS = 1000, /* before a program that has ended is started again */
    PROGRAM_FDS = NAMES_LISTEN_FD + 1,
};

struct nameserver {
    struct engine *engine;
    int fd;
    uv_poll_t *poll; /* owned while fd is open; freed when the loop has let go of it */
    uv_timer_t timer;
};

/* --- the program ------------------------------------------------------------------------------ */

static char *socket_path(const struct engine *engine)
{
    return xasprintf("%s/names.sock", engine->instance->run);
}

static int start_program(struct engine *engine, int control_fd, struct error *err)
{
    _cleanup_free_ char *path = socket_path(engine);
    _cleanup_close_ int listen_fd = -1;
    char *const argv[] = {"cloche-names", NULL};
    char *const environment[] = {NULL};
    struct process process;

    unlink(path);
    listen_fd = socket_listen_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    const int fds[PROGRAM_FDS] = {
        -1, -1, STDERR_FILENO, [NAMES_CONTROL_FD] = control_fd, [NAMES_LISTEN_FD] = listen_fd};
    const struct process_spec spec = {
        .path = engine->names_program,
        .argv = argv,
        .environment = environment,
        .fds = fds,
        .fds_count = PROGRAM_FDS,
        .directory = "/",
        .new_session = true,
    };
    int r = process_spawn(&spec, &process, err);
    return r < 0 ? r : loop_watch_child(engine->loop, &process, 0, NULL, NULL, err);
}

static int start_or_connect(struct engine *engine, int *ret_fd, struct error *err)
{
    const int flags = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
    _cleanup_free_ char *path = socket_path(engine);
    int pair[2];

    int fd = socket_connect_unix(path, flags, NULL);
    if (fd < 0) {
        if (socketpair(AF_UNIX, flags, 0, pair) < 0)
            return error_errno(err, errno, "make the name server's socket");
        int r = start_program(engine, pair[1], err);
        close_fd(pair[1]);
        if (r < 0) {
            close_fd(pair[0]);
            return r;
        }
        fd = pair[0];
    }
    *ret_fd = fd;
    return 0;
}

static void on_timer(uv_timer_t *timer)
{
    struct nameserver *server = timer->data;
    struct engine *engine = server->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        if (container_is_active(engine->containers[i]))
            nameserver_adopt(engine->containers[i]);
    }
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void disconnect(struct nameserver *server)
{
    if (server->fd < 0)
        return;
    uv_poll_stop(server->poll);
    uv_close((uv_handle_t *)steal_ptr(server->poll), on_poll_closed);
    close_fd(steal_fd(&server->fd));
}

/* It never says anything: its end has come. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct nameserver *server = poll->data;

    disconnect(server);
    log_warning("the name server is gone; it is started again");
    uv_timer_start(&server->timer, on_timer, AGAIN_MS, 0);
}

static struct nameserver *get(struct engine *engine)
{
    if (!engine->nameserver) {
        engine->nameserver = xnew(struct nameserver);
        engine->nameserver->engine = engine;
        engine->nameserver->fd = -1;
        uv_timer_init(engine->loop, &engine->nameserver->timer);
        engine->nameserver->timer.data = engine->nameserver;
    }
    return engine->nameserver;
}

static void send_message(struct nameserver *server, const void *message, size_t size,
                         const int *fds, size_t count)
{
    if (server->fd >= 0 && socket_send_now(server->fd, message, size, fds, count) < 0)
        log_warning("the name server does not read; a name may be missing");
}

static struct names_header header_of(const char *container, enum names_type type)
{
    struct names_header header = {.version = NAMES_VERSION, .type = (uint16_t)type};

    snprintf(header.container, sizeof(header.container), "%s", container);
    return header;
}

/* A connection that is new begins with nothing known. */
static int ensure(struct engine *engine, struct error *err)
{
    struct nameserver *server = get(engine);
    const struct names_header reset = header_of("", NAMES_RESET);

    if (server->fd >= 0)
        return 0;
    int r = start_or_connect(engine, &server->fd, err);
    if (r < 0)
        return r;
    server->poll = xnew(uv_poll_t);
    uv_poll_init(engine->loop, server->poll, server->fd);
    server->poll->data = server;
    uv_poll_start(server->poll, UV_READABLE | UV_DISCONNECT, on_readable);
    send_message(server, &reset, sizeof(reset), NULL, 0);
    return 0;
}

/* --- what it is told -------------------------------------------------------------------------- */

bool place_has_names(const struct place *place)
{
    return place->held && place->network && !place->network->builtin;
}

char **place_names(const struct container *container, const struct place *place)
{
    char short_id[13];
    char **names = NULL;

    snprintf(short_id, sizeof(short_id), "%.12s", container->id);
    strv_append(&names, container->name);
    for (size_t i = 0; i < place->wanted->aliases_count; i++) {
        if (!strv_contains(names, place->wanted->aliases[i]))
            strv_append(&names, place->wanted->aliases[i]);
    }
    if (!strv_contains(names, short_id))
        strv_append(&names, short_id);
    if (container->effective && !text_empty(container->effective->hostname) &&
        !strv_contains(names, container->effective->hostname))
        strv_append(&names, container->effective->hostname);
    return names;
}

static struct names_place place_message(const struct container *container,
                                        const struct place *place, enum names_type type)
{
    struct names_place message = {.header = header_of(container->id, type)};

    snprintf(message.network, sizeof(message.network), "%s", place->network->id);
    snprintf(message.network_name, sizeof(message.network_name), "%s",
             place->network->record->name);
    message.address = place->interface.address;
    message.has_address6 = place->network->subnet6.prefix > 0;
    message.address6 = place->interface.address6;
    return message;
}

void nameserver_place(const struct container *container, const struct place *place)
{
    struct engine *engine = container->engine;
    _cleanup_strv_ char **names = NULL;
    _cleanup_buffer_ struct buffer message = BUFFER_INIT;

    if (!place_has_names(place) || ensure(engine, NULL) < 0)
        return;
    const struct names_place fixed = place_message(container, place, NAMES_PLACE);
    buffer_append(&message, &fixed, sizeof(fixed));
    names = place_names(container, place);
    for (size_t i = 0; names[i]; i++) {
        if (message.length + strlen(names[i]) + 1 <= NAMES_MESSAGE_MAX)
            buffer_append(&message, names[i], strlen(names[i]) + 1);
    }
    send_message(get(engine), message.data, message.length, NULL, 0);
}

void nameserver_leave(const struct container *container, const struct place *place)
{
    if (!place_has_names(place) || !container->engine->nameserver)
        return;
    const struct names_place message = place_message(container, place, NAMES_LEAVE);
    send_message(container->engine->nameserver, &message, sizeof(message), NULL, 0);
}

void nameserver_gone(const struct container *container)
{
    const struct names_header message = header_of(container->id, NAMES_GONE);

    if (container->engine->nameserver)
        send_message(container->engine->nameserver, &message, sizeof(message), NULL, 0);
}

static void add_resolver(struct names_sandbox *message, size_t *count, const char *text)
{
    struct names_resolver resolver = {0};

    if (inet_pton(AF_INET, text, resolver.address) == 1)
        resolver.family = AF_INET;
    else if (inet_pton(AF_INET6, text, resolver.address) == 1)
        resolver.family = AF_INET6;
    if (resolver.family && *count < NAMES_RESOLVERS_MAX)
        message->resolvers[(*count)++] = resolver;
}

/* Those of --dns, else the machine's own: also those on its loopback, which the program reaches. */
static void add_resolvers(struct names_sandbox *message, const struct api_container_spec *spec)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_strv_ char **lines = NULL;
    size_t count = 0;

    for (size_t i = 0; i < spec->dns_count; i++)
        add_resolver(message, &count, spec->dns[i]);
    if (spec->dns_count > 0 ||
        file_read_at(AT_FDCWD, "/etc/resolv.conf", RESOLV_CONF_MAX, &text, NULL, NULL) < 0)
        return;
    lines = strv_split(text, '\n');
    for (size_t i = 0; lines && lines[i]; i++) {
        char address[64];

        if (sscanf(lines[i], " nameserver %63s", address) == 1)
            add_resolver(message, &count, address);
    }
}

static bool may_ask_others(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        const struct place *place = container->places[i];

        if (place->held && !place->network->record->internal)
            return true;
    }
    return false;
}

bool nameserver_is_needed(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (place_has_names(container->places[i]))
            return true;
    }
    return false;
}

void nameserver_places(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++)
        nameserver_place(container, container->places[i]);
}

void nameserver_start(struct container *container)
{
    struct names_sandbox message = {.header = header_of(container->id, NAMES_SANDBOX)};
    _cleanup_error_ struct error err = ERROR_INIT;

    if (container->names_udp_fd <= 0)
        return;
    if (ensure(container->engine, &err) < 0) {
        log_failure(LOG_ERROR, &err, "container %.12s finds no names", container->id);
        return;
    }
    /* Before its questions are read, the networks it is on; and behind, since the end of an earlier
     * run may be seen in between and take them away. */
    nameserver_places(container);
    message.may_ask_others = may_ask_others(container);
    add_resolvers(&message, container->effective);
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)container->record->monitor_pid, 0U);
    const int fds[] = {container->names_udp_fd, container->names_tcp_fd, pidfd};
    send_message(get(container->engine), &message, sizeof(message), fds, pidfd < 0 ? 2 : 3);
    close_fd(pidfd);
    nameserver_drop(container);
    nameserver_places(container);
}

int nameserver_prepare(struct container *container, int netns_fd, struct error *err)
{
    struct net_names_sockets sockets;

    if (!nameserver_is_needed(container))
        return 0;
    int r = net_names_open(container->engine->net, netns_fd, &sockets, err);
    if (r < 0)
        return r;
    nameserver_drop(container);
    container->names_udp_fd = sockets.udp_fd;
    container->names_tcp_fd = sockets.tcp_fd;
    return 0;
}

/* They would keep the network alive. */
void nameserver_drop(struct container *container)
{
    if (container->names_udp_fd > 0)
        close(container->names_udp_fd);
    if (container->names_tcp_fd > 0)
        close(container->names_tcp_fd);
    container->names_udp_fd = container->names_tcp_fd = 0;
}

void nameserver_adopt(struct container *container)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int netns = -1;

    if (!container->engine->net || !nameserver_is_needed(container))
        return;
    int r = container_open_netns(container, &netns, &err);
    if (r == 0)
        r = nameserver_prepare(container, netns, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "container %.12s finds no names", container->id);
    else
        nameserver_start(container);
}

/* --- the end ---------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void nameserver_close(struct engine *engine, bool remove)
{
    struct nameserver *server = steal_ptr(engine->nameserver);
    _cleanup_free_ char *path = socket_path(engine);

    if (server) {
        disconnect(server);
        uv_close((uv_handle_t *)&server->timer, on_closed);
    }
    if (remove)
        unlink(path);
}
