#include "linked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "bundle.h"
#include "ports.h"

enum { HOSTS_MAX = 1024 * 1024, PORTS_MAX = 4096 };

/* --- words ------------------------------------------------------------------------------------ */

/* Neither an end of a word in a hosts file nor of a name in the environment. */
static bool is_word(const char *text)
{
    return text[0] && !strpbrk(text, " \t\r\n=#");
}

int linked_parse(const char *link, char **ret_name, char **ret_alias, struct error *err)
{
    size_t length = strcspn(link, ":");
    const char *alias = link[length] ? link + length + 1 : link;

    if (link[0] == '/') { /* as inspect shows it */
        const char *last = strrchr(alias, '/');

        alias = last ? last + 1 : alias;
        link++;
        length--;
    }
    _cleanup_free_ char *name = xstrndup(link, length);
    if (!is_word(name) || !is_word(alias) || strpbrk(alias, ":/"))
        return error_set(err, -EINVAL, "bad format for links: %.128s", link);
    *ret_name = steal_ptr(name);
    *ret_alias = xstrdup(alias);
    return 0;
}

int linked_check(char *const *links, struct error *err)
{
    for (; links && *links; links++) {
        _cleanup_free_ char *name = NULL, *alias = NULL;
        int r = linked_parse(*links, &name, &alias, err);

        if (r < 0)
            return r;
    }
    return 0;
}

/* --- who is meant ----------------------------------------------------------------------------- */

static bool is_made(const char *mode)
{
    return !text_empty(mode) && !text_equal(mode, "default") && !text_equal(mode, "bridge") &&
           !text_equal(mode, "none") && !text_equal(mode, "host") &&
           !text_starts_with(mode, "container:");
}

static bool is_on_default_bridge(const struct place *place)
{
    return place->network && place->network->builtin;
}

static const struct place *default_place(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (is_on_default_bridge(container->places[i]))
            return container->places[i];
    }
    return NULL;
}

static const struct place *held_default_place(const struct container *container)
{
    const struct place *place = default_place(container);

    return place && place->held ? place : NULL;
}

static int resolve_one(struct container *container, char **link, struct error *err)
{
    _cleanup_free_ char *name = NULL, *alias = NULL;
    _cleanup_error_ struct error why = ERROR_INIT;
    struct container *other = NULL;
    int r = linked_parse(*link, &name, &alias, err);

    if (r < 0)
        return r;
    /* Not as "not found", which clients take for the image. */
    if (engine_find(container->engine, name, &other, &why) < 0)
        return error_set(err, -EINVAL, "could not get container for %s: %s", name,
                         error_message(&why));
    for (int i = 0; i < 16 && network_shared_with(other); i++) {
        if (engine_find(container->engine, network_shared_with(other), &other, err) < 0)
            return -EINVAL;
    }
    if (network_is_host(other))
        return error_set(err, -EINVAL,
                         "conflicting options: host type networking can't be used with links. This "
                         "would result in undefined behavior");
    free(*link);
    *link = xasprintf("%s:%s", other->id, alias);
    return 0;
}

int linked_resolve(struct container *container, struct error *err)
{
    const struct api_container_spec *spec = container->spec;
    int r = linked_check(spec->links, err);

    for (size_t i = 0; r == 0 && spec->networks && i < spec->networks->count; i++)
        r = linked_check(spec->networks->values[i]->links, err);
    if (r < 0 || is_made(spec->network_mode))
        return r;
    if (spec->links_count > 0 && text_equal(spec->network_mode, "host"))
        return error_set(err, -EINVAL,
                         "conflicting options: host type networking can't be used with links. This "
                         "would result in undefined behavior");
    for (size_t i = 0; r == 0 && i < spec->links_count; i++)
        r = resolve_one(container, &spec->links[i], err);
    return r;
}

/* One that is linked, and as what; NULL where it was removed. Owned alias. */
static const struct container *find(const struct container *container, size_t index,
                                    char **ret_alias)
{
    _cleanup_free_ char *name = NULL;
    struct container *other = NULL;

    if (linked_parse(container->spec->links[index], &name, ret_alias, NULL) < 0)
        return NULL;
    return engine_find(container->engine, name, &other, NULL) < 0 ? NULL : other;
}

static bool has_links(const struct container *container)
{
    return container->spec->links_count > 0 && !is_made(container->spec->network_mode) &&
           default_place(container);
}

