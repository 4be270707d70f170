/*
 * RUN: a container of the engine, whose output is read here and passed on, and whose upper folder
 * becomes a layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "build.h"

enum { FRAME_HEADER = 8, FRAME_STDERR = 2 };

/* --- what the loop does ----------------------------------------------------------------------- */

struct container_call {
    struct build_call call;
    const char *id;
    const struct api_container_spec *spec;
    char *created; /* owned */
    int fd;        /* of the stream */
    int exit_code;
};

static void on_done(const struct engine_result *result, void *data)
{
    struct container_call *call = data;

    if (!result->err) {
        call->created = xstrdup(result->id);
        call->fd = result->fd;
        call->exit_code = result->exit_code;
    }
    build_call_end(&call->call, result->err);
}

static void begin_create(struct build_call *base)
{
    struct container_call *call = (struct container_call *)base;

    container_create(base->build->engine, call->spec, true, on_done, call);
}

static struct container *find(struct container_call *call)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct container *container = NULL;

    if (engine_find(call->call.build->engine, call->id, &container, &err) == 0)
        return container;
    build_call_end(&call->call, &err);
    return NULL;
}

static void begin_attach(struct build_call *base)
{
    const struct api_container_attach how = {
        .stdout_ = true, .has_stdout = true, .stderr_ = true, .has_stderr = true};
    struct container *container = find((struct container_call *)base);

    if (container)
        engine_container_attach(container, &how, on_done, base);
}

static void begin_start(struct build_call *base)
{
    struct container *container = find((struct container_call *)base);

    if (container)
        engine_container_start(container, on_done, base);
}

static void begin_wait(struct build_call *base)
{
    struct container *container = find((struct container_call *)base);

    if (container)
        engine_container_wait(container, "not-running", on_done, base);
}

static void begin_remove(struct build_call *base)
{
    struct container *container = find((struct container_call *)base);

    if (container)
        engine_container_remove(container, true, true, on_done, base);
}

/* It is the user's from now on. */
static void begin_keep(struct build_call *base)
{
    struct container *container = find((struct container_call *)base);

    if (!container)
        return;
    container->record->build_step = container->record->has_build_step = false;
    container_commit_record(container);
    build_call_end(base, NULL);
}

/* Returns what the call said; *call keeps the rest. */
static int ask(struct build_work *work, struct container_call *call,
               void (*begin)(struct build_call *call), struct error *err)
{
    call->call = (struct build_call){.begin = begin};
    call->id = work->container;
    call->fd = -1;
    int r = build_call_run(work->build, &call->call);
    if (r < 0)
        error_move(err, &call->call.err);
    error_finish(&call->call.err);
    return r;
}

void build_run_remove(struct build_work *work, bool failed)
{
    struct build *build = work->build;
    struct container_call call = {.fd = -1};

    if (!work->container)
        return;
    bool keep = failed && !build_cancelled(build) ? !build->how->remove_failed
                                                  : !failed && build->how->keep_containers;
    if (keep)
        ask(work, &call, begin_keep, NULL);
    else if (ask(work, &call, begin_remove, NULL) == 0)
        build_say(&build->output, work->index, "Removing intermediate container %.12s\n",
                  work->container);
    free(call.created);
    free(steal_ptr(work->container));
}

/* --- the specification ------------------------------------------------------------------------ */

static void take_list(char ***list, size_t *count, char *const *from)
{
    for (size_t i = 0; from && from[i]; i++) {
        strv_append(list, from[i]);
        (*count)++;
    }
}

static struct api_resources *copy_resources(const struct api_resources *resources)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_resources *copy = NULL;

    if (!resources)
        return NULL;
    api_resources_write(resources, &text);
    return api_resources_parse(text.data, text.length, NULL, &copy, NULL) == 0 ? copy : NULL;
}

/* A script of its own (a heredoc that begins with #!) is a file that is bound where the command
 * looks for it. */
