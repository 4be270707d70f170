/*
 * Images that builds stand on, the platform they are for, and the cache that builds leave.
 */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <engine/registry.h>
#include <store/build.h>

#include "build.h"

static const char own_architecture[] =
#if defined(__x86_64__)
    "amd64";
#elif defined(__aarch64__)
    "arm64";
#else
#error "name this architecture as image indexes do"
#endif

int build_platform(const char *asked, char **ret, struct error *err)
{
    static const char *const architectures[] = {"386",     "amd64",   "arm",   "arm64",  "mips64le",
                                                "ppc64le", "riscv64", "s390x", "loong64"};

    if (text_empty(asked) || text_equal(asked, "linux")) {
        *ret = xasprintf("linux/%s", own_architecture);
        return 0;
    }
    const char *slash = strchr(asked, '/');
    _cleanup_free_ char *os = slash ? xstrndup(asked, (size_t)(slash - asked)) : NULL;
    _cleanup_free_ char *architecture =
        slash ? xstrndup(slash + 1, strcspn(slash + 1, "/")) : xstrdup(asked);
    if (os && !text_equal(os, "linux"))
        return error_set(err, -EINVAL, "operating system is not supported: \"%s\"", asked);
    for (size_t i = 0; i < ARRAY_SIZE(architectures); i++) {
        if (!text_equal(architectures[i], architecture))
            continue;
        *ret = slash ? xstrdup(asked) : xasprintf("linux/%s", asked);
        return 0;
    }
    return error_set(err, -EINVAL,
                     "\"%s\": unknown operating system or architecture: invalid argument", asked);
}

/* --- images ----------------------------------------------------------------------------------- */

struct pull_call {
    struct build_call call;
    const char *name;
};

static void on_pulled(const struct error *err, const void *document, void *data)
{
    struct pull_call *pull = data;

    build_call_end(&pull->call, err);
}

static void on_pull_progress(const char *item, const char *step, uint64_t done, uint64_t total,
                             void *data)
{
}

static void begin_pull(struct build_call *call)
{
    struct pull_call *pull = (struct pull_call *)call;
    const struct engine_transfer_callbacks callbacks = {on_pulled, on_pull_progress, pull};
    const struct api_image_pull params = {.image = (char *)pull->name,
                                          .platform = call->build->how->platform};

    engine_image_pull(call->build->engine, &params, &callbacks);
}

static int pull_image(struct build *build, const char *name, struct error *err)
{
    struct pull_call pull = {.call = {.begin = begin_pull}, .name = name};

    build_say(&build->output, 0, "Pulling %s\n", name);
    int r = build_call_run(build, &pull.call);
    if (r < 0) {
        error_move(err, &pull.call.err);
        error_context(err, "pull %s", name);
    }
    error_finish(&pull.call.err);
    return r;
}

/* IDs and the machine's own image come from nowhere else. */
static bool may_be_pulled(const char *name)
{
    return !text_equal(name, "host") && !text_starts_with(name, "host:") &&
           !text_starts_with(name, "sha256:");
}

int build_get_image(struct build *build, const char *name, struct store_image **ret,
                    struct error *err)
{
    int r = -ENOENT;

    if (!build->how->pull || !may_be_pulled(name))
        r = store_image_find(build->engine->store, name, ret, err);
    if (r == -ENOENT && may_be_pulled(name)) {
        r = pull_image(build, name, err);
        if (r >= 0)
            r = store_image_find(build->engine->store, name, ret, err);
    }
    if (r == -ENOENT && err)
        err->code = ENGINE_NO_SUCH_IMAGE;
    return r;
}

/* --- pruning ---------------------------------------------------------------------------------- */

struct prune_call {
    uv_work_t work;
    struct engine *engine;
    struct store_prune how;
    struct store_pruned pruned;
    struct error err;
    engine_image_done done;
    void *data;
};

static void prune_work(uv_work_t *work)
{
    struct prune_call *call = work->data;

    engine_settle(&call->err,
                  store_build_prune(call->engine->store, &call->how, &call->pruned, &call->err));
}

static void prune_done(uv_work_t *work, int status)
{
    struct prune_call *call = work->data;
    struct api_build_pruned pruned = {
        .deleted = call->pruned.deleted ? call->pruned.deleted : (char *[]){NULL},
        .deleted_count = strv_length(call->pruned.deleted),
        .space_reclaimed = call->pruned.reclaimed,
    };

    call->engine->image_calls--;
    call->done(call->err.code ? &call->err : NULL, &pruned, call->data);
    store_pruned_finish(&call->pruned);
    error_finish(&call->err);
    free(call);
}

void engine_build_prune(struct engine *engine, const struct api_build_prune *how,
                        engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int64_t until = 0;

    if (engine->removing)
        error_set(&err, -EAGAIN, "the instance is being removed");
    else if (!text_empty(how->until) && clock_parse(how->until, &until) < 0)
        error_set(&err, -EINVAL, "'%s' is not an RFC 3339 time", how->until);
    if (err.code) {
        done(&err, NULL, data);
        return;
    }
    struct prune_call *call = xnew(struct prune_call);
    call->work.data = call;
    call->engine = engine;
    call->how = (struct store_prune){
        .until = until, .keep = how->keep_storage, .all = how->all, .building = engine->builds};
    call->done = done;
    call->data = data;
    engine->image_calls++;
    uv_queue_work(engine->loop, &call->work, prune_work, prune_done);
}