int linked_check_running(const struct container *container, struct error *err)
{
    for (size_t i = 0; has_links(container) && i < container->spec->links_count; i++) {
        _cleanup_free_ char *alias = NULL;
        const struct container *other = find(container, i, &alias);

        if (!other)
            continue;
        if (other->state != CONTAINER_RUNNING)
            return error_set(err, -EINVAL, "Cannot link to a non running container: /%s AS /%s/%s",
                             other->name, container->name, alias);
        if (!held_default_place(other))
            return error_set(err, -EINVAL,
                             "Cannot link to /%s, as it does not belong to the default network",
                             other->name);
    }
    return 0;
}

/* --- environment ------------------------------------------------------------------------------ */

struct port {
    uint16_t number;
    const char *protocol; /* static */
};

struct ports {
    struct port *list; /* owned */
    size_t count;
};

/* False: there are enough. What is there already is found out when all are sorted. */
static bool add_port(struct ports *ports, uint16_t number, const char *protocol)
{
    if (ports->count == PORTS_MAX)
        return false;
    ports->list = xrealloc(ports->list, ports->count + 1, sizeof(struct port));
    ports->list[ports->count++] = (struct port){number, protocol};
    return true;
}

static int compare_ports(const void *a, const void *b)
{
    const struct port *left = a, *right = b;
    int by_protocol = strcmp(left->protocol, right->protocol);

    /* docker: by number, then TCP first. */
    return left->number == right->number ? by_protocol : left->number - right->number;
}

static struct ports ports_of(const struct container *other)
{
    const struct api_container_spec *spec = other->effective;
    struct ports ports = {0};

    for (size_t i = 0; i < spec->exposed_ports_count && ports.count < PORTS_MAX; i++) {
        struct exposed_range range;

        if (ports_parse_exposed(spec->exposed_ports[i], &range, NULL) < 0)
            continue;
        for (unsigned number = range.first; number <= range.last; number++)
            if (!add_port(&ports, (uint16_t)number, range.protocol))
                break;
    }
    for (size_t i = 0; i < spec->ports_count; i++)
        add_port(&ports, spec->ports[i]->container_port,
                 ports_protocol_name(ports_protocol(spec->ports[i]->protocol)));
    if (ports.count > 0)
        qsort(ports.list, ports.count, sizeof(struct port), compare_ports);
    size_t kept = 0;
    for (size_t i = 0; i < ports.count; i++)
        if (kept == 0 || compare_ports(&ports.list[i], &ports.list[kept - 1]) != 0)
            ports.list[kept++] = ports.list[i];
    ports.count = kept;
    return ports;
}

/* As a part of a variable's name. */
static char *upper(const char *text)
{
    char *copy = xstrdup(text);

    for (char *at = copy; *at; at++) {
        if (*at >= 'a' && *at <= 'z')
            *at = (char)(*at + 'A' - 'a');
        else if (*at == '-')
            *at = '_';
    }
    return copy;
}

static void add_port_variables(char ***out, const char *prefix, const char *address,
                               const struct port *port)
{
    _cleanup_free_ char *protocol = upper(port->protocol);
    _cleanup_free_ char *name = xasprintf("%s_PORT_%u_%s", prefix, port->number, protocol);

    strv_take(out, xasprintf("%s=%s://%s:%u", name, port->protocol, address, port->number));
    strv_take(out, xasprintf("%s_ADDR=%s", name, address));
    strv_take(out, xasprintf("%s_PORT=%u", name, port->number));
    strv_take(out, xasprintf("%s_PROTO=%s", name, port->protocol));
}

static void add_variables(char ***out, const struct container *container,
                          const struct container *other, const char *alias)
{
    const struct place *place = held_default_place(other);
    _cleanup_free_ char *prefix = upper(alias);
    struct ports ports = ports_of(other);
    char address[NET_ADDRESS_TEXT];

    if (!place)
        return;
    net_address_format(place->interface.address, address);
    if (ports.count > 0)
        strv_take(out, xasprintf("%s_PORT=%s://%s:%u", prefix, ports.list[0].protocol, address,
                                 ports.list[0].number));
    for (size_t i = 0; i < ports.count; i++)
        add_port_variables(out, prefix, address, &ports.list[i]);
    free(ports.list);
    strv_take(out, xasprintf("%s_NAME=/%s/%s", prefix, container->name, alias));
    for (size_t i = 0; i < other->effective->env_count; i++) {
        const char *variable = other->effective->env[i];

        if (strchr(variable, '=') && !text_starts_with(variable, "HOME=") &&
            !text_starts_with(variable, "PATH="))
            strv_take(out, xasprintf("%s_ENV_%s", prefix, variable));
    }
}

char **linked_environment(const struct container *container)
{
    char **list = NULL;

    for (size_t i = 0; has_links(container) && i < container->spec->links_count; i++) {
        _cleanup_free_ char *alias = NULL;
        const struct container *other = find(container, i, &alias);

        if (other)
            add_variables(&list, container, other, alias);
    }
    return list;
}

