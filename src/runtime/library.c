/* include/cloche/runtime.h over runtime/runtime.h: a handle with what every call has in common. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "library_options.h"
#include "library_root.h"
#include "library_worker.h"

enum { EVENTS_INTERVAL_MS = 5000 };

struct cloche_runtime {
    char *root; /* owned; NULL: the default, which is found with the first call */
    struct cloche_runtime_settings settings;
    struct error error; /* of the last call */
};

int cloche_runtime_open(const struct cloche_runtime_settings *settings, struct cloche_runtime **ret)
{
    struct cloche_runtime_settings known;
    int r = library_take(&known, sizeof(known), settings, "settings", NULL);

    if (r < 0)
        return r;
    if ((known.root && known.root[0] != '/') ||
        (unsigned)known.rootless > CLOCHE_RUNTIME_ROOTLESS_YES)
        return -EINVAL;
    *ret = xnew(struct cloche_runtime);
    (*ret)->root = xstrdup(known.root);
    (*ret)->settings = known;
    (*ret)->settings.root = NULL; /* borrowed for the call */
    return 0;
}

void cloche_runtime_close(struct cloche_runtime *runtime)
{
    if (!runtime)
        return;
    error_finish(&runtime->error);
    free(runtime->root);
    free(runtime);
}

const char *cloche_runtime_error(const struct cloche_runtime *runtime)
{
    return error_message(&runtime->error);
}

const char *cloche_runtime_hint(const struct cloche_runtime *runtime)
{
    return runtime->error.hint;
}

/* What every call begins with. */
static int begin(struct cloche_runtime *runtime)
{
    error_finish(&runtime->error);
    runtime_assume_rootless(runtime->settings.rootless);
    return runtime->root ? 0 : library_root_default(&runtime->root, &runtime->error);
}

/* Takes the warnings. */
static int end(struct cloche_runtime *runtime, int result, char **warnings)
{
    const struct cloche_runtime_settings *settings = &runtime->settings;

    for (char **item = warnings; settings->log && item && *item; item++) {
        bool debug = text_starts_with(*item, RUNTIME_DEBUG);
        settings->log(settings->context, debug ? CLOCHE_RUNTIME_DEBUG : CLOCHE_RUNTIME_WARNING,
                      debug ? *item + strlen(RUNTIME_DEBUG) : *item);
    }
    strv_free(warnings);
    return result;
}

static int check_flags(struct cloche_runtime *runtime, unsigned flags, unsigned known)
{
    return flags & ~known
               ? error_set(&runtime->error, -EINVAL, "flags: 0x%x is not known", flags & ~known)
               : 0;
}

/* ---- what is done in a fork of the caller ---------------------------------------------------- */

static int work_create(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                       struct error *err)
{
    *ret_exit_code = 0;
    return runtime_create(root, options, warnings, err);
}

static int work_run(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                    struct error *err)
{
    return runtime_run(root, options, warnings, ret_exit_code, err);
}

static int work_exec(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                     struct error *err)
{
    return runtime_exec(root, options, warnings, ret_exit_code, err);
}

static int work_update(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                       struct error *err)
{
    *ret_exit_code = 0;
    return runtime_update(root, options, warnings, err);
}

static int work_checkpoint(const char *root, const void *options, char ***warnings,
                           int *ret_exit_code, struct error *err)
{
    *ret_exit_code = 0;
    return runtime_checkpoint(root, options, warnings, err);
}

static int work_restore(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                        struct error *err)
{
    return runtime_restore(root, options, warnings, ret_exit_code, err);
}

struct start_request {
    const char *id, *notify_socket;
};

static int work_start(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                      struct error *err)
{
    const struct start_request *request = options;

    *ret_exit_code = 0;
    return runtime_start(root, request->id, request->notify_socket, warnings, err);
}

struct delete_request {
    const char *id;
    bool force;
};

static int work_delete(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                       struct error *err)
{
    const struct delete_request *request = options;

    *ret_exit_code = 0;
    return runtime_delete(root, request->id, request->force, warnings, err);
}

