/*
 * Builds: the context becomes a plan in the image worker's jail, the images it stands on are found,
 * the stages are worked on as soon as those they need are done, and the last one's image gets its
 * names.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <store/build.h>
#include <store/reference.h>

#include "build.h"
#include "events.h"

/* --- calls on the loop ------------------------------------------------------------------------ */

bool build_cancelled(const struct build *build)
{
    struct pollfd fd = {build->cancel.fd, POLLIN, 0};

    return poll(&fd, 1, 0) > 0;
}

void build_call_end(struct build_call *call, const struct error *err)
{
    struct build *build = call->build;

    pthread_mutex_lock(&build->lock);
    if (err) {
        error_set(&call->err, err->code, "%s", error_message(err));
        if (err->hint)
            error_hint(&call->err, "%s", err->hint);
    }
    call->ended = true;
    pthread_cond_broadcast(&build->changed);
    pthread_mutex_unlock(&build->lock);
}

int build_call_run(struct build *build, struct build_call *call)
{
    struct build_call **end;

    call->build = build;
    pthread_mutex_lock(&build->lock);
    for (end = &build->calls; *end; end = &(*end)->next)
        ;
    *end = call;
    uv_async_send(&build->async);
    while (!call->ended)
        pthread_cond_wait(&build->changed, &build->lock);
    pthread_mutex_unlock(&build->lock);
    return call->err.code;
}

static struct build_call *next_call(struct build *build, bool *ret_ended)
{
    pthread_mutex_lock(&build->lock);
    struct build_call *call = build->calls;
    if (call)
        build->calls = call->next;
    *ret_ended = build->ended;
    pthread_mutex_unlock(&build->lock);
    return call;
}

/* --- images ----------------------------------------------------------------------------------- */

static const struct build_image *known_image(struct build *build, const char *name,
                                             const char *platform)
{
    const struct build_image *found = NULL;

    pthread_mutex_lock(&build->lock);
    for (size_t i = 0; i < build->images_count && !found; i++) {
        const struct build_image *image = &build->images[i];
        if (text_equal(image->name, name) && text_equal(image->platform, platform))
            found = &build->images[i];
    }
    pthread_mutex_unlock(&build->lock);
    return found;
}

static struct oci_image_execution *copy_config(const struct oci_image_execution *config)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct oci_image_execution *copy = NULL;

    if (!config)
        return NULL;
    oci_image_execution_write(config, &text);
    return oci_image_execution_parse(text.data, text.length, NULL, &copy, NULL) == 0 ? copy : NULL;
}

/* Room for all of them is there: pointers to them stay. */
static const struct build_image *remember_image(struct build *build, const char *name,
                                                const char *platform,
                                                const struct store_image *image)
{
    pthread_mutex_lock(&build->lock);
    struct build_image *added = &build->images[build->images_count++];
    added->name = xstrdup(name);
    added->platform = xstrdup(platform);
    added->id = xstrdup(image->id);
    added->config = copy_config(image->config->config);
    pthread_mutex_unlock(&build->lock);
    return added;
}

int build_find_image(struct build *build, const char *name, const char *platform,
                     const struct build_image **ret, struct error *err)
{
    _cleanup_store_image_ struct store_image *image = NULL;

    *ret = known_image(build, name, platform);
    if (*ret)
        return 0;
    int r = build_get_image(build, name, platform ? platform : build->how->platform, &image, err);
    if (r == 0)
        r = store_build_hold(build->engine->store, build->number, image->id, err);
    if (r < 0)
        return r;
    *ret = remember_image(build, name, platform, image);
    return 0;
}

/* --- the plan --------------------------------------------------------------------------------- */

static char **list_arguments(const struct json_string_map *map, size_t *ret_count)
{
    char **list = NULL;

    for (size_t i = 0; map && i < map->count; i++)
        strv_take(&list, xasprintf("%s=%s", map->keys[i], map->values[i]));
    *ret_count = strv_length(list);
    return list;
}

