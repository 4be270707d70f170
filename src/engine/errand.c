#include "errand.h"

#include <pthread.h>
#include <signal.h>

#include <base/alloc.h>

struct errand {
    uv_async_t ended;
    pthread_t thread;
    uv_work_t *work;
    uv_work_cb run;
    uv_after_work_cb done;
};

static void *errand_thread(void *data)
{
    struct errand *errand = data;

    errand->run(errand->work);
    uv_async_send(&errand->ended);
    return NULL;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_ended(uv_async_t *async)
{
    struct errand *errand = async->data;

    pthread_join(errand->thread, NULL);
    uv_close((uv_handle_t *)async, on_closed);
    errand->done(errand->work, 0);
}

/* Signals are the loop's thread's. */
static int start_thread(struct errand *errand)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&errand->thread, NULL, errand_thread, errand);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

void errand_run(struct engine *engine, uv_work_t *work, uv_work_cb run, uv_after_work_cb done)
{
    struct errand *errand = xnew(struct errand);

    errand->work = work;
    errand->run = run;
    errand->done = done;
    if (uv_async_init(engine->loop, &errand->ended, on_ended) < 0) {
        free(errand);
        uv_queue_work(engine->loop, work, run, done);
        return;
    }
    errand->ended.data = errand;
    if (start_thread(errand)) {
        uv_close((uv_handle_t *)&errand->ended, on_closed);
        uv_queue_work(engine->loop, work, run, done);
    }
}
