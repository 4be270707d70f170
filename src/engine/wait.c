/*
 * Those who wait for a container's or an exec session's end.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "internal.h"
#include "watchdog.h"

enum wait_condition { WAIT_NOT_RUNNING, WAIT_KILLED, WAIT_NEXT_EXIT, WAIT_REMOVED, WAIT_EXEC };

struct engine_waiter {
    struct engine_waiter *next;
    struct engine_waiter **list; /* the one it is in */
    struct container *container; /* a reference; NULL for exec sessions */
    enum wait_condition condition;
    char exec_id[EXEC_ID_DIGITS + 1];
    engine_done done;
    void *data;
};

static void waiter_unlink(struct engine_waiter *waiter)
{
    for (struct engine_waiter **at = waiter->list; *at; at = &(*at)->next) {
        if (*at != waiter)
            continue;
        *at = waiter->next;
        if (waiter->container)
            waiter->container->waiters_count--;
        return;
    }
}

static void waiter_free(struct engine_waiter *waiter)
{
    container_unref(waiter->container);
    free(waiter);
}

static void answer(struct engine_waiter *waiter, int exit_code, const char *why)
{
    struct engine_result result = ENGINE_RESULT_INIT;

    result.exit_code = exit_code;
    result.why = why;
    waiter_unlink(waiter);
    waiter->done(&result, waiter->data);
    waiter_free(waiter);
}

static void answer_container(struct engine_waiter *waiter)
{
    const struct record_container *record = waiter->container->record;

    answer(waiter, record->exit_code, record->error);
}

static bool holds_already(const struct container *container, enum wait_condition condition)
{
    return (condition == WAIT_NOT_RUNNING || condition == WAIT_KILLED) &&
           !container_is_active(container);
}

static enum wait_condition condition_by_name(const char *name)
{
    if (text_equal(name, "next-exit"))
        return WAIT_NEXT_EXIT;
    return text_equal(name, "removed") ? WAIT_REMOVED : WAIT_NOT_RUNNING;
}

static struct engine_waiter *wait_for_end(struct container *container, enum wait_condition wanted,
                                          engine_done done, void *data)
{
    struct engine_result result = ENGINE_RESULT_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (holds_already(container, wanted)) {
        result.exit_code = container->record->exit_code;
        result.why = container->record->error;
        done(&result, data);
        return NULL;
    }
    if (container->waiters_count >= ENGINE_WAITERS_MAX) {
        error_set(&err, -EAGAIN, "%d clients wait for this container", ENGINE_WAITERS_MAX);
        engine_fail(done, data, &err);
        return NULL;
    }
    struct engine_waiter *waiter = xnew(struct engine_waiter);
    waiter->list = &container->waiters;
    waiter->next = container->waiters;
    waiter->container = container_ref(container);
    waiter->condition = wanted;
    waiter->done = done;
    waiter->data = data;
    container->waiters = waiter;
    container->waiters_count++;
    return waiter;
}

struct engine_waiter *engine_container_wait(struct container *container, const char *condition,
                                            engine_done done, void *data)
{
    return wait_for_end(container, condition_by_name(condition), done, data);
}

void waiters_add_killer(struct container *container, engine_done done, void *data)
{
    wait_for_end(container, WAIT_KILLED, done, data);
}

struct engine_waiter *engine_exec_wait(struct engine *engine, const char *exec_id, engine_done done,
                                       void *data)
{
    struct engine_result result = ENGINE_RESULT_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    struct exec_session *session = exec_session_find(engine, exec_id, NULL);
    if (!session) {
        error_set(&err, -ENOENT, "No such exec instance: %.80s", exec_id);
        engine_fail(done, data, &err);
        return NULL;
    }
    if (!session->running) {
        result.exit_code = session->exit_code;
        done(&result, data);
        return NULL;
    }
    struct engine_waiter *waiter = xnew(struct engine_waiter);
    waiter->list = &engine->exec_waiters;
    waiter->next = engine->exec_waiters;
    waiter->condition = WAIT_EXEC;
    memcpy(waiter->exec_id, session->id, sizeof(waiter->exec_id));
    waiter->done = done;
    waiter->data = data;
    engine->exec_waiters = waiter;
    return waiter;
}

void engine_wait_cancel(struct engine_waiter *waiter)
{
    waiter_unlink(waiter);
    waiter_free(waiter);
}

/* Callbacks may cancel other waits: the search starts again after each. */
static bool answer_one(struct container *container, bool removed)
{
    for (struct engine_waiter *waiter = container->waiters; waiter; waiter = waiter->next) {
        if (removed || waiter->condition != WAIT_REMOVED) {
            answer_container(waiter);
            return true;
        }
    }
    return false;
}

void waiters_container_ended(struct container *container)
{
    container_ref(container);
    while (answer_one(container, false))
        ;
    container_unref(container);
}

void waiters_container_removed(struct container *container)
{
    container_ref(container);
    while (answer_one(container, true))
        ;
    container_unref(container);
}

static bool answer_exec(struct engine *engine, const struct exec_session *session)
{
    for (struct engine_waiter *waiter = engine->exec_waiters; waiter; waiter = waiter->next) {
        if (text_equal(waiter->exec_id, session->id)) {
            answer(waiter, session->exit_code, NULL);
            return true;
        }
    }
    return false;
}

void waiters_exec_ended(struct engine *engine, const struct exec_session *session)
{
    while (answer_exec(engine, session))
        ;
}

static void fail(struct engine_waiter *waiter, const struct error *err)
{
    engine_done done = waiter->done;
    void *data = waiter->data;

    waiter_unlink(waiter);
    waiter_free(waiter);
    engine_fail(done, data, err);
}

static bool fail_one_killer(struct container *container, const struct error *err)
{
    for (struct engine_waiter *waiter = container->waiters; waiter; waiter = waiter->next) {
        if (waiter->condition == WAIT_KILLED) {
            fail(waiter, err);
            return true;
        }
    }
    return false;
}

void waiters_kill_failed(struct container *container, const struct error *err)
{
    while (fail_one_killer(container, err))
        ;
}

static void drop(struct engine_waiter *waiter)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EAGAIN, "the daemon ends");
    fail(waiter, &err);
}

void waiters_drop_all(struct engine *engine)
{
    while (engine->exec_waiters)
        drop(engine->exec_waiters);
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        while (container->waiters)
            drop(container->waiters);
    }
}