static int run_worker(struct build *build, const struct image_worker_request *request,
                      int archive_fd, int staging_fd, struct build_plan **ret, struct error *err)
{
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_result *result = NULL;

    spec.program = build->engine->image_program;
    spec.request = request;
    spec.archive_fd = archive_fd;
    spec.staging_fd = staging_fd;
    int r = image_worker_run(&spec, NULL, NULL, build->cancel.fd, &result, err);
    if (r == 0 && !result->plan)
        r = error_set(err, -EPROTO, "the image worker made no plan");
    if (r == 0) {
        build_plan_free(*ret);
        *ret = steal_ptr(result->plan);
    }
    image_worker_result_free(result);
    return r;
}

/* Images of plan and those that a COPY may name. */
static size_t count_images(const struct build_plan *plan)
{
    size_t count = plan->stages_count;

    for (size_t i = 0; i < plan->stages_count; i++)
        count += plan->stages[i]->steps_count;
    return count;
}

/* The context from elsewhere. Owned; -errno. */
static int open_remote(struct build *build, struct error *err)
{
    const char *url = build->how->remote;
    struct image_worker_fetched *fetched = NULL;
    int staging = store_staging_fd(build->staging);

    build_say(&build->output, 0, "Downloading build context from remote url: %s\n", url);
    int r = fetch_file(&build->fetch, url, "fetched", staging, build->cancel.fd, &fetched, err);
    image_worker_fetched_free(fetched);
    if (r < 0)
        return r;
    int fd = openat(staging, "fetched", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open what was fetched") : fd;
}

static int clone_remote(struct build *build, struct error *err)
{
    _cleanup_free_ char *commit = NULL;

    build_say(&build->output, 0, "Cloning build context from repository: %s\n", build->how->remote);
    int r = fetch_repository(&build->fetch, build->how->remote, store_staging_fd(build->staging),
                             build->cancel.fd, &commit, err);
    if (r == 0)
        build_say(&build->output, 0, "Commit %s\n", commit);
    return r;
}

static int first_look(struct build *build, struct build_options *options, struct error *err)
{
    bool remote = !text_empty(build->how->remote);
    bool repository = remote && fetch_is_git(build->how->remote);
    struct image_worker_context context = {.options = options,
                                           .remote = remote && !repository,
                                           .has_remote = remote && !repository,
                                           .ready = repository,
                                           .has_ready = repository};
    const struct image_worker_request request = {.context = &context};
    int staging = store_staging_fd(build->staging);
    int cloned = repository ? clone_remote(build, err) : 0;
    _cleanup_close_ int fetched = remote && !repository ? open_remote(build, err) : -1;

    if (cloned < 0)
        return cloned;
    if (remote && !repository && fetched < 0)
        return fetched;
    int r = run_worker(build, &request, remote ? fetched : build->socket_fd, staging, &build->plan,
                       err);
    if (r < 0)
        return r;
    unlinkat(staging, "fetched", 0);
    build->files_fd = openat(staging, "context", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return build->files_fd < 0 ? error_errno(err, errno, "open the context") : 0;
}

static int second_look(struct build *build, struct build_options *options, struct error *err)
{
    struct image_worker_plan plan = {.options = options};
    const struct image_worker_request request = {.plan = &plan};
    size_t count = build->plan->stages_count;
    int r = 0;

    build->images = xnew_array(struct build_image, count + 1);
    options->bases = xnew_array(struct build_base *, count + 1);
    for (size_t i = 0; r == 0 && i < count; i++) {
        const struct build_stage *stage = build->plan->stages[i];
        const struct build_image *image;
        if (!stage->image)
            continue;
        r = build_find_image(build, stage->image, stage->platform, &image, err);
        if (r < 0)
            break;
        struct build_base *base = options->bases[options->bases_count++] = xnew(struct build_base);
        base->name = image->name;
        base->platform = image->platform;
        base->config = image->config;
    }
    if (r == 0)
        r = run_worker(build, &request, -1, build->files_fd, &build->plan, err);
    for (size_t i = 0; i < options->bases_count; i++)
        free(options->bases[i]);
    free(options->bases);
    if (r == 0)
        build->images =
            xrealloc(build->images, count + count_images(build->plan) + 1, sizeof(*build->images));
    return r;
}

static int make_plan(struct build *build, struct error *err)
{
    const struct api_build_run *how = build->how;
    struct build_options options = {
        .dockerfile = text_empty(how->dockerfile) ? (char *)"Dockerfile" : how->dockerfile,
        .labels = how->labels,
        .target = how->target,
        .platform = build->platform,
    };
    _cleanup_strv_ char **arguments = list_arguments(how->arguments, &options.arguments_count);

    options.arguments = arguments;
    int r = store_staging_create(build->engine->store, &build->staging, err);
    if (r == 0)
        r = first_look(build, &options, err);
    return r < 0 ? r : second_look(build, &options, err);
}

/* --- stages ----------------------------------------------------------------------------------- */

static bool needs(const struct build_stage *stage, size_t other)
{
    if (stage->has_stage && stage->stage == other)
        return true;
    for (size_t i = 0; i < stage->steps_count; i++) {
        const struct build_copy *copy = stage->steps[i]->copy;
        if (copy && copy->has_from_stage && copy->from_stage == other)
            return true;
    }
    return false;
}

static bool is_ready(const struct build *build, size_t index)
{
    if (build->stages[index].state != STAGE_WAITING)
        return false;
    for (size_t i = 0; i < index; i++) {
        if (build->stages[i].state != STAGE_DONE && needs(build->plan->stages[index], i))
            return false;
    }
    return true;
}

static void *stage_thread(void *data)
{
    struct build_work *work = data;
    struct build *build = work->build;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = build_stage(work, &err);

    if (r < 0)
        build_run_remove(work, true);
    build_output_end_lane(&build->output, work->index);
    pthread_mutex_lock(&build->lock);
    if (r < 0 && !build->err.code)
        error_move(&build->err, &err);
    if (r < 0) /* the others end at their next step */
        eventfd_write(build->cancel.fd, 1);
    work->state = STAGE_DONE;
    build->running--;
    pthread_cond_broadcast(&build->changed);
    pthread_mutex_unlock(&build->lock);
    return NULL;
}

/* With the lock. */
static void start_ready(struct build *build)
{
    for (size_t i = 0; i < build->plan->stages_count; i++) {
        struct build_work *work = &build->stages[i];
        if (build->err.code || build->running >= BUILD_PARALLEL_STAGES || !is_ready(build, i))
            continue;
        int r = pthread_create(&work->thread, NULL, stage_thread, work);
        if (r) {
            error_errno(&build->err, r, "start a thread");
            return;
        }
        work->state = STAGE_RUNNING;
        build->running++;
    }
}

static bool all_done(const struct build *build)
{
    for (size_t i = 0; i < build->plan->stages_count; i++) {
        if (build->stages[i].state != STAGE_DONE)
            return false;
    }
    return true;
}

static int do_stages(struct build *build, struct error *err)
{
    size_t count = build->plan->stages_count;

    build->stages = xnew_array(struct build_work, count + 1);
    for (size_t i = 0; i < count; i++)
        build->stages[i] = (struct build_work){.build = build, .index = i};
    build_output_divide(&build->output, count);
    pthread_mutex_lock(&build->lock);
    for (;;) {
        if (build->err.code == 0)
            start_ready(build);
        if (build->running == 0 && (build->err.code || all_done(build)))
            break;
        pthread_cond_wait(&build->changed, &build->lock);
    }
    pthread_mutex_unlock(&build->lock);
    for (size_t i = 0; i < count; i++) {
        if (build->stages[i].state == STAGE_DONE)
            pthread_join(build->stages[i].thread, NULL);
        else
            build_output_end_lane(&build->output, i);
    }
    return build->err.code ? error_move(err, &build->err) : 0;
}

/* --- the thread ------------------------------------------------------------------------------- */

static void say_heading(struct build *build)
{
    const struct build_plan *plan = build->plan;

    for (size_t i = 0; i < plan->heading_count; i++)
        build_say(&build->output, 0, "Step %zu/%u : %s\n", i + 1, plan->total, plan->heading[i]);
}

/* kind: as docker says it of a squashed image; NULL: it is none. */
static void tell_image(struct build *build, const char *kind)
{
    struct api_build_aux aux = {.id = build->image_id};
    const struct api_build_message message = {.id = (char *)(uintptr_t)kind, .aux = &aux};

    if (!build->output.quiet)
        build_tell(&build->output, &message);
}

static void say_end(struct build *build)
{
    struct build_output *output = &build->output;
    const struct build_plan *plan = build->plan;

    if (output->quiet) {
        _cleanup_free_ char *line = xasprintf("%s\n", build->image_id);
        const struct api_build_message message = {.stream = line};
        build_tell(output, &message);
        return;
    }
    tell_image(build, build->how->squash ? "moby.image.id" : NULL);
    if (plan->unused_arguments_count) {
        _cleanup_free_ char *names = strv_join(plan->unused_arguments, " ");
        build_say(output, output->count,
                  "[Warning] One or more build-args [%s] were not consumed\n", names);
    }
    build_say(output, output->count, "Successfully built %.12s\n", build->image_id + 7);
    for (size_t i = 0; build->names && build->names[i]; i++)
        build_say(output, output->count, "Successfully tagged %s\n", build->names[i]);
}

static void tell_failure(struct build *build)
{
    struct api_build_error detail = {.message = (char *)error_message(&build->err),
                                     .code = build->exit_code,
                                     .has_code = build->exit_code != 0};
    const struct api_build_message message = {.error = detail.message, .error_detail = &detail};

    build_tell(&build->output, &message);
}

static int build_all(struct build *build, struct error *err)
{
    int r = make_plan(build, err);

    if (r < 0)
        return r;
    say_heading(build);
    r = do_stages(build, err);
    if (r < 0)
        return r;
    build->image_id = xstrdup(build->stages[build->plan->stages_count - 1].image_id);
    if (build->plan->stages[build->plan->stages_count - 1]->steps_count == 0 &&
        !build->plan->stages[build->plan->stages_count - 1]->image &&
        !build->plan->stages[build->plan->stages_count - 1]->has_stage)
        return error_set(err, -EINVAL, "No image was generated. Is your Dockerfile empty?");
    if (build->how->squash) {
        tell_image(build, NULL);
        r = build_squash(build, err);
        if (r < 0)
            return error_context(err, "squash the layers"), r;
    }
    return store_build_seal(build->engine->store, build->image_id, build->how->names, &build->names,
                            err);
}

static void *build_thread(void *data)
{
    struct build *build = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = build_all(build, &err);

    if (r < 0) {
        error_finish(&build->err);
        build->err = (struct error)ERROR_INIT;
        error_move(&build->err, &err);
        tell_failure(build);
    } else {
        say_end(build);
    }
    store_build_end(build->engine->store, build->number);
    store_staging_free(steal_ptr(build->staging));
    pthread_mutex_lock(&build->lock);
    build->ended = true;
    pthread_mutex_unlock(&build->lock);
    uv_async_send(&build->async);
    return NULL;
}

/* --- the loop's side -------------------------------------------------------------------------- */

static void build_free(struct build *build)
{
    for (size_t i = 0; build->plan && build->stages && i < build->plan->stages_count; i++) {
        free(build->stages[i].image_id);
        free(build->stages[i].container);
    }
    free(build->stages);
    for (size_t i = 0; i < build->images_count; i++) {
        free(build->images[i].name);
        free(build->images[i].id);
        free(build->images[i].platform);
        oci_image_execution_free(build->images[i].config);
    }
    free(build->images);
    build_plan_free(build->plan);
    build_output_finish(&build->output);
    api_build_run_free(build->how);
    close_fd(build->socket_fd);
    close_fd(build->files_fd);
    close_fd(build->cancel.fd);
    fetch_settings_finish(&build->fetch);
    free(build->platform);
    free(build->image_id);
    strv_free(build->names);
    error_finish(&build->err);
    pthread_mutex_destroy(&build->lock);
    pthread_cond_destroy(&build->changed);
    free(build);
}

static void on_closed(uv_handle_t *handle)
{
    build_free(handle->data);
}

static void unlink_build(struct build *build)
{
    struct build **at = &build->engine->builds;

    while (*at != build)
        at = &(*at)->next;
    *at = build->next;
}

static void end_build(struct build *build)
{
    struct api_build_result result = {
        .id = build->image_id, .names = build->names, .names_count = strv_length(build->names)};

    pthread_join(build->thread, NULL);
    unlink_build(build);
    build->engine->image_calls--;
    close_fd(steal_fd(&build->socket_fd)); /* the client sees its end before the answer */
    for (size_t i = 0; !build->err.code && i < result.names_count; i++)
        event_image(build->engine, "tag", build->image_id, build->names[i]);
    build->done(build->err.code ? &build->err : NULL, &result, build->data);
    uv_close((uv_handle_t *)&build->async, on_closed);
}

static void on_async(uv_async_t *async)
{
    struct build *build = async->data;
    struct build_call *call;
    bool ended;

    while ((call = next_call(build, &ended))) {
        if (build->engine->ending) {
            _cleanup_error_ struct error err = ERROR_INIT;
            error_set(&err, -EAGAIN, "the daemon ends");
            build_call_end(call, &err);
        } else {
            call->begin(call);
        }
    }
    if (ended)
        end_build(build);
}

void builds_cancel(struct engine *engine)
{
    for (struct build *build = engine->builds; build; build = build->next)
        engine_cancel(&build->cancel);
}

/* --- asking for one --------------------------------------------------------------------------- */

static int check_names(const struct api_build_run *how, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < how->names_count; i++) {
        _cleanup_free_ char *full = NULL;
        r = store_reference_normalize(how->names[i], &full, err);
        if (r < 0)
            error_context(err, "invalid argument \"%.256s\" for the name of the image",
                          how->names[i]);
    }
    return r;
}

static int check(struct engine *engine, const struct api_build_run *how, struct error *err)
{
    unsigned count = 0;

    for (const struct build *build = engine->builds; build; build = build->next)
        count++;
    if (engine->removing || engine->ending)
        return error_set(err, -EAGAIN, "the instance is being removed");
    if (count >= BUILDS_MAX)
        return error_set(err, -EAGAIN, "%d builds are under way already", BUILDS_MAX);
    if (!text_empty(how->remote) && fetch_check_repository(how->remote, err) < 0)
        return err->code;
    if (!text_empty(how->remote) && !fetch_is_git(how->remote) && !fetch_is_address(how->remote))
        return error_set(err, -EINVAL, "remoteURL (%.200s) could not be recognized as URL",
                         how->remote);
    return check_names(how, err);
}

static struct api_build_run *copy_request(const struct api_build_run *how)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_build_run *copy = NULL;

    api_build_run_write(how, &text);
    /* What was written parses: anything else is a broken program. */
    if (api_build_run_parse(text.data, text.length, NULL, &copy, NULL) < 0)
        abort();
    return copy;
}

