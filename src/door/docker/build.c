/*
 * POST /build: the body goes to the build, and its lines are the answer, both through one socket.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
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

/* The same with values that may be null, for arguments of the build's own environment, which it has
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

/* ---- the build ---- */

/* What it says is the answer; what it has said to the end goes before the failure of the call. */
static void on_said(struct exchange *exchange, const char *data, size_t length)
{
    answer_begin(exchange, 200, "application/json");
    answer_data(exchange, data, length);
}

struct build {
    bool dry, done;
};

static void end_build(struct exchange *exchange)
{
    const struct build *build = exchange->state;

    if (build->dry && build->done) {
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

void docker_build(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    const char *auth = head_field(&exchange->head, "X-Registry-Config");
    _cleanup_strv_ char **names = target_list(target, "t");
    _cleanup_strv_ char **hosts = target_list(target, "extrahosts");
    _cleanup_json_string_map_ struct json_string_map *arguments = NULL, *labels = NULL;
    struct api_resources resources;
    size_t length;

    if (!text_empty(target_text(target, "remote"))) {
        answer_fail(exchange, 501, "a context has to come along: nothing is fetched for a build");
        return;
    }
    if (text_equal(target_text(target, "version"), "2")) {
        answer_fail(exchange, 501, "BuildKit is not spoken here; set DOCKER_BUILDKIT=0");
        return;
    }
    if (!arguments_of(exchange, &arguments) || !map_of(exchange, "labels", &labels))
        return;
    _cleanup_free_ char *decoded = text_empty(auth) ? NULL : docker_base64_decode(auth, &length);
    resources_of(exchange, &resources);
    struct api_build_run how = {
        .names = names,
        .names_count = strv_length(names),
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
        .auth = decoded,
        .quiet = target_flag(target, "q"),
        .has_quiet = true,
        .keep_containers = is_false(exchange, "rm"),
        .has_keep_containers = true,
        .remove_failed = target_flag(target, "forcerm"),
        .has_remove_failed = true,
        .resources = &resources,
        .cgroup_parent = text_of(exchange, "cgroupparent"),
        .extra_hosts = hosts,
        .extra_hosts_count = strv_length(hosts),
    };
    how.shm_size = positive(exchange, "shmsize", &how.has_shm_size);
    run(exchange, &how);
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

void docker_build_prune(struct exchange *exchange)
{
    struct api_build_prune how = {.all = target_flag(&exchange->target, "all"), .has_all = true};

    how.keep_storage = positive(exchange, "keep-storage", &how.has_keep_storage);
    call(exchange, "build.prune", &how, on_pruned, NULL);
}
