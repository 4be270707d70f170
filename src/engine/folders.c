#include "folders.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/loop.h>
#include <base/text.h>

enum { FOLDERS_TIMEOUT_MS = 10000, COMPLAINT_MAX = 4096 };

struct folders_call {
    int complaint_fd; /* what the child says when it fails */
    folders_done done;
    void *data;
};

static void on_ended(int status, void *data)
{
    struct folders_call *call = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    char text[COMPLAINT_MAX + 1];

    if (WIFSIGNALED(status)) {
        error_set(&err, -ETIMEDOUT, "a folder to bind does not answer within %d s",
                  FOLDERS_TIMEOUT_MS / 1000);
    } else if (WEXITSTATUS(status)) {
        ssize_t length = pread(call->complaint_fd, text, COMPLAINT_MAX, 0);
        error_set(&err, -EIO, "%.*s", length > 0 ? (int)length : 0, text);
    }
    call->done(err.code ? &err : NULL, call->data);
    close_fd(call->complaint_fd);
    free(call);
}

static char **arguments_for(const struct container *container)
{
    const struct api_container_spec *spec = container->effective;
    char **argv = NULL;

    strv_append(&argv, "cloched");
    strv_append(&argv, "--make-folders");
    for (size_t i = 0; i < spec->binds_count; i++)
        strv_append(&argv, spec->binds[i]->source);
    return argv;
}

int folders_make(struct container *container, folders_done done, void *data, struct error *err)
{
    _cleanup_strv_ char **argv = arguments_for(container);
    _cleanup_close_ int complaint_fd = memfd_create("complaint", MFD_CLOEXEC);
    const int fds[] = {-1, -1, complaint_fd};
    struct process_spec spec = {
        .path = "/proc/self/exe",
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
    };
    struct process process;

    int r = process_spawn(&spec, &process, err);
    if (r < 0)
        return r;
    struct folders_call *call = xnew(struct folders_call);
    *call = (struct folders_call){steal_fd(&complaint_fd), done, data};
    return loop_watch_child(container->engine->loop, &process, FOLDERS_TIMEOUT_MS, on_ended, call,
                            err);
}
