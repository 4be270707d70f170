#include <errno.h>
#include <signal.h>

#include <base/alloc.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"
#include "pause.h"
#include "spec.h"
#include "stop.h"
#include "supervision.h"
#include "watchdog.h"

/* --- kill ------------------------------------------------------------------------------------- */

struct kill_call {
    struct container *container; /* a reference */
    int signal;
    engine_done done;
    void *data;
};

/* As docker: what is not the container's own stop signal goes to the queue of one that stands still
 * when it has one of its own. */
static bool ends_pause(const struct container *container, int number)
{
    const char *own = container->effective->stop_signal;

    return number == SIGKILL || text_empty(own) || signal_parse(own, NULL) == number;
}

/* SIGKILL is answered when the container has ended, as docker does: `rm` may follow at once. */
static void on_kill_reply(const struct link_message *message, void *data)
{
    struct kill_call *call = data;
    struct engine_result result = ENGINE_RESULT_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (message->type != MONITOR_OK)
        link_error(message, &err);
    if (!err.code && call->container->state != CONTAINER_RESTARTING)
        event_container_signal(call->container, call->signal);
    if (!err.code && ends_pause(call->container, call->signal))
        container_end_pause(call->container);
    if (!err.code && call->signal == SIGKILL) {
        waiters_add_killer(call->container, call->done, call->data);
    } else {
        result.err = err.code ? &err : NULL;
        call->done(&result, call->data);
    }
    container_unref(call->container);
    free(call);
}

static int stop_signal(const struct container *container, const struct monitor_stop *how)
{
    int number = (int)how->signal;

    if (!number && !text_empty(container->effective->stop_signal))
        number = signal_parse(container->effective->stop_signal, NULL);
    return number > 0 ? number : SIGTERM;
}

static int not_running(const struct container *container, const char *what, struct error *err)
{
    error_set(err, -EBUSY, "cannot %s container: %s: container %s is not running", what,
              container->name, container->id);
    if (container->leaving)
        error_hint(err, "it has ended, and plug-ins take its networks back");
    return -EBUSY;
}

void engine_container_kill(struct container *container, const char *signal_name, engine_done done,
                           void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int number = text_empty(signal_name) ? SIGKILL : signal_parse(signal_name, &err);

    if (number == SIGKILL && supervision_cancel(container)) {
        const struct engine_result killed = ENGINE_RESULT_INIT;
        done(&killed, data);
        return;
    }
    bool alive = container->state == CONTAINER_RUNNING || container->state == CONTAINER_RESTARTING;
    if (number > 0 && (!alive || !container->link))
        not_running(container, "kill", &err);
    if (err.code < 0) {
        engine_fail(done, data, &err);
        return;
    }
    struct monitor_signal signal = {.signal = (uint32_t)number};
    if (number == SIGKILL || number == stop_signal(container, &(struct monitor_stop){0})) {
        supervision_unwanted(container);
        container_commit_record(container); /* or a daemon after this one would start it again */
    }
    if (number == SIGKILL)
        watchdog_start(container, 0);
    struct kill_call *call = xnew(struct kill_call);
    *call = (struct kill_call){container_ref(container), number, done, data};
    link_request(container->link, MONITOR_SIGNAL, &signal, sizeof(signal), NULL, 0, on_kill_reply,
                 call);
}

/* --- stop ------------------------------------------------------------------------------------- */

struct stop_operation {
    struct operation base;
    struct monitor_stop how;
};

void stop_send(struct container *container, const struct monitor_stop *how)
{
    if (!container->link)
        return;
    supervision_unwanted(container);
    container_commit_record(container);
    watchdog_start(container, how->signal == SIGKILL ? 0 : how->timeout_ms);
    if (container->state == CONTAINER_RUNNING)
        event_container_signal(container, stop_signal(container, how));
    link_request(container->link, MONITOR_STOP, how, sizeof(*how), NULL, 0, NULL, NULL);
    container_end_pause(container);
}

static void stop_begin(struct operation *operation)
{
    struct stop_operation *stop = (struct stop_operation *)operation;

    if (container_is_active(operation->container))
        stop_send(operation->container, &stop->how);
    else
        operation_finish(operation, NULL, supervision_cancel(operation->container));
}

static void stop_container_ended(struct operation *operation)
{
    event_container(operation->container, "stop", NULL);
    operation_finish(operation, NULL, true);
}

static void stop_release(struct operation *operation)
{
    free((struct stop_operation *)operation);
}

static const struct operation_kind stop_operation_kind = {
    .name = "stop",
    .begin = stop_begin,
    .container_ended = stop_container_ended,
    .release = stop_release,
};

bool stop_is_kind(const struct operation_kind *kind)
{
    return kind == &stop_operation_kind || kind == &restart_operation_kind;
}

void stop_ahead(struct container *container, const struct monitor_stop *how)
{
    const struct operation *current = container->operations;

    if (current && stop_is_kind(current->kind) && container_is_active(container))
        stop_send(container, how);
}

static int32_t milliseconds(int32_t seconds)
{
    if (seconds < 0)
        return -1;
    return seconds > INT32_MAX / 1000 ? INT32_MAX : seconds * 1000;
}

int stop_parse(const struct container *container, const struct api_container_stop *how,
               struct monitor_stop *ret, struct error *err)
{
    int number = text_empty(how->signal) ? 0 : signal_parse(how->signal, err);

    if (number < 0)
        return number;
    ret->signal = (uint32_t)number;
    ret->timeout_ms =
        milliseconds(how->has_timeout ? how->timeout : container->effective->stop_timeout);
    return 0;
}

void engine_container_stop(struct container *container, const struct api_container_stop *how,
                           engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct monitor_stop parsed;

    if (stop_parse(container, how, &parsed, &err) < 0) {
        engine_fail(done, data, &err);
        return;
    }
    struct stop_operation *stop = xnew(struct stop_operation);
    stop->base.kind = &stop_operation_kind;
    stop->how = parsed;
    stop_ahead(container, &parsed);
    operation_submit(container, &stop->base, done, data);
}