static struct build *new_build(struct engine *engine, const struct api_build_run *how,
                               int socket_fd, char *platform)
{
    struct build *build = xnew(struct build);

    build->engine = engine;
    build->number = store_build_begin(engine->store);
    build->how = copy_request(how);
    build->socket_fd = socket_fd;
    fetch_settings_init(&build->fetch, engine);
    build->files_fd = -1;
    build->platform = platform;
    build->cancel.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&build->lock, NULL);
    pthread_cond_init(&build->changed, NULL);
    build_output_init(&build->output, socket_fd, build->cancel.fd, how->quiet);
    build->next = engine->builds;
    engine->builds = build;
    engine->image_calls++;
    uv_async_init(engine->loop, &build->async, on_async);
    build->async.data = build;
    return build;
}

struct engine_cancel *engine_build(struct engine *engine, const struct api_build_run *how,
                                   int socket_fd, engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    char *platform = NULL;
    int r = check(engine, how, &err);

    if (r == 0)
        r = build_platform(how->platform, &platform, &err);
    if (r < 0) {
        close_fd(socket_fd);
        done(&err, NULL, data);
        return NULL;
    }
    struct build *build = new_build(engine, how, socket_fd, platform);
    build->done = done;
    build->data = data;
    r = pthread_create(&build->thread, NULL, build_thread, build);
    if (r) {
        unlink_build(build);
        engine->image_calls--;
        error_errno(&err, r, "start a thread");
        done(&err, NULL, data);
        uv_close((uv_handle_t *)&build->async, on_closed);
        return NULL;
    }
    return &build->cancel;
}
