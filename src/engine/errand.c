#include "errand.h"

#include <pthread.h>
#include <signal.h>

#include <base/alloc.h>

struct errand {
    struct errand *next; /* while it waits */
    struct engine *engine;
    uv_async_t ended;
    pthread_t thread;
    uv_work_t *work;
    uv_work_cb run;
    uv_after_work_cb done;
};

static void begin(struct errand *errand);

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

static void begin_next(struct engine *engine)
{
    struct errand *errand = engine->errands.first;

    if (!errand)
        return;
    engine->errands.first = errand->next;
    begin(errand);
}

static void on_ended(uv_async_t *async)
{
    struct errand *errand = async->data;
    struct engine *engine = errand->engine;

    pthread_join(errand->thread, NULL);
    uv_close((uv_handle_t *)async, on_closed);
    engine->errands.count--;
    begin_next(engine);
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

static void begin(struct errand *errand)
{
    struct engine *engine = errand->engine;

    if (uv_async_init(engine->loop, &errand->ended, on_ended) < 0) {
        uv_queue_work(engine->loop, errand->work, errand->run, errand->done);
        free(errand);
        return;
    }
    errand->ended.data = errand;
    if (start_thread(errand)) {
        uv_queue_work(engine->loop, errand->work, errand->run, errand->done);
        uv_close((uv_handle_t *)&errand->ended, on_closed);
        return;
    }
    engine->errands.count++;
}

static void wait_turn(struct errand *errand)
{
    struct errand **end = &errand->engine->errands.first;

    while (*end)
        end = &(*end)->next;
    *end = errand;
}

void errand_run(struct engine *engine, uv_work_t *work, uv_work_cb run, uv_after_work_cb done)
{
    struct errand *errand = xnew(struct errand);

    errand->engine = engine;
    errand->work = work;
    errand->run = run;
    errand->done = done;
    if (engine->errands.count < ERRANDS_MAX)
        begin(errand);
    else
        wait_turn(errand);
}