/* --- hosts ------------------------------------------------------------------------------------ */

/* NULL: it has no address there. */
static char *hosts_line(const struct container *other, const char *alias)
{
    const struct place *place = held_default_place(other);
    const bool own_name = text_equal(alias, other->name);
    char address[NET_ADDRESS_TEXT];

    if (!place)
        return NULL;
    return xasprintf("%s\t%s %s%s%s", net_address_format(place->interface.address, address), alias,
                     other->effective->hostname, own_name ? "" : " ", own_name ? "" : other->name);
}

char **linked_hosts(const struct container *container)
{
    char **list = NULL;

    for (size_t i = 0; has_links(container) && i < container->spec->links_count; i++) {
        _cleanup_free_ char *alias = NULL;
        const struct container *other = find(container, i, &alias);
        char *line = other ? hosts_line(other, alias) : NULL;

        if (line)
            strv_take(&list, line);
    }
    return list;
}

char **linked_others(const struct container *container)
{
    const struct engine *engine = container->engine;
    char **list = NULL;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *parent = engine->containers[i];

        if (parent == container || !container_is_active(parent) || !has_links(parent))
            continue;
        for (size_t j = 0; j < parent->spec->links_count; j++) {
            _cleanup_free_ char *alias = NULL;

            if (find(parent, j, &alias) != container)
                continue;
            char *line = hosts_line(container, alias);
            if (!line)
                continue;
            strv_take(&list, container_root_path(parent, "hosts"));
            strv_take(&list, line);
        }
    }
    return list;
}

/* The names of both lines are the same. */
static bool is_line_of(const char *line, const char *wanted)
{
    const char *names = strchr(line, '\t'), *wanted_names = strchr(wanted, '\t');

    return names && wanted_names && text_equal(names, wanted_names);
}

/* In place, since the container has it mounted. */
static int rewrite(const char *path, const char *line, struct error *err)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_free_ char *text = NULL;
    _cleanup_strv_ char **lines = NULL;
    _cleanup_close_ int fd = -1;

    int r = bundle_read_file(AT_FDCWD, path, HOSTS_MAX, &text, err);
    if (r < 0)
        return r;
    lines = strv_split(text, '\n');
    for (size_t i = 0; lines && lines[i]; i++) {
        if (lines[i][0] || lines[i + 1])
            buffer_printf(&out, "%s\n", is_line_of(lines[i], line) ? line : lines[i]);
    }
    /* O_NONBLOCK: the container may hold a lease on it, which would be waited for (fcntl(2)). */
    fd = open(path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    r = file_write_all(fd, out.data, out.length);
    return r < 0 ? error_errno(err, -r, "write %s", path) : 0;
}

void linked_rewrite_hosts(char *const *others)
{
    for (; others && others[0] && others[1]; others += 2) {
        _cleanup_error_ struct error err = ERROR_INIT;

        if (rewrite(others[0], others[1], &err) < 0)
            log_failure(LOG_WARNING, &err, "a linked container has an old address");
    }
}

/* --- inspect ---------------------------------------------------------------------------------- */

void linked_show(const struct container *container, struct api_container_spec *spec)
{
    char **shown = NULL;

    for (size_t i = 0; !is_made(spec->network_mode) && i < spec->links_count; i++) {
        _cleanup_free_ char *alias = NULL;
        const struct container *other = find(container, i, &alias);

        if (other)
            strv_take(&shown, xasprintf("/%s:/%s/%s", other->name, container->name, alias));
    }
    strv_free(spec->links);
    spec->links = shown;
    spec->links_count = strv_length(shown);
}

/* --- their end -------------------------------------------------------------------------------- */

static bool is_called(const char *link, const char *alias)
{
    _cleanup_free_ char *name = NULL, *own = NULL;

    return linked_parse(link, &name, &own, NULL) == 0 && text_equal(own, alias);
}

bool linked_has(const struct container *container, const char *alias)
{
    const struct api_container_spec *spec = container->spec;

    for (size_t i = 0; i < spec->links_count; i++) {
        if (is_called(spec->links[i], alias))
            return true;
    }
    return false;
}

static void remove_from(struct api_container_spec *spec, const char *alias)
{
    char **kept = NULL;
    size_t count = 0;

    for (size_t i = 0; i < spec->links_count; i++) {
        if (is_called(spec->links[i], alias))
            continue;
        strv_append(&kept, spec->links[i]);
        count++;
    }
    strv_free(spec->links);
    spec->links = kept;
    spec->links_count = count;
}

void linked_remove(struct container *container, const char *alias)
{
    remove_from(container->spec, alias);
    remove_from(container->effective, alias);
}
