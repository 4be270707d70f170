#include "filters.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "internal.h"

/* ---- pieces ---- */

bool filter_has_label(const struct json_string_map *labels, const char *wanted)
{
    size_t length = strcspn(wanted, "=");
    _cleanup_free_ char *key = xstrndup(wanted, length);
    const char *value = labels ? json_string_map_get(labels, key) : NULL;

    return value && (!wanted[length] || text_equal(value, wanted + length + 1));
}

bool filter_has_labels(const struct json_string_map *labels, char *const *wanted)
{
    for (; wanted && *wanted; wanted++) {
        if (!filter_has_label(labels, *wanted))
            return false;
    }
    return true;
}

bool filter_has_any_label(const struct json_string_map *labels, char *const *wanted)
{
    for (; wanted && *wanted; wanted++) {
        if (filter_has_label(labels, *wanted))
            return true;
    }
    return false;
}

bool filter_prune(const struct api_prune_filters *filters, const struct json_string_map *labels,
                  int64_t created)
{
    return !filters || ((!filters->has_until || created < filters->until) &&
                        filter_has_labels(labels, filters->label) &&
                        !filter_has_any_label(labels, filters->label_not));
}

/* What glibc's matcher can be made to do without end, or in memory without end, is refused:
 * intervals nest to any size, references back are tried in every way. */
static int check_pattern(const char *text, struct error *err)
{
    if (strlen(text) > PATTERN_MAX)
        return error_set(err, -EINVAL, "a pattern of more than %d characters", PATTERN_MAX);
    for (const char *at = text; *at; at++) {
        if (*at == '{')
            return error_set(err, -EINVAL, "invalid pattern \"%s\": no {counts}", text);
        if (*at == '\\' && at[1] >= '0' && at[1] <= '9')
            return error_set(err, -EINVAL, "invalid pattern \"%s\": no references back", text);
        at += *at == '\\' && at[1];
    }
    return 0;
}

int pattern_compile(const char *text, regex_t *ret, struct error *err)
{
    char message[128];

    int r = check_pattern(text, err);
    if (r < 0)
        return r;
    int code = regcomp(ret, text, REG_EXTENDED | REG_NOSUB);
    if (!code)
        return 0;
    regerror(code, ret, message, sizeof(message));
    return error_set(err, -EINVAL, "invalid pattern \"%s\": %s", text, message);
}

int port_filter_parse(const char *text, uint16_t *ret_first, uint16_t *ret_last,
                      const char **ret_protocol)
{
    static const char *const protocols[] = {"tcp", "udp", "sctp"};
    char first[8], last[8];
    uint64_t low, high;
    size_t length = strcspn(text, "/");

    *ret_protocol = NULL;
    for (size_t i = 0; text[length] && i < ARRAY_SIZE(protocols); i++) {
        if (text_equal(text + length + 1, protocols[i]))
            *ret_protocol = protocols[i];
    }
    if (text[length] && !*ret_protocol)
        return -EINVAL;
    _cleanup_free_ char *range = xstrndup(text, length);
    int n = sscanf(range, "%7[0-9]-%7[0-9]", first, last);
    if (n < 1 || text_to_u64(first, 1, UINT16_MAX, &low) < 0)
        return -EINVAL;
    if (n == 1 && strlen(first) != length)
        return -EINVAL;
    high = low;
    if (n == 2 && (strlen(first) + 1 + strlen(last) != length ||
                   text_to_u64(last, low, UINT16_MAX, &high) < 0))
        return -EINVAL;
    *ret_first = (uint16_t)low;
    *ret_last = (uint16_t)high;
    return 0;
}

/* ---- of containers ---- */

struct container_filter {
    const struct api_container_filters *filters; /* borrowed; NULL: none */
    char *const *images;
    regex_t *names, *ids; /* owned, as many as the filters have */
    size_t names_count, ids_count;
    int64_t before, since; /* the narrowest; 0: none */
};

