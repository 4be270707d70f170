/*
 * POST /build: the body goes to the build, and its lines are the answer, both through one socket.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "base64.h"
#include "filters.h"
#include "handlers.h"

/* ---- parameters ---- */

static char *text_of(const struct exchange *exchange, const char *key)
{
    const char *text = target_text(&exchange->target, key);

    return text_empty(text) ? NULL : (char *)(uintptr_t)text;
}

/* A map in JSON; null is none. false: it was answered that it makes no sense. */
static bool map_of(struct exchange *exchange, const char *key, struct json_string_map **ret)
{
    const char *text = target_text(&exchange->target, key);
    _cleanup_error_ struct error err = ERROR_INIT;
    void *map = NULL;

    *ret = NULL;
    if (text_empty(text) || text_equal(text, "null"))
        return true;
    if (json_parse(&json_string_map_type, text, strlen(text), NULL, &map, &err) < 0) {
        answer_fail(exchange, 400, "%s: %s", key, error_message(&err));
        return false;
    }
    *ret = map;
    return true;
}

/* A list of images in JSON: no name of one has a character of JSON's. */
static char **images_of(const struct exchange *exchange, const char *key)
{
    static const char between[] = "[]\", \t\r\n";
    const char *text = target_text(&exchange->target, key);
    char **images = NULL;

    for (text = text ? text : ""; *text; text += strcspn(text, between)) {
        text += strspn(text, between);
        size_t length = strcspn(text, between);
        if (length && strncmp(text, "null", length) != 0)
            strv_take(&images, xstrndup(text, length));
    }
    return images;
}

/* A map with values that may be null, for arguments of the build's own environment, which it has
 * none of. */
static bool arguments_of(struct exchange *exchange, struct json_string_map **ret)
{
    const char *text = target_text(&exchange->target, "buildargs");
    _cleanup_error_ struct error err = ERROR_INIT;
    struct json_string_map *raw;
    void *map = NULL;

    *ret = NULL;
    if (text_empty(text) || text_equal(text, "null"))
        return true;
    if (json_parse(&json_raw_map_type, text, strlen(text), NULL, &map, &err) < 0) {
        answer_fail(exchange, 400, "buildargs: %s", error_message(&err));
        return false;
    }
    raw = map;
    _cleanup_buffer_ struct buffer known = BUFFER_INIT;
    struct json_writer writer;
    json_writer_init(&writer, &known, JSON_COMPACT);
    json_writer_object_begin(&writer);
    for (size_t i = 0; i < raw->count; i++) {
        if (text_equal(raw->values[i], "null"))
            continue;
        json_writer_key(&writer, raw->keys[i]);
        json_writer_raw(&writer, raw->values[i]);
    }
    json_writer_object_end(&writer);
    json_free(&json_raw_map_type, raw);
    if (json_parse(&json_string_map_type, known.data, known.length, NULL, &map, &err) < 0) {
        answer_fail(exchange, 400, "buildargs: %s", error_message(&err));
        return false;
    }
    *ret = map;
    return true;
}

static uint64_t positive(const struct exchange *exchange, const char *key, bool *ret_has)
{
    int64_t number = target_number(&exchange->target, key, 0);

    *ret_has = number > 0;
    return number > 0 ? (uint64_t)number : 0;
}

static void resources_of(const struct exchange *exchange, struct api_resources *ret)
{
    *ret = (struct api_resources){.cpuset_cpus = text_of(exchange, "cpusetcpus"),
                                  .cpuset_mems = text_of(exchange, "cpusetmems")};
    ret->memory = positive(exchange, "memory", &ret->has_memory);
    ret->memory_swap = target_number(&exchange->target, "memswap", 0);
    ret->has_memory_swap = ret->memory_swap != 0;
    ret->cpu_shares = positive(exchange, "cpushares", &ret->has_cpu_shares);
    ret->cpu_period = positive(exchange, "cpuperiod", &ret->has_cpu_period);
    ret->cpu_quota = target_number(&exchange->target, "cpuquota", 0);
    ret->has_cpu_quota = ret->cpu_quota != 0;
}

/* JSON; "" and null are none. false: it was answered that it makes no sense. */
static bool document_of(struct exchange *exchange, const char *key, const struct json_type *type,
                        void **ret)
{
    const char *text = target_text(&exchange->target, key);
    _cleanup_error_ struct error err = ERROR_INIT;

    *ret = NULL;
    if (text_empty(text) || text_equal(text, "null") ||
        json_parse(type, text, strlen(text), NULL, ret, &err) == 0)
        return true;
    answer_fail(exchange, 400, "%s: %s", key, error_message(&err));
    return false;
}