static int bind_script(struct build_work *work, const struct build_file *script,
                       struct api_container_spec *spec, struct error *err)
{
    struct build *build = work->build;
    _cleanup_free_ char *name = xasprintf("script-%zu", work->index);
    int staging = store_staging_fd(build->staging);
    char folder[4096];

    int r = file_replace_at(staging, name, script->content, strlen(script->content), 0755, err);
    if (r < 0)
        return r;
    _cleanup_free_ char *link = xasprintf("/proc/self/fd/%d", staging);
    ssize_t n = readlink(link, folder, sizeof(folder) - 1);
    if (n < 0)
        return error_errno(err, errno, "find the staging folder");
    folder[n] = '\0';
    struct api_bind *bind = xnew(struct api_bind);
    bind->source = xasprintf("%s/%s", folder, name);
    bind->target = xasprintf("/dev/pipes/%s", script->name);
    strv_append(&bind->options, "ro");
    bind->options_count = 1;
    spec->binds = xnew_array(struct api_bind *, 2);
    spec->binds[0] = bind;
    spec->binds_count = 1;
    return 0;
}

static struct api_container_spec *make_spec(struct build_work *work, const struct build_step *step)
{
    const struct api_build_run *how = work->build->how;
    const struct build_run *run = step->run;
    struct api_container_spec *spec = xnew(struct api_container_spec);
    const char *network = run->network ? run->network : how->network_mode;

    spec->image = xstrdup(work->image_id);
    spec->entrypoint = xnew_array(char *, 1);
    take_list(&spec->command, &spec->command_count, run->arguments);
    take_list(&spec->env, &spec->env_count, run->env);
    take_list(&spec->env, &spec->env_count, run->hidden);
    spec->network_mode = text_empty(network) ? NULL : xstrdup(network);
    spec->resources = copy_resources(how->resources);
    spec->cgroup_parent = xstrdup(how->cgroup_parent);
    spec->shm_size = how->shm_size;
    spec->has_shm_size = how->has_shm_size && how->shm_size;
    take_list(&spec->extra_hosts, &spec->extra_hosts_count, how->extra_hosts);
    take_list(&spec->security_opt, &spec->security_opt_count, how->security_opt);
    for (size_t i = 0; i < how->ulimits_count; i++) {
        struct api_ulimit *limit = xnew(struct api_ulimit);
        *limit = *how->ulimits[i];
        limit->name = xstrdup(how->ulimits[i]->name);
        spec->ulimits = xrealloc(spec->ulimits, spec->ulimits_count + 1, sizeof(limit));
        spec->ulimits[spec->ulimits_count++] = limit;
    }
    return spec;
}

/* --- output ----------------------------------------------------------------------------------- */

/* The stream is docker's: a header of 8 bytes with its number and length in front of each piece. */
struct frames {
    struct buffer input;
    struct build_work *work;
};

/* A character that is not whole yet stays for the next piece. */
static size_t whole_characters(const char *text, size_t length)
{
    size_t end = length;

    for (unsigned back = 0; back < 3 && end; back++) {
        unsigned char c = (unsigned char)text[--end];
        if (c < 0x80)
            return length;
        if (c >= 0xc0) {
            size_t wanted = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
            return length - end < wanted ? end : length;
        }
    }
    return length;
}

static void say_piece(struct frames *frames, const char *text, size_t length, bool red)
{
    struct build_work *work = frames->work;
    struct build_output *output = &work->build->output;

    for (size_t at = 0; at < length;) {
        size_t size = length - at < BUILD_TEXT_MAX ? length - at : BUILD_TEXT_MAX;
        size_t whole = length - at > size ? whole_characters(text + at, size) : size;
        size = whole ? whole : size;
        /* docker shows what comes on standard error in red. */
        if (red)
            build_say(output, work->index, "\033[91m%.*s\033[0m", (int)size, text + at);
        else
            build_say_text(output, work->index, text + at, size);
        at += size;
    }
}