static int compile_all(char *const *texts, size_t count, regex_t **ret, size_t *ret_count,
                       struct error *err)
{
    *ret = xnew_array(regex_t, count + 1);
    for (*ret_count = 0; *ret_count < count; (*ret_count)++) {
        int r = pattern_compile(texts[*ret_count], &(*ret)[*ret_count], err);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool any_matches(const regex_t *patterns, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (regexec(&patterns[i], text, 0, NULL, 0) == 0)
            return true;
    }
    return false;
}

/* Of several the narrowest counts. */
static int find_times(struct engine *engine, char *const *names, size_t count, bool earliest,
                      int64_t *ret, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        struct container *container;
        int r = engine_find(engine, names[i], &container, err);
        if (r < 0)
            return r;
        int64_t created = container->record->created_at;
        if (!*ret || (earliest ? created < *ret : created > *ret))
            *ret = created;
    }
    return 0;
}

static int check_words(char *const *words, size_t count, const char *const *known,
                       const char *filter, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!strv_contains((char *const *)(uintptr_t)known, words[i]))
            return error_set(err, -EINVAL, "invalid filter '%s=%s'", filter, words[i]);
    }
    return 0;
}

static int check_ports(char *const *ports, size_t count, struct error *err)
{
    const char *protocol;
    uint16_t first, last;

    for (size_t i = 0; i < count; i++) {
        if (port_filter_parse(ports[i], &first, &last, &protocol) < 0)
            return error_set(err, -EINVAL, "invalid port range '%s': START[-END][/tcp|udp]",
                             ports[i]);
    }
    return 0;
}

static int check_filters(const struct api_container_filters *filters, struct error *err)
{
    static const char *const states[] = {"created", "restarting", "running", "removing",
                                         "paused",  "exited",     "dead",    NULL};
    static const char *const healths[] = {"starting", "healthy", "unhealthy", "none", NULL};

    int r = check_words(filters->status, filters->status_count, states, "status", err);
    if (r == 0)
        r = check_words(filters->health, filters->health_count, healths, "health", err);
    if (r == 0)
        r = check_ports(filters->publish, filters->publish_count, err);
    return r < 0 ? r : check_ports(filters->expose, filters->expose_count, err);
}

int container_filter_create(struct engine *engine, const struct api_container_filters *filters,
                            char *const *images, struct container_filter **ret, struct error *err)
{
    _cleanup_container_filter_ struct container_filter *filter = xnew(struct container_filter);
    int r = 0;

    filter->filters = filters;
    filter->images = images;
    if (filters) {
        r = check_filters(filters, err);
        if (r == 0)
            r = compile_all(filters->name, filters->name_count, &filter->names,
                            &filter->names_count, err);
        if (r == 0)
            r = compile_all(filters->id, filters->id_count, &filter->ids, &filter->ids_count, err);
        if (r == 0)
            r = find_times(engine, filters->before, filters->before_count, true, &filter->before,
                           err);
        if (r == 0)
            r = find_times(engine, filters->since, filters->since_count, false, &filter->since,
                           err);
    }
    if (r < 0)
        return r;
    *ret = steal_ptr(filter);
    return 0;
}

void container_filter_free(struct container_filter *filter)
{
    if (!filter)
        return;
    for (size_t i = 0; i < filter->names_count; i++)
        regfree(&filter->names[i]);
    for (size_t i = 0; i < filter->ids_count; i++)
        regfree(&filter->ids[i]);
    free(filter->names);
    free(filter->ids);
    free(filter);
}

bool container_filter_has_status(const struct api_container_filters *filters)
{
    return filters && (filters->status_count || filters->exited_count);
}

static bool has_name(const struct container_filter *filter, const struct container *container)
{
    _cleanup_free_ char *slashed = xasprintf("/%s", container->name);

    return any_matches(filter->names, filter->names_count, container->name) ||
           any_matches(filter->names, filter->names_count, slashed);
}

static bool has_exit_code(const struct api_container_filters *filters,
                          const struct container *container, const char *state)
{
    if (!text_equal(state, "exited"))
        return false;
    for (size_t i = 0; i < filters->exited_count; i++) {
        if (filters->exited[i] == container->record->exit_code)
            return true;
    }
    return false;
}

