/*
 * Images that builds stand on, the platform they are for, and the cache that builds leave.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <engine/registry.h>
#include <store/build.h>
#include <store/reference.h>

#include "events.h"
#include "build.h"
#include "errand.h"
#include "platform.h"

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

struct pull_watch;

struct pull_call {
    struct build_call call;
    const char *name, *platform;
    struct pull_watch *watch; /* while the pull is under way */
};

/* Ends the pull when the build is cancelled. */
struct pull_watch {
    uv_poll_t poll;
    int fd; /* owned: a second pull of the build watches the same event, and libuv a number once */
    struct transfer *transfer;
};

static void on_watch_closed(uv_handle_t *handle)
{
    struct pull_watch *watch = handle->data;

    close_fd(watch->fd);
    free(watch);
}

static void on_cancelled(uv_poll_t *poll, int status, int events)
{
    struct pull_watch *watch = poll->data;

    uv_poll_stop(poll);
    engine_transfer_cancel(watch->transfer);
}

static void on_pulled(const struct error *err, const void *document, void *data)
{
    struct pull_call *pull = data;

    if (pull->watch) {
        uv_poll_stop(&pull->watch->poll);
        uv_close((uv_handle_t *)&pull->watch->poll, on_watch_closed);
    }
    build_call_end(&pull->call, err);
}

static void on_pull_progress(const char *item, const char *step, uint64_t done, uint64_t total,
                             void *data)
{
}

/* What the user has for the image's registry. Borrowed; NULL: nothing. */
static struct api_credentials *credentials_for(const struct build *build, const char *name)
{
    _cleanup_store_reference_ struct store_reference reference = {0};

    if (store_reference_parse(name, &reference, NULL) < 0)
        return NULL;
    for (size_t i = 0; i < build->how->credentials_count; i++) {
        const struct api_build_credentials *given = build->how->credentials[i];
        if (text_equal(given->registry, reference.domain))
            return given->credentials;
    }
    return NULL;
}

static void begin_pull(struct build_call *call)
{
    struct pull_call *pull = (struct pull_call *)call;
    struct build *build = call->build;
    const struct engine_transfer_callbacks callbacks = {on_pulled, on_pull_progress, pull};
    const struct api_image_pull params = {.image = (char *)pull->name,
                                          .platform = (char *)pull->platform,
                                          .credentials = credentials_for(build, pull->name)};

    struct pull_watch *watch = xnew(struct pull_watch);
    watch->poll.data = watch;
    watch->fd = fcntl(call->build->cancel.fd, F_DUPFD_CLOEXEC, 3);
    if (watch->fd < 0 || uv_poll_init(call->build->engine->loop, &watch->poll, watch->fd) < 0) {
        close_fd(watch->fd);
        free(watch);
        watch = NULL;
    }
    /* The end may come during the call, and pull is gone then. */
    pull->watch = watch;
    struct transfer *transfer = engine_image_pull(call->build->engine, &params, &callbacks);
    if (!transfer || !watch)
        return;
    watch->transfer = transfer;
    uv_poll_start(&watch->poll, UV_READABLE, on_cancelled);
}

static int pull_image(struct build *build, const char *name, const char *platform,
                      struct error *err)
{
    struct pull_call pull = {.call = {.begin = begin_pull}, .name = name, .platform = platform};

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

/* Variants are ordered: what is made for v6 runs on v7, too. */
static bool fits(const struct oci_image_configuration *config,
                 const struct image_worker_platform *wanted)
{
    if (!text_equal(config->os, wanted->os) ||
        !text_equal(config->architecture, wanted->architecture))
        return false;
    return text_empty(config->variant) || text_empty(wanted->variant) ||
           strcmp(config->variant, wanted->variant) <= 0;
}

/* -ENOENT with docker's words: it is there, but for something else. */
static int check_platform(const char *name, const char *platform, const struct store_image *image,
                          struct error *err)
{
    struct image_worker_platform *wanted = NULL;
    const struct oci_image_configuration *config = image->config;
    int r = text_empty(platform) ? 0 : platform_parse(platform, &wanted, err);

    if (r == 0 && wanted && !fits(config, wanted))
        r = error_set(err, -ENOENT,
                      "image with reference %s was found but does not match the specified "
                      "platform: wanted %s, actual: %s/%s%s%s",
                      name, platform, config->os ? config->os : "",
                      config->architecture ? config->architecture : "", config->variant ? "/" : "",
                      config->variant ? config->variant : "");
    image_worker_platform_free(wanted);
    return r;
}

static int find_image(struct build *build, const char *name, const char *platform,
                      struct store_image **ret, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    int r = store_image_find(build->engine->store, name, &image, err);

    if (r == 0)
        r = check_platform(name, platform, image, err);
    if (r == 0)
        *ret = steal_ptr(image);
    return r;
}

int build_get_image(struct build *build, const char *name, const char *platform,
                    struct store_image **ret, struct error *err)
{
    _cleanup_error_ struct error missing = ERROR_INIT;
    _cleanup_free_ char *checked = NULL;
    bool asked = !build->how->pull || !may_be_pulled(name);
    int r = text_empty(platform) ? 0 : build_platform(platform, &checked, err);

    if (r < 0)
        return r;
    r = asked ? find_image(build, name, platform, ret, &missing) : -ENOENT;
    if (r == -ENOENT && may_be_pulled(name)) {
        r = pull_image(build, name, platform, err);
        if (r < 0 && strstr(error_message(&missing), "does not match")) {
            _cleanup_free_ char *why = xstrdup(error_message(err));
            r = error_set(err, -ENOENT, "%s; %s", error_message(&missing), why);
        }
        if (r >= 0)
            r = find_image(build, name, platform, ret, err);
    } else if (r < 0) {
        error_move(err, &missing);
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
    if (!call->err.code)
        event_pruned(call->engine, "builder", pruned.space_reclaimed);
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
    call->how = (struct store_prune){.until = until, .keep = how->keep_storage, .all = how->all};
    call->done = done;
    call->data = data;
    engine->image_calls++;
    errand_run(engine, &call->work, prune_work, prune_done);
}
