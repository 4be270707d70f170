/* Requests: each on a thread of its own, as it may wait for a medium. */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>

#include <base/alloc.h>

#include "server.h"

static int job_status(struct job *job, struct usb_stick_result *result, struct error *err)
{
    (void)err;
    result->status = xnew(struct usb_stick_status);
    status_fill(job->server, result->status);
    return 0;
}

/* Only who has asked may. */
static int job_cancel(struct job *job, struct usb_stick_result *result, struct error *err)
{
    uint64_t id = job->request->cancel->request;
    struct server *server = job->server;
    (void)result;
    pthread_mutex_lock(&server->lock);
    struct job *meant = server->cancellable;
    while (meant && (meant->connection != job->connection || meant->request->id != id))
        meant = meant->next;
    if (meant)
        meant->is_cancelled = true;
    pthread_mutex_unlock(&server->lock);
    return meant ? 0
                 : error_set(err, -ENOENT, "no request %llu is under way that can be cancelled",
                             (unsigned long long)id);
}

void jobs_cancel(struct server *server)
{
    for (struct job *job = server->cancellable; job; job = job->next)
        job->is_cancelled = true;
}

struct kind {
    size_t member; /* of the request */
    int (*run)(struct job *job, struct usb_stick_result *result, struct error *err);
    size_t fds;
    bool is_quick;      /* never waits, and needs no thread */
    bool is_background; /* takes long, and time from nobody who has a deadline; can be cancelled */
};

#define MEMBER(name) offsetof(struct usb_stick_request, name)

static const struct kind kinds[] = {
    {MEMBER(status), job_status, 0, true, false}, {MEMBER(stats), job_stats, 0, false, false},
    {MEMBER(mount), job_mount, 1, false, false},  {MEMBER(unmount), job_unmount, 0, false, false},
    {MEMBER(sync), job_sync, 0, false, false},    {MEMBER(eject), job_eject, 0, false, false},
    {MEMBER(format), job_format, 0, false, true}, {MEMBER(check), job_check, 0, false, true},
    {MEMBER(block), job_block, 1, false, false},  {MEMBER(unblock), job_unblock, 0, false, false},
    {MEMBER(cancel), job_cancel, 0, true, false}, {MEMBER(end), job_end, 0, false, false},
};

/* NULL: none, or several. */
static const struct kind *kind_of(const struct usb_stick_request *request)
{
    const struct kind *found = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!*(void *const *)((const char *)request + kinds[i].member))
            continue;
        if (found)
            return NULL;
        found = &kinds[i];
    }
    return found;
}

static void job_free(struct job *job)
{
    for (size_t i = 0; i < job->fds_count; i++)
        close_fd(job->fds[i]);
    usb_stick_request_free(job->request);
    free(job);
}

/* From before its answer on: whoever has that finds nothing to cancel. */
static void cancel_no_more(struct job *job)
{
    struct server *server = job->server;
    pthread_mutex_lock(&server->lock);
    for (struct job **at = &server->cancellable; *at; at = &(*at)->next) {
        if (*at != job)
            continue;
        *at = job->next;
        break;
    }
    pthread_mutex_unlock(&server->lock);
}

static void run(struct job *job)
{
    struct usb_stick_result *result = xnew(struct usb_stick_result);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = kind_of(job->request)->run(job, result, &err);
    cancel_no_more(job);
    if (r == 0)
        control_answer(job->server, job->connection, job->request->id, result);
    else
        control_refuse(job->server, job->connection, job->request->id, &err);
    usb_stick_result_free(result);
}

/* It is under way no more. */
static void forget(struct job *job)
{
    struct server *server = job->server;
    pthread_mutex_lock(&server->lock);
    server->jobs--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void *work(void *data)
{
    struct job *job = data;
    struct server *server = job->server;
    const struct sched_param none = {0};
    if (kind_of(job->request)->is_background && server->options->real_time)
        sched_setscheduler(0, SCHED_OTHER, &none);
    bool ends = job->request->end;
    run(job);
    if (ends)
        control_finish(server, SERVER_ENDED);
    forget(job);
    job_free(job);
    return NULL;
}

int thread_start(void *(*function)(void *data), void *data, pthread_t *ret_thread,
                 struct error *err)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    if (!ret_thread)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int r = pthread_create(&thread, &attributes, function, data);
    pthread_attr_destroy(&attributes);
    if (r != 0)
        return error_errno(err, r, "start a thread");
    if (ret_thread)
        *ret_thread = thread;
    return 0;
}

static int check(const struct job *job, const struct kind *kind, struct error *err)
{
    if (!kind)
        return error_set(err, -EINVAL, "the request must ask for exactly one thing");
    if (job->fds_count != kind->fds)
        return error_set(err, -EINVAL, "the request comes with %zu descriptors, it takes %zu",
                         job->fds_count, kind->fds);
    return 0;
}

static int start(struct job *job, struct error *err)
{
    struct server *server = job->server;
    pthread_mutex_lock(&server->lock);
    bool ending = server->is_ending, full = server->jobs >= JOBS_MAX;
    if (!ending && !full)
        server->jobs++;
    if (!ending && !full && kind_of(job->request)->is_background) {
        job->next = server->cancellable;
        server->cancellable = job;
    }
    pthread_mutex_unlock(&server->lock);
    if (ending)
        return error_set(err, -ESHUTDOWN, "the stick is being let go of");
    if (full)
        return error_set(err, -EAGAIN, "%d requests are under way, no more fit in", JOBS_MAX);
    int r = thread_start(work, job, NULL, err);
    if (r != 0) {
        cancel_no_more(job);
        forget(job);
    }
    return r;
}

void job_begin(struct server *server, uint64_t connection, struct usb_stick_request *request,
               const int *fds, size_t fds_count)
{
    struct job *job = xnew(struct job);
    const struct kind *kind = kind_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    job->server = server;
    job->connection = connection;
    job->request = request;
    job->fds_count = fds_count;
    memcpy(job->fds, fds, fds_count * sizeof(fds[0]));
    int r = check(job, kind, &err);
    if (r == 0 && kind->is_quick) {
        run(job);
        job_free(job);
        return;
    }
    if (r == 0)
        r = start(job, &err);
    if (r != 0) {
        control_refuse(server, connection, request->id, &err);
        job_free(job);
    }
}