static bool port_fits(const char *wanted, uint16_t port, const char *protocol)
{
    const char *of = NULL;
    uint16_t first = 0, last = 0;

    return port_filter_parse(wanted, &first, &last, &of) == 0 && port >= first && port <= last &&
           text_equal(of ? of : "tcp", protocol ? protocol : "tcp");
}

/* What was asked for: it is there also while the container does not run. */
static bool has_port(char *const *wanted, size_t count, const struct container *container,
                     bool published)
{
    const struct api_container_spec *spec = container->effective;

    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < spec->ports_count; j++) {
            const struct api_port *port = spec->ports[j];
            if (port_fits(wanted[i], port->container_port, port->protocol) ||
                (published && port->has_host_port &&
                 port_fits(wanted[i], port->host_port, port->protocol)))
                return true;
        }
    }
    return false;
}

/* Exposed ones are texts: PORT[-PORT][/PROTOCOL]. */
static bool has_exposed(char *const *wanted, size_t count, const struct container *container)
{
    const struct api_container_spec *spec = container->effective;
    const char *protocol = NULL;
    uint16_t first = 0, last = 0;

    for (size_t j = 0; j < spec->exposed_ports_count; j++) {
        if (port_filter_parse(spec->exposed_ports[j], &first, &last, &protocol) < 0)
            continue;
        for (uint32_t port = first; port <= last; port++) {
            for (size_t i = 0; i < count; i++) {
                if (port_fits(wanted[i], (uint16_t)port, protocol))
                    return true;
            }
        }
    }
    return false;
}

static bool has_volume(char *const *wanted, const struct container *container)
{
    const struct api_container_spec *spec = container->effective;

    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_mount *mount = spec->mounts[i];
        if ((mount->source && strv_contains(wanted, mount->source)) ||
            strv_contains(wanted, mount->target))
            return true;
    }

    for (size_t i = 0; i < spec->binds_count; i++) {
        if (strv_contains(wanted, spec->binds[i]->source) ||
            strv_contains(wanted, spec->binds[i]->target))
            return true;
    }
    return false;
}

static bool has_network(char *const *wanted, const struct container *container)
{
    const struct api_container_spec *spec = container->effective;

    for (size_t i = 0; spec->networks && i < spec->networks->count; i++) {
        if (strv_contains(wanted, spec->networks->keys[i]))
            return true;
    }
    return spec->network_mode && strv_contains(wanted, spec->network_mode);
}

static bool has_health(char *const *wanted, const struct container *container)
{
    const char *health = container->record->health;

    return strv_contains(wanted, health ? health : "none");
}

static bool times_fit(const struct container_filter *filter, const struct container *container)
{
    int64_t created = container->record->created_at;

    return (!filter->before || created < filter->before) &&
           (!filter->since || created > filter->since);
}

bool container_filter_matches(const struct container_filter *filter,
                              const struct container *container, const char *state)
{
    const struct api_container_filters *filters = filter->filters;

    if (!filters)
        return true;
    return times_fit(filter, container) && (!filter->names_count || has_name(filter, container)) &&
           (!filter->ids_count || any_matches(filter->ids, filter->ids_count, container->id)) &&
           (!filters->status_count || strv_contains(filters->status, state)) &&
           (!filters->exited_count || has_exit_code(filters, container, state)) &&
           (!filters->ancestor_count ||
            strv_contains(filter->images, container->record->image_id)) &&
           (!filters->label_count ||
            filter_has_labels(container->effective->labels, filters->label)) &&
           (!filters->network_count || has_network(filters->network, container)) &&
           (!filters->volume_count || has_volume(filters->volume, container)) &&
           (!filters->health_count || has_health(filters->health, container)) &&
           (!filters->publish_count ||
            has_port(filters->publish, filters->publish_count, container, true)) &&
           (!filters->expose_count ||
            has_port(filters->expose, filters->expose_count, container, false) ||
            has_exposed(filters->expose, filters->expose_count, container));
}