static void take_ulimits(const struct docker_ulimits *from, struct api_build_run *how)
{
    how->ulimits = xnew_array(struct api_ulimit *, from->count + 1);
    for (size_t i = 0; i < from->count; i++) {
        struct api_ulimit *limit = how->ulimits[how->ulimits_count++] = xnew(struct api_ulimit);
        limit->name = xstrdup(from->items[i]->name ? from->items[i]->name : "");
        limit->soft = from->items[i]->soft;
        limit->hard = from->items[i]->hard;
        limit->has_hard = from->items[i]->has_hard;
    }
}

/* false: it was answered. */
static bool ulimits_of(struct exchange *exchange, struct api_build_run *how)
{
    void *ulimits = NULL;
    bool good = document_of(exchange, "ulimits", &docker_ulimits_type, &ulimits);

    if (good && ulimits)
        take_ulimits(ulimits, how);
    docker_ulimits_free(ulimits);
    return good;
}

/* What dockerd does not do, either. true: it was answered. */
static bool is_refused(struct exchange *exchange)
{
    const char *isolation = target_text(&exchange->target, "isolation");

    if (text_equal(target_text(&exchange->target, "version"), "2")) {
        answer_fail(exchange, 501, "BuildKit is not spoken here; set DOCKER_BUILDKIT=0");
    } else if (!text_empty(isolation) && !text_equal(isolation, "default")) {
        answer_fail(exchange, 400, "Unsupported isolation: \"%.64s\"", isolation);
    } else {
        return false;
    }
    return true;
}

/* ---- X-Registry-Config ---- */

/* "https://index.docker.io/v1/" is docker.io; of others scheme and path go. Owned. */
static char *registry_of(const char *key)
{
    const char *scheme = strstr(key, "://"), *start = scheme ? scheme + 3 : key;
    char *name = xstrndup(start, strcspn(start, "/"));

    if (!name[0] || text_equal(name, "index.docker.io") ||
        text_equal(name, "registry-1.docker.io")) {
        free(name);
        name = xstrdup("docker.io");
    }
    return name;
}

/* As dockerd does, what makes no sense counts as nothing. */
static void credentials_of(const struct exchange *exchange, struct api_build_run *how)
{
    const char *header = head_field(&exchange->head, "X-Registry-Config");
    struct docker_auth_configs *configs = NULL;
    size_t length;

    _cleanup_free_ char *text = text_empty(header) ? NULL : base64_decode(header, &length);
    if (!text || docker_auth_configs_parse(text, length, NULL, &configs, NULL) < 0)
        return;
    how->credentials = xnew_array(struct api_build_credentials *, configs->count + 1);
    for (size_t i = 0; i < configs->count; i++) {
        struct api_credentials *credentials = docker_credentials_take(configs->values[i]);
        if (!credentials)
            continue;
        struct api_build_credentials *given = xnew(struct api_build_credentials);
        given->registry = registry_of(configs->keys[i]);
        given->credentials = credentials;
        how->credentials[how->credentials_count++] = given;
    }
    docker_auth_configs_free(configs);
}

static void forget_lists(struct api_build_run *how)
{
    for (size_t i = 0; i < how->ulimits_count; i++)
        api_ulimit_free(how->ulimits[i]);
    free(how->ulimits);
    for (size_t i = 0; i < how->credentials_count; i++)
        api_build_credentials_free(how->credentials[i]);
    free(how->credentials);
}

/* ---- the build ---- */

/* A build that has said nothing but why there will be none is refused, as dockerd refuses it. */
static bool refuse_by(struct exchange *exchange, const char *data, size_t length)
{
    _cleanup_api_build_message_ struct api_build_message *message = NULL;
    const char *end = memchr(data, '\n', length);

    if (exchange->begun || !end ||
        api_build_message_parse(data, (size_t)(end - data), "message", &message, NULL) < 0 ||
        text_empty(message->error))
        return false;
    answer_fail(exchange, 400, "%s", message->error);
    return true;
}

/* What it says is the answer; what it has said to the end goes before the failure of the call. */
static void on_said(struct exchange *exchange, const char *data, size_t length)
{
    if (exchange->ended || refuse_by(exchange, data, length))
        return;
    answer_begin(exchange, 200, "application/json");
    answer_data(exchange, data, length);
}

struct build {
    bool dry, done;
};

static void end_build(struct exchange *exchange)
{
    const struct build *build = exchange->state;

    if (build->dry && build->done && !exchange->ended) {
        answer_begin(exchange, 200, "application/json");
        answer_end(exchange);
    }
}

static void on_dry(struct exchange *exchange)
{
    ((struct build *)exchange->state)->dry = true;
    end_build(exchange);
}

/* A failure is the last of its lines, if it has said any. */
static void on_built(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    struct build *build = exchange->state;

    if (exchange->ended)
        return;
    if (outcome->code < 0 && !exchange->begun && build->dry) {
        call_answer_error(exchange, outcome);
        return;
    }
    if (outcome->code < 0 && !exchange->begun)
        build->dry = exchange_read_rest(exchange);
    if (outcome->code < 0 && !exchange->begun) {
        call_answer_error(exchange, outcome);
        return;
    }
    /* The daemon that is gone has not said its last line: nobody may take the rest for success. */
    if (outcome->code < 0 && !outcome->answered) {
        answer_break(exchange);
        return;
    }
    build->done = true;
    end_build(exchange);
}

