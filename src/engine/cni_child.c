/*
 * The child that calls plug-ins: a request in a file, its answer in another one.
 */
#include "cni_child.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>

enum {
    CALLS_MAX = 16,     /* of plug-ins for one attachment, until the child itself hangs */
    GRACE_SECONDS = 60, /* and for all the rest */
    CHILD_SECONDS_MAX = 24 * 60 * 60,
};

struct cni_call {
    struct engine *engine;
    int answer_fd;
    cni_answered done;
    void *data;
};

static void call_free(struct cni_call *call)
{
    close_fd(call->answer_fd);
    free(call);
}

static int read_answer(const struct cni_call *call, struct cni_answer **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length = 0;
    int r = lseek(call->answer_fd, 0, SEEK_SET) < 0 ? -errno : 0;

    if (r == 0)
        r = file_read_fd(call->answer_fd, CNI_ANSWER_MAX, &text, &length, err);
    if (r == 0)
        r = cni_answer_parse(text, length, "answer", ret, err);
    if (r == 0 && (*ret)->error) {
        r = (*ret)->has_code && (*ret)->code < 0 ? (*ret)->code : -EIO;
        error_set(err, r, "%s", (*ret)->error);
        if ((*ret)->hint)
            error_hint(err, "%s", (*ret)->hint);
    }
    return r;
}

static void on_ended(int status, void *data)
{
    struct cni_call *call = data;
    _cleanup_cni_answer_ struct cni_answer *answer = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r;

    call->engine->image_calls--;
    if (WIFSIGNALED(status))
        r = error_set(&err, -ETIMEDOUT, "the plug-ins of a network do not answer");
    else if (WEXITSTATUS(status))
        r = error_set(&err, -EIO, "the child that calls plug-ins failed");
    else
        r = read_answer(call, &answer, &err);
    engine_settle(&err, r);
    for (size_t i = 0; answer && i < answer->warnings_count; i++)
        log_warning("%s", answer->warnings[i]);
    call->done(err.code ? &err : NULL, answer, call->data);
    call_free(call);
}

static int request_file(const struct cni_request *request, int *ret, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_close_ int fd = memfd_create("request", MFD_CLOEXEC);

    cni_request_write(request, &text);
    int r = fd < 0 ? -errno : file_write_all(fd, text.data, text.length);
    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    if (r < 0)
        return error_errno(err, -r, "make a file in memory");
    *ret = steal_fd(&fd);
    return 0;
}

/* The next daemon has all attachments of the machine in one request. */
static unsigned child_limit_ms(const struct cni_request *request)
{
    const uint64_t attachments =
        request->attachments_count + request->remove_count + request->check_count;
    const uint64_t seconds =
        (uint64_t)request->time_limit_seconds * CALLS_MAX * attachments + GRACE_SECONDS;

    return seconds < CHILD_SECONDS_MAX ? (unsigned)seconds * 1000 : CHILD_SECONDS_MAX * 1000;
}

static int spawn(struct cni_call *call, int request_fd, int netns_fd, unsigned limit_ms,
                 struct error *err)
{
    const int fds[] = {request_fd, call->answer_fd, STDERR_FILENO, [CNI_NAMESPACE_FD] = netns_fd};
    char *const argv[] = {(char *)"cloched", (char *)CNI_OPTION, NULL};
    const struct process_spec spec = {
        .path = "/proc/self/exe",
        .argv = argv,
        .fds = fds,
        .fds_count = netns_fd >= 0 ? CNI_NAMESPACE_FD + 1 : CNI_NAMESPACE_FD,
        .directory = "/",
        .new_session = true,
    };
    struct process process;
    int r = process_spawn(&spec, &process, err);

    if (r == 0)
        r = loop_watch_child(call->engine->loop, &process, limit_ms, on_ended, call, err);
    return r;
}

char *cni_folder(const struct engine *engine)
{
    return xasprintf("%s/cni", engine->instance->root);
}

static char *conf_folder(const struct engine *engine)
{
    if (engine->cni && engine->cni->conf_folder)
        return xstrdup(engine->cni->conf_folder);
    return engine->instance->name[0] ? xasprintf("%s/cni/net.d", engine->instance->root)
                                     : xstrdup("/etc/cni/net.d");
}

int cni_run_child(struct engine *engine, struct cni_request *request, int netns_fd,
                  cni_answered done, void *data, struct error *err)
{
    static char *folders[] = {(char *)"/opt/cni/bin", (char *)"/usr/lib/cni",
                              (char *)"/usr/libexec/cni", NULL};
    const struct cni_settings *settings = engine->cni;
    struct cni_call *call = xnew(struct cni_call);
    _cleanup_free_ char *conf = conf_folder(engine);
    _cleanup_free_ char *folder = cni_folder(engine);
    _cleanup_free_ char *namespaces = xasprintf("%s/cni", engine->instance->run);
    _cleanup_close_ int request_fd = -1;
    const bool own = settings && settings->plugin_folders;

    *call = (struct cni_call){engine, memfd_create("answer", MFD_CLOEXEC), done, data};
    request->folder = folder;
    request->namespaces = namespaces;
    request->conf_folder = conf;
    request->plugin_folders = own ? settings->plugin_folders : folders;
    request->plugin_folders_count = own ? settings->plugin_folders_count : ARRAY_SIZE(folders) - 1;
    request->time_limit_seconds = settings && settings->has_time_limit_seconds
                                      ? settings->time_limit_seconds
                                      : CNI_TIME_LIMIT;
    int r = call->answer_fd < 0 ? error_errno(err, errno, "make a file in memory")
                                : request_file(request, &request_fd, err);
    if (r == 0)
        r = spawn(call, request_fd, netns_fd, child_limit_ms(request), err);
    if (r < 0) {
        call_free(call);
        return r;
    }
    engine->image_calls++;
    return 0;
}
