#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include <base/alloc.h>

#include "disk.h"

struct job_queue {
    struct disk_job *first;
    struct disk_job **end;
};

struct disk {
    uv_async_t finished_event;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct job_queue waiting;  /* under mutex */
    struct job_queue finished; /* under mutex */
    bool stopping;             /* under mutex */
};

static void queue_init(struct job_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void queue_put(struct job_queue *queue, struct disk_job *job)
{
    job->next = NULL;
    *queue->end = job;
    queue->end = &job->next;
}

static struct disk_job *queue_take(struct job_queue *queue)
{
    struct disk_job *job = queue->first;

    if (job) {
        queue->first = job->next;
        if (!queue->first)
            queue->end = &queue->first;
    }
    return job;
}

static void *disk_thread(void *data)
{
    struct disk *disk = data;

    pthread_mutex_lock(&disk->mutex);
    for (;;) {
        struct disk_job *job = queue_take(&disk->waiting);
        if (job) {
            pthread_mutex_unlock(&disk->mutex);
            job->work(job);
            pthread_mutex_lock(&disk->mutex);
            queue_put(&disk->finished, job);
            uv_async_send(&disk->finished_event);
        } else if (disk->stopping) {
            break;
        } else {
            pthread_cond_wait(&disk->wake, &disk->mutex);
        }
    }
    pthread_mutex_unlock(&disk->mutex);
    return NULL;
}

static void deliver(struct disk *disk)
{
    for (;;) {
        pthread_mutex_lock(&disk->mutex);
        struct disk_job *job = queue_take(&disk->finished);
        pthread_mutex_unlock(&disk->mutex);
        if (!job)
            return;
        job->done(job);
    }
}

static void on_finished(uv_async_t *event)
{
    deliver(event->data);
}

static void on_closed(uv_handle_t *handle)
{
    struct disk *disk = handle->data;

    pthread_cond_destroy(&disk->wake);
    pthread_mutex_destroy(&disk->mutex);
    free(disk);
}

/* Signals are the loop's thread's. */
static int start_thread(struct disk *disk)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&disk->thread, NULL, disk_thread, disk);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

int disk_create(uv_loop_t *loop, struct disk **ret, struct error *err)
{
    struct disk *disk = xnew(struct disk);

    queue_init(&disk->waiting);
    queue_init(&disk->finished);
    pthread_mutex_init(&disk->mutex, NULL);
    pthread_cond_init(&disk->wake, NULL);
    int r = uv_async_init(loop, &disk->finished_event, on_finished);
    if (r < 0) {
        free(disk);
        return error_errno(err, -r, "start the disk thread");
    }
    disk->finished_event.data = disk;
    r = start_thread(disk);
    if (r) {
        uv_close((uv_handle_t *)&disk->finished_event, on_closed);
        return error_errno(err, r, "start the disk thread");
    }
    *ret = disk;
    return 0;
}

void disk_submit(struct disk *disk, struct disk_job *job)
{
    if (!disk)
        return;
    pthread_mutex_lock(&disk->mutex);
    queue_put(&disk->waiting, job);
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->mutex);
}

void disk_destroy(struct disk *disk)
{
    if (!disk)
        return;
    pthread_mutex_lock(&disk->mutex);
    disk->stopping = true;
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->mutex);
    pthread_join(disk->thread, NULL);
    deliver(disk);
    uv_close((uv_handle_t *)&disk->finished_event, on_closed);
}