static int do_work(struct cloche_runtime *runtime, library_work work, const void *options,
                   const int *stdio, int *ret_exit_code)
{
    struct error *err = &runtime->error;
    char **warnings = NULL;
    int exit_code = 0, r;

    if (!runtime->settings.direct)
        r = library_worker_run(work, runtime->root, options, stdio, &warnings, &exit_code, err);
    else if (stdio)
        r = error_set(err, -EINVAL, "stdio: not together with `direct`");
    else
        r = work(runtime->root, options, &warnings, &exit_code, err);
    if (r >= 0 && ret_exit_code)
        *ret_exit_code = exit_code;
    return end(runtime, r, warnings);
}

int cloche_runtime_create(struct cloche_runtime *runtime,
                          const struct cloche_runtime_create_options *options)
{
    struct cloche_runtime_create_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "create", &runtime->error);
    return r < 0 ? r : do_work(runtime, work_create, &known, known.stdio, NULL);
}

int cloche_runtime_run(struct cloche_runtime *runtime,
                       const struct cloche_runtime_create_options *options, int *ret_exit_code)
{
    struct cloche_runtime_create_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "create", &runtime->error);
    return r < 0 ? r : do_work(runtime, work_run, &known, known.stdio, ret_exit_code);
}

int cloche_runtime_exec(struct cloche_runtime *runtime,
                        const struct cloche_runtime_exec_options *options, int *ret_exit_code)
{
    struct cloche_runtime_exec_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "exec", &runtime->error);
    return r < 0 ? r : do_work(runtime, work_exec, &known, known.stdio, ret_exit_code);
}

int cloche_runtime_update(struct cloche_runtime *runtime,
                          const struct cloche_runtime_update_options *options)
{
    struct cloche_runtime_update_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "update", &runtime->error);
    return r < 0 ? r : do_work(runtime, work_update, &known, NULL, NULL);
}

int cloche_runtime_checkpoint(struct cloche_runtime *runtime,
                              const struct cloche_runtime_criu_options *options)
{
    struct cloche_runtime_criu_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "criu", &runtime->error);
    return r < 0 ? r : do_work(runtime, work_checkpoint, &known, NULL, NULL);
}

int cloche_runtime_restore(struct cloche_runtime *runtime,
                           const struct cloche_runtime_criu_options *options, int *ret_exit_code)
{
    struct cloche_runtime_criu_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "criu", &runtime->error);
    return r < 0 ? r : do_work(runtime, work_restore, &known, known.stdio, ret_exit_code);
}

/* start and delete run hooks, whose ends a program that takes those of all its children would take
 * from us. */
int cloche_runtime_start(struct cloche_runtime *runtime, const char *id,
                         const struct cloche_runtime_start_options *options)
{
    struct cloche_runtime_start_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "start", &runtime->error);
    if (r < 0)
        return r;
    const struct start_request request = {.id = id, .notify_socket = known.notify_socket};
    return do_work(runtime, work_start, &request, NULL, NULL);
}

int cloche_runtime_delete(struct cloche_runtime *runtime, const char *id, unsigned flags)
{
    const struct delete_request request = {.id = id, .force = flags & CLOCHE_RUNTIME_DELETE_FORCE};
    int r = begin(runtime);

    if (r == 0)
        r = check_flags(runtime, flags, CLOCHE_RUNTIME_DELETE_FORCE);
    return r < 0 ? r : do_work(runtime, work_delete, &request, NULL, NULL);
}

struct mounts_request {
    const char *id, *mounts;
    int (*work)(const char *root, const char *id, const char *mounts, char ***warnings,
                struct error *err);
};

static int work_mounts(const char *root, const void *options, char ***warnings, int *ret_exit_code,
                       struct error *err)
{
    const struct mounts_request *request = options;

    *ret_exit_code = 0;
    return request->work(root, request->id, request->mounts, warnings, err);
}

int cloche_runtime_add_mounts(struct cloche_runtime *runtime, const char *id, const char *mounts)
{
    const struct mounts_request request = {id, mounts, runtime_add_mounts};
    int r = begin(runtime);

    return r < 0 ? r : do_work(runtime, work_mounts, &request, NULL, NULL);
}

int cloche_runtime_remove_mounts(struct cloche_runtime *runtime, const char *id, const char *mounts)
{
    const struct mounts_request request = {id, mounts, runtime_remove_mounts};
    int r = begin(runtime);

    return r < 0 ? r : do_work(runtime, work_mounts, &request, NULL, NULL);
}