static void run(struct exchange *exchange, struct api_build_run *how)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int fd = exchange_converse(exchange, &err);

    if (fd < 0) {
        answer_error(exchange, 503, &err);
        return;
    }
    exchange_set_state(exchange, xnew(struct build), free);
    exchange->pumped = on_said;
    exchange->dry = on_dry;
    call(exchange, "build.run", how, on_built,
         &(struct call_options){.fds = &fd, .fds_count = 1, .errors = true});
}

static bool is_false(const struct exchange *exchange, const char *key)
{
    return target_text(&exchange->target, key) && !target_flag(&exchange->target, key);
}

/* What would make another image, or another build, if it were left out in silence. */
static bool check_unbuilt(struct exchange *exchange)
{
    static const char *const lists[] = {"outputs"};

    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        const char *text = target_text(&exchange->target, lists[i]);
        if (text_empty(text) || text_equal(text, "null") || text_equal(text, "[]"))
            continue;
        answer_fail(exchange, 501, "%s cannot be set for a build", lists[i]);
        return false;
    }
    return true;
}

void docker_build(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    _cleanup_strv_ char **names = target_list(target, "t");
    _cleanup_strv_ char **hosts = target_list(target, "extrahosts");
    _cleanup_strv_ char **cache_from = images_of(exchange, "cachefrom");
    _cleanup_strv_ char **security = target_list(target, "securityopt");
    _cleanup_json_string_map_ struct json_string_map *arguments = NULL, *labels = NULL;
    struct api_resources resources;

    if (is_refused(exchange))
        return;
    if (!check_unbuilt(exchange))
        return;
    if (!arguments_of(exchange, &arguments) || !map_of(exchange, "labels", &labels))
        return;
    resources_of(exchange, &resources);
    struct api_build_run how = {
        .names = names,
        .names_count = strv_length(names),
        .remote = text_of(exchange, "remote"),
        .dockerfile = text_of(exchange, "dockerfile"),
        .arguments = arguments,
        .labels = labels,
        .target = text_of(exchange, "target"),
        .platform = text_of(exchange, "platform"),
        .network_mode = text_of(exchange, "networkmode"),
        .no_cache = target_flag(target, "nocache"),
        .has_no_cache = true,
        .pull = target_flag(target, "pull"),
        .has_pull = true,
        .squash = target_flag(target, "squash"),
        .has_squash = true,
        .quiet = target_flag(target, "q"),
        .has_quiet = true,
        .keep_containers = is_false(exchange, "rm"),
        .has_keep_containers = true,
        .remove_failed = target_flag(target, "forcerm"),
        .has_remove_failed = true,
        .resources = &resources,
        .cgroup_parent = text_of(exchange, "cgroupparent"),
        .cache_from = cache_from,
        .cache_from_count = strv_length(cache_from),
        .extra_hosts = hosts,
        .extra_hosts_count = strv_length(hosts),
        .security_opt = security,
        .security_opt_count = strv_length(security),
    };
    how.shm_size = positive(exchange, "shmsize", &how.has_shm_size);
    if (ulimits_of(exchange, &how)) {
        credentials_of(exchange, &how);
        run(exchange, &how);
    }
    forget_lists(&how);
}

/* ---- prune ---- */

static void on_pruned(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_build_pruned *pruned = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_list(&writer, "CachesDeleted", pruned->deleted_count ? pruned->deleted : NULL);
    field_unsigned(&writer, "SpaceReclaimed", pruned->space_reclaimed);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

/* What is kept has no labels, and nothing of what BuildKit knows of its own. */
void docker_build_prune(struct exchange *exchange)
{
    static const char *const known[] = {"until", "unused-for", "label", "label!", NULL};
    struct api_build_prune how = {.all = target_flag(&exchange->target, "all"), .has_all = true};
    static const struct api_build_pruned none;
    _cleanup_filters_ struct filters filters = {.count = 0};
    struct api_prune_filters wanted;

    if (!filters_of(exchange, known, &filters) ||
        !docker_prune_filters(exchange, &filters, &wanted))
        return;
    if (wanted.label_count) {
        on_pruned(exchange, &(struct rpc_outcome){.result = (void *)(uintptr_t)&none});
        return;
    }
    _cleanup_free_ char *until = wanted.has_until ? clock_format(wanted.until) : NULL;
    how.until = until;
    how.keep_storage = positive(exchange, "keep-storage", &how.has_keep_storage);
    call(exchange, "build.prune", &how, on_pruned, NULL);
}
