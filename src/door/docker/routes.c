#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "handlers.h"

/* In order: the first that fits is it. */
static const struct route routes[] = {
    {"GET", "/_ping", docker_ping, 0},
    {"HEAD", "/_ping", docker_ping, 0},
    {"GET", "/version", docker_version, 0},
    {"GET", "/info", docker_info, 0},
    {"POST", "/auth", docker_auth, 0},
    {"GET", "/events", docker_events, ROUTE_LONG},

    {"GET", "/containers/json", docker_container_list, 0},
    {"POST", "/containers/create", docker_container_create, 0},
    {"GET", "/containers/*/json", docker_container_inspect, 0},
    {"POST", "/containers/*/start", docker_container_start, 0},
    {"POST", "/containers/*/stop", docker_container_stop, 0},
    {"POST", "/containers/*/kill", docker_container_kill, 0},
    {"POST", "/containers/*/wait", docker_container_wait, ROUTE_LONG},
    {"POST", "/containers/*/resize", docker_container_resize, 0},
    {"POST", "/containers/*/attach", docker_container_attach, 0},
    {"GET", "/containers/*/attach/ws", docker_container_attach_websocket, 0},
    {"GET", "/containers/*/logs", docker_container_logs, ROUTE_LONG},
    {"DELETE", "/containers/*", docker_container_remove, 0},
    {"DELETE", "/containers/*/*", docker_link_remove, 0},
    {"POST", "/containers/prune", docker_container_prune, 0},
    {"POST", "/containers/*/restart", docker_container_restart, 0},
    {"POST", "/containers/*/update", docker_container_update, 0},
    {"POST", "/containers/*/rename", docker_container_rename, 0},
    {"POST", "/containers/*/pause", docker_container_pause, 0},
    {"POST", "/containers/*/unpause", docker_container_unpause, 0},
    {"GET", "/containers/*/top", docker_container_top, 0},
    {"GET", "/containers/*/stats", docker_container_stats, ROUTE_LONG},
    {"HEAD", "/containers/*/archive", docker_archive_stat, 0},
    {"GET", "/containers/*/archive", docker_archive_get, 0},
    {"PUT", "/containers/*/archive", docker_archive_put, ROUTE_STREAMS},
    {"GET", "/containers/*/changes", docker_container_changes, 0},
    {"GET", "/containers/*/export", docker_container_export, 0},
    {"POST", "/commit", docker_commit, 0},

    {"POST", "/containers/*/exec", docker_exec_create, 0},
    {"POST", "/exec/*/start", docker_exec_start, 0},
    {"POST", "/exec/*/resize", docker_exec_resize, 0},
    {"GET", "/exec/*/json", docker_exec_inspect, 0},

    {"GET", "/networks", docker_network_list, 0},
    {"POST", "/networks/create", docker_network_create, 0},
    {"POST", "/networks/prune", docker_network_prune, 0},
    {"GET", "/networks/*", docker_network_inspect, 0},
    {"DELETE", "/networks/*", docker_network_remove, 0},
    {"POST", "/networks/*/connect", docker_network_connect, 0},
    {"POST", "/networks/*/disconnect", docker_network_disconnect, 0},

    {"GET", "/volumes", docker_volume_list, 0},
    {"POST", "/volumes/create", docker_volume_create, 0},
    {"POST", "/volumes/prune", docker_volume_prune, 0},
    {"GET", "/volumes/*", docker_volume_inspect, 0},
    {"DELETE", "/volumes/*", docker_volume_remove, 0},
    {"GET", "/system/df", docker_disk_usage, 0},

    {"POST", "/build", docker_build, ROUTE_STREAMS},
    {"POST", "/build/prune", docker_build_prune, 0},

    {"GET", "/images/search", docker_image_search, 0},
    {"GET", "/images/json", docker_image_list, 0},
    {"POST", "/images/create", docker_image_create, ROUTE_STREAMS},
    {"POST", "/images/load", docker_image_load, ROUTE_STREAMS},
    {"GET", "/images/get", docker_image_save, 0},
    {"POST", "/images/prune", docker_image_prune, 0},
    {"GET", "/images/**/get", docker_image_save, 0},
    {"GET", "/images/**/history", docker_image_history, 0},
    {"GET", "/images/**/json", docker_image_inspect, 0},
    {"POST", "/images/**/push", docker_image_push, ROUTE_LONG},
    {"POST", "/images/**/tag", docker_image_tag, 0},
    {"DELETE", "/images/**", docker_image_remove, 0},

    {"GET", "/distribution/**/json", docker_distribution, 0},

    {"GET", "/plugins", docker_plugin_list, 0},
    {"POST", "/swarm/leave", docker_swarm_leave, 0},
    {"POST", "/swarm/init", docker_swarm_begin, 0},
    {"POST", "/swarm/join", docker_swarm_begin, 0},
    {NULL, "/swarm", docker_swarm_none, 0},
    {NULL, "/swarm/**", docker_swarm_none, 0},
    {NULL, "/nodes", docker_swarm_none, 0},
    {NULL, "/nodes/**", docker_swarm_none, 0},
    {NULL, "/services", docker_swarm_none, 0},
    {NULL, "/services/**", docker_swarm_none, 0},
    {NULL, "/tasks", docker_swarm_none, 0},
    {NULL, "/tasks/**", docker_swarm_none, 0},
    {NULL, "/secrets", docker_swarm_none, 0},
    {NULL, "/secrets/**", docker_swarm_none, 0},
    {NULL, "/configs", docker_swarm_none, 0},
    {NULL, "/configs/**", docker_swarm_none, 0},
};

/* Whether path fits; the words of the stars are copied. A "**" takes as much as it can. */
static bool fits(const char *pattern, const char *path, char **words)
{
    while (*pattern && *pattern != '*') {
        if (*pattern++ != *path++)
            return false;
    }
    if (!*pattern)
        return !*path;
    bool many = pattern[1] == '*';
    size_t length = many ? strlen(path) : strcspn(path, "/");
    pattern += many ? 2 : 1;
    if (many) {
        size_t rest = strlen(pattern);
        if (length <= rest || strcmp(path + length - rest, pattern) != 0)
            return false;
        *words = xstrndup(path, length - rest);
        return true;
    }
    if (!length)
        return false;
    *words = xstrndup(path, length);
    return fits(pattern, path + length, words + 1);
}

const struct route *route_find(const char *method, const char *path,
                               char *ret_words[ROUTE_WORDS_MAX])
{
    for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
        if (routes[i].method && !text_equal(routes[i].method, method))
            continue;
        if (fits(routes[i].pattern, path, ret_words))
            return &routes[i];
        for (size_t word = 0; word < ROUTE_WORDS_MAX; word++) {
            free(ret_words[word]);
            ret_words[word] = NULL;
        }
    }
    return NULL;
}