/* ---- what any thread may do ------------------------------------------------------------------ */

int cloche_runtime_kill(struct cloche_runtime *runtime, const char *id, int signal, unsigned flags)
{
    int r = begin(runtime);

    if (r == 0)
        r = check_flags(runtime, flags, CLOCHE_RUNTIME_KILL_ALL);
    return r < 0 ? r
                 : runtime_kill(runtime->root, id, signal, flags & CLOCHE_RUNTIME_KILL_ALL,
                                &runtime->error);
}

int cloche_runtime_pause(struct cloche_runtime *runtime, const char *id)
{
    int r = begin(runtime);

    return r < 0 ? r : runtime_pause(runtime->root, id, &runtime->error);
}

int cloche_runtime_resume(struct cloche_runtime *runtime, const char *id)
{
    int r = begin(runtime);

    return r < 0 ? r : runtime_resume(runtime->root, id, &runtime->error);
}

int cloche_runtime_state(struct cloche_runtime *runtime, const char *id,
                         struct cloche_runtime_info **ret)
{
    int r = begin(runtime);

    return r < 0 ? r : runtime_info(runtime->root, id, ret, &runtime->error);
}

int cloche_runtime_pidfd(struct cloche_runtime *runtime, const char *id)
{
    int r = begin(runtime);

    return r < 0 ? r : runtime_pidfd(runtime->root, id, &runtime->error);
}

int cloche_runtime_list(struct cloche_runtime *runtime, char ***ret)
{
    int r = begin(runtime);

    return r < 0 ? r : runtime_list(runtime->root, ret, &runtime->error);
}

void cloche_runtime_list_free(char **list)
{
    strv_free(list);
}

int cloche_runtime_processes(struct cloche_runtime *runtime, const char *id, pid_t **ret,
                             size_t *ret_count)
{
    int r = begin(runtime);

    return r < 0 ? r : runtime_processes(runtime->root, id, ret, ret_count, &runtime->error);
}

static int keep_text(void *context, const char *text)
{
    *(char **)context = xstrdup(text);
    return 0;
}

int cloche_runtime_statistics(struct cloche_runtime *runtime, const char *id, char **ret)
{
    const struct runtime_watch once = {.sink = keep_text, .context = ret, .stop_fd = -1};
    int r = begin(runtime);

    return r < 0 ? r : runtime_events(runtime->root, id, &once, &runtime->error);
}

int cloche_runtime_events(struct cloche_runtime *runtime, const char *id,
                          const struct cloche_runtime_events_options *options)
{
    struct cloche_runtime_events_options known;
    int r = begin(runtime);

    if (r == 0)
        r = library_take(&known, sizeof(known), options, "events", &runtime->error);
    if (r == 0 && !known.event)
        r = error_set(&runtime->error, -EINVAL, "event: is not given");
    if (r < 0)
        return r;
    const struct runtime_watch watch = {
        .interval_ms = known.interval_ms ? known.interval_ms : EVENTS_INTERVAL_MS,
        .sink = known.event,
        .context = known.context,
        .stop_fd = known.stop_fd ? *known.stop_fd : -1,
    };
    return runtime_events(runtime->root, id, &watch, &runtime->error);
}

/* ---- without a handle ------------------------------------------------------------------------ */

char *cloche_runtime_info_json(const struct cloche_runtime_info *info, bool indented)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    runtime_info_write(info, indented ? JSON_NARROW : JSON_COMPACT, &text);
    return buffer_steal(&text);
}

char *cloche_runtime_spec(unsigned flags)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (flags & ~CLOCHE_RUNTIME_SPEC_ROOTLESS)
        return NULL;
    runtime_spec_write(flags & CLOCHE_RUNTIME_SPEC_ROOTLESS, &text);
    return buffer_steal(&text);
}

char *cloche_runtime_features(void)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    runtime_features_write(&text);
    return buffer_steal(&text);
}

const char *cloche_runtime_version(void)
{
    return CLOCHE_VERSION;
}

const char *cloche_runtime_spec_version(void)
{
    return RUNTIME_SPEC_VERSION;
}