static void take_frames(struct frames *frames)
{
    for (;;) {
        const unsigned char *header = (const unsigned char *)frames->input.data;
        if (frames->input.length < FRAME_HEADER)
            return;
        size_t length = (size_t)header[4] << 24 | (size_t)header[5] << 16 | (size_t)header[6] << 8 |
                        (size_t)header[7];
        if (frames->input.length < FRAME_HEADER + length)
            return;
        say_piece(frames, frames->input.data + FRAME_HEADER, length, header[0] == FRAME_STDERR);
        buffer_consume(&frames->input, FRAME_HEADER + length);
    }
}

/* Until the container's end. */
static int read_output(struct build_work *work, int fd, struct error *err)
{
    struct frames frames = {.work = work};
    int r = 0;

    for (;;) {
        struct pollfd fds[2] = {{fd, POLLIN, 0}, {work->build->cancel.fd, POLLIN, 0}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            r = error_errno(err, errno, "wait for a container's output");
        if (r == 0 && fds[1].revents)
            r = error_set(err, -ECANCELED, "cancelled");
        if (r < 0)
            break;
        buffer_reserve(&frames.input, BUILD_TEXT_MAX);
        ssize_t n = read(fd, frames.input.data + frames.input.length, BUILD_TEXT_MAX - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        frames.input.length += (size_t)n;
        take_frames(&frames);
    }
    buffer_finish(&frames.input);
    return r;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int create(struct build_work *work, const struct build_step *step, struct error *err)
{
    struct api_container_spec *spec = make_spec(work, step);
    struct container_call call = {.spec = spec};
    int r = step->run->script ? bind_script(work, step->run->script, spec, err) : 0;

    if (r == 0)
        r = ask(work, &call, begin_create, err);
    if (r == 0)
        work->container = steal_ptr(call.created);
    free(call.created);
    api_container_spec_free(spec);
    return r;
}

static int run_container(struct build_work *work, int *ret_code, struct error *err)
{
    struct container_call call = {0};
    int r = ask(work, &call, begin_attach, err);
    _cleanup_close_ int stream = r == 0 ? call.fd : -1;

    free(steal_ptr(call.created));
    if (r == 0)
        r = ask(work, &call, begin_start, err);
    free(steal_ptr(call.created));
    if (r == 0)
        r = read_output(work, stream, err);
    if (r == 0)
        r = ask(work, &call, begin_wait, err);
    free(steal_ptr(call.created));
    *ret_code = call.exit_code;
    return r;
}

static int take_layer(struct build_work *work, struct build_layer *ret, struct error *err)
{
    struct engine *engine = work->build->engine;
    struct image_worker_commit what = {.step = true, .has_step = true};
    struct image_worker_request request = {.commit = &what};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct build_layer layer = {0};
    int r = store_snapshot_open_upper(engine->store, work->container, &spec.upper_fd, err);

    if (r == 0)
        r = store_staging_create(engine->store, &layer.staging, err);
    if (r == 0) {
        spec.program = engine->image_program;
        spec.request = &request;
        spec.staging_fd = store_staging_fd(layer.staging);
        r = image_worker_run(&spec, NULL, NULL, work->build->cancel.fd, &layer.result, err);
    }
    close_fd(spec.upper_fd);
    if (r < 0)
        build_layer_finish(&layer);
    else
        *ret = layer;
    return r;
}

int build_run(struct build_work *work, const struct build_step *step, struct build_layer *ret,
              struct error *err)
{
    int code = 0;
    int r = create(work, step, err);

    if (r < 0)
        return r;
    build_say(&work->build->output, work->index, " ---> Running in %.12s\n", work->container);
    r = run_container(work, &code, err);
    if (r == 0 && code != 0) {
        _cleanup_free_ char *command = strv_join(step->run->arguments, " ");
        pthread_mutex_lock(&work->build->lock);
        work->build->exit_code = work->build->exit_code ? work->build->exit_code : code;
        pthread_mutex_unlock(&work->build->lock);
        return error_set(err, -EIO, "The command '%s' returned a non-zero code: %d", command, code);
    }
    return r < 0 ? r : take_layer(work, ret, err);
}
