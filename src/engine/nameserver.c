/*
 * The instance's name server, cloche-names: started when the first container needs it, told who has
 * which name, and told all of it anew when it or the daemon has come again (names/protocol.h).
 */
#include <arpa/inet.h>
#include <assert.h>
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

#include "helper.h"
#include "linked.h"
#include "nameserver.h"
#include "place.h"

enum {
    RESOLV_CONF_MAX = 64 * 1024,
    SHORT_ID = 12, /* digits */
};

static_assert((int)NAMES_CONTROL_FD == (int)HELPER_CONTROL_FD, "see helper.h");
static_assert((int)NAMES_LISTEN_FD == (int)HELPER_LISTEN_FD, "see helper.h");

/* --- the program ------------------------------------------------------------------------------ */

static struct names_header header_of(const char *container, enum names_type type)
{
    struct names_header header = {.version = NAMES_VERSION, .type = (uint16_t)type};

    snprintf(header.container, sizeof(header.container), "%s", container);
    return header;
}

/* A connection that is new begins with nothing known. */
static void on_connected(struct helper *helper)
{
    const struct names_header reset = header_of("", NAMES_RESET);

    helper_send(helper, &reset, sizeof(reset), NULL, 0);
}

static void adopt_all(struct engine *engine)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (container_is_active(engine->containers[i]))
            nameserver_adopt(engine->containers[i]);
    }
}

static bool is_missed(struct engine *engine)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (container_is_active(engine->containers[i]) &&
            nameserver_is_needed(engine->containers[i]))
            return true;
    }
    return false;
}

static const struct helper_kind kind = {
    .name = "cloche-names",
    .socket = "names.sock",
    .connected = on_connected,
    .is_missed = is_missed,
    .again = adopt_all,
};

static struct helper *get(struct engine *engine)
{
    if (!engine->nameserver)
        engine->nameserver = helper_create(engine, &kind, engine->names_program);
    return engine->nameserver;
}

/* --- what it is told -------------------------------------------------------------------------- */

bool place_has_names(const struct place *place)
{
    if (!place->held || !place->network || place->network->builtin)
        return false;
    if (place->network->kind == NETWORK_CNI) /* after ADD */
        return place->found.prefix > 0 && !place->found.has_name_servers;
    return place->network->kind == NETWORK_BRIDGE;
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

/* "ALIAS=NAME" each. An ID is known by its first digits there. */
static void add_links(const struct api_endpoint *wanted, char ***names)
{
    for (size_t i = 0; i < wanted->links_count; i++) {
        _cleanup_free_ char *name = NULL, *alias = NULL;

        if (linked_parse(wanted->links[i], &name, &alias, NULL) < 0)
            continue;
        if (strlen(name) > SHORT_ID && text_is_hex(name, strlen(name)))
            name[SHORT_ID] = '\0';
        strv_take(names, xasprintf("%s=%s", alias, name));
    }
}

static struct names_place place_message(const struct container *container,
                                        const struct place *place, enum names_type type)
{
    struct names_place message = {.header = header_of(container->id, type)};

    snprintf(message.network, sizeof(message.network), "%s", place->network->id);
    snprintf(message.network_name, sizeof(message.network_name), "%s",
             place->network->record->name);
    message.address = place->interface.address;
    message.has_address6 = place_prefix6(place) > 0;
    message.address6 = place->interface.address6;
    return message;
}

void nameserver_place(const struct container *container, const struct place *place)
{
    struct engine *engine = container->engine;
    _cleanup_strv_ char **names = NULL;
    _cleanup_buffer_ struct buffer message = BUFFER_INIT;

    if (!place_has_names(place) || helper_ensure(get(engine), NULL) < 0)
        return;
    const struct names_place fixed = place_message(container, place, NAMES_PLACE);
    buffer_append(&message, &fixed, sizeof(fixed));
    names = place_names(container, place);
    add_links(place->wanted, &names);
    for (size_t i = 0; names[i]; i++) {
        if (message.length + strlen(names[i]) + 1 <= NAMES_MESSAGE_MAX)
            buffer_append(&message, names[i], strlen(names[i]) + 1);
    }
    helper_send(get(engine), message.data, message.length, NULL, 0);
}

void nameserver_leave(const struct container *container, const struct place *place)
{
    if (!place_has_names(place) || !container->engine->nameserver)
        return;
    const struct names_place message = place_message(container, place, NAMES_LEAVE);
    helper_send(container->engine->nameserver, &message, sizeof(message), NULL, 0);
}

void nameserver_gone(const struct container *container)
{
    const struct names_header message = header_of(container->id, NAMES_GONE);

    if (container->engine->nameserver)
        helper_send(container->engine->nameserver, &message, sizeof(message), NULL, 0);
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

        if (place->held &&
            (place->network->kind == NETWORK_CNI ? place->found.leads_out
                                                 : !place->network->record->internal))
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

static struct names_sandbox sandbox_message(const struct container *container, enum names_type type)
{
    struct names_sandbox message = {.header = header_of(container->id, type)};

    message.may_ask_others = may_ask_others(container);
    add_resolvers(&message, container->effective);
    return message;
}

void nameserver_policy(const struct container *container)
{
    const struct names_sandbox message = sandbox_message(container, NAMES_POLICY);

    if (container->engine->nameserver)
        helper_send(container->engine->nameserver, &message, sizeof(message), NULL, 0);
}

void nameserver_start(struct container *container)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (container->names_udp_fd <= 0)
        return;
    if (helper_ensure(get(container->engine), &err) < 0) {
        log_failure(LOG_ERROR, &err, "container %.12s finds no names", container->id);
        return;
    }
    /* Before its questions are read, the networks it is on; and behind, since the end of an earlier
     * run may be seen in between and take them away. */
    nameserver_places(container);
    const struct names_sandbox message = sandbox_message(container, NAMES_SANDBOX);
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)container->record->monitor_pid, 0U);
    const int fds[] = {container->names_udp_fd, container->names_tcp_fd, pidfd};
    helper_send(get(container->engine), &message, sizeof(message), fds, pidfd < 0 ? 2 : 3);
    close_fd(pidfd);
    nameserver_drop(container);
    nameserver_places(container);
}

static int open_sockets(struct container *container, int netns_fd, bool again, struct error *err)
{
    struct net_names_sockets sockets;

    if (!nameserver_is_needed(container))
        return 0;
    int r = net_names_open(container->engine->net, netns_fd, again, &sockets, err);
    if (r < 0)
        return r;
    nameserver_drop(container);
    container->names_udp_fd = sockets.udp_fd;
    container->names_tcp_fd = sockets.tcp_fd;
    return 0;
}

int nameserver_prepare(struct container *container, int netns_fd, struct error *err)
{
    return open_sockets(container, netns_fd, false, err);
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
        r = open_sockets(container, netns, true, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "container %.12s finds no names", container->id);
    else
        nameserver_start(container);
}

/* --- the end ---------------------------------------------------------------------------------- */

void nameserver_close(struct engine *engine, bool remove)
{
    helper_close(steal_ptr(engine->nameserver));
    if (remove)
        helper_unlink(engine, &kind);
}
