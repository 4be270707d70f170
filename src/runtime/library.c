/* include/cloche/runtime.h over runtime/runtime.h: a handle with what every call has in common. */
#include <errno.h>
#include <stdlib.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "library_worker.h"

struct cloche_runtime {
    char *root; /* owned */
    bool direct;
    void (*warn)(void *context, const char *text);
    void *context;
    struct error error; /* of the last call */
};

int cloche_runtime_open(const struct cloche_runtime_settings *settings, struct cloche_runtime **ret)
{
    static const struct cloche_runtime_settings defaults;

    if (!settings)
        settings = &defaults;
    const char *root = settings->root ? settings->root : CLOCHE_RUNTIME_ROOT;
    if (root[0] != '/')
        return -EINVAL;
    *ret = xnew(struct cloche_runtime);
    (*ret)->root = xstrdup(root);
    (*ret)->direct = settings->direct;
    (*ret)->warn = settings->warn;
    (*ret)->context = settings->context;
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

static struct error *begin(struct cloche_runtime *runtime)
{
    error_finish(&runtime->error);
    return &runtime->error;
}

/* Takes the warnings. */
static int end(struct cloche_runtime *runtime, int result, char **warnings)
{
    for (char **item = warnings; runtime->warn && item && *item; item++) {
        if (!text_starts_with(*item, RUNTIME_DEBUG))
            runtime->warn(runtime->context, *item);
    }
    strv_free(warnings);
    return result;
}

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

static int do_work(struct cloche_runtime *runtime, library_work work, const void *options,
                   const int *stdio, int *ret_exit_code)
{
    struct error *err = begin(runtime);
    char **warnings = NULL;
    int exit_code = 0, r;

    if (!runtime->direct)
        r = library_worker_run(work, runtime->root, options, stdio, &warnings, &exit_code, err);
    else if (stdio)
        r = error_set(err, -EINVAL, "stdio: not together with `direct`");
    else
        r = work(runtime->root, options, &warnings, &exit_code, err);
    if (ret_exit_code)
        *ret_exit_code = exit_code;
    return end(runtime, r, warnings);
}

int cloche_runtime_create(struct cloche_runtime *runtime,
                          const struct cloche_runtime_create_options *options)
{
    return do_work(runtime, work_create, options, options->stdio, NULL);
}

int cloche_runtime_run(struct cloche_runtime *runtime,
                       const struct cloche_runtime_create_options *options, int *ret_exit_code)
{
    return do_work(runtime, work_run, options, options->stdio, ret_exit_code);
}

int cloche_runtime_exec(struct cloche_runtime *runtime,
                        const struct cloche_runtime_exec_options *options, int *ret_exit_code)
{
    return do_work(runtime, work_exec, options, options->stdio, ret_exit_code);
}

int cloche_runtime_start(struct cloche_runtime *runtime, const char *id)
{
    char **warnings = NULL;
    int r = runtime_start(runtime->root, id, NULL, &warnings, begin(runtime));

    return end(runtime, r, warnings);
}

int cloche_runtime_delete(struct cloche_runtime *runtime, const char *id, bool force)
{
    char **warnings = NULL;
    int r = runtime_delete(runtime->root, id, force, &warnings, begin(runtime));

    return end(runtime, r, warnings);
}

int cloche_runtime_kill(struct cloche_runtime *runtime, const char *id, int signal, bool all)
{
    return runtime_kill(runtime->root, id, signal, all, begin(runtime));
}

static int work_update(const char *root, const void *options, char ***warnings _unused_,
                       int *ret_exit_code, struct error *err)
{
    *ret_exit_code = 0;
    return runtime_update(root, options, err);
}

int cloche_runtime_update(struct cloche_runtime *runtime,
                          const struct cloche_runtime_update_options *options)
{
    return do_work(runtime, work_update, options, NULL, NULL);
}

int cloche_runtime_pause(struct cloche_runtime *runtime, const char *id)
{
    return runtime_pause(runtime->root, id, begin(runtime));
}

int cloche_runtime_resume(struct cloche_runtime *runtime, const char *id)
{
    return runtime_resume(runtime->root, id, begin(runtime));
}

int cloche_runtime_state(struct cloche_runtime *runtime, const char *id,
                         struct cloche_runtime_info *ret)
{
    return runtime_info(runtime->root, id, ret, begin(runtime));
}

void cloche_runtime_info_finish(struct cloche_runtime_info *info)
{
    runtime_info_finish(info);
}

int cloche_runtime_list(struct cloche_runtime *runtime, char ***ret)
{
    return runtime_list(runtime->root, ret, begin(runtime));
}

void cloche_runtime_list_free(char **list)
{
    strv_free(list);
}

int cloche_runtime_processes(struct cloche_runtime *runtime, const char *id, pid_t **ret,
                             size_t *ret_count)
{
    return runtime_processes(runtime->root, id, ret, ret_count, begin(runtime));
}

char *cloche_runtime_features(void)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    runtime_features_write(&text);
    return buffer_steal(&text);
}
