/*
 * What is done about commands that are lost: ABORT TASK; where that is refused or not answered,
 * LOGICAL UNIT RESET; then the reset of the port, after which all of them are sent again.
 */
#include "uas_internal.h"

#include <errno.h>

#include <base/clock.h>

#include "transitions.h"

/* Commands in a row that were lost: then the port is reset, then there is another way, or none. */
enum { LOST_RESET_PORT = 3, LOST_FAIL = 6, LOST_GIVE_UP = 9 };

struct transition TRANSITION(uas, enum uas_event);

static enum uas_event abort_task(struct uas *uas);
static enum uas_event end_victim(struct uas *uas);
static enum uas_event reset_unit(struct uas *uas);
static enum uas_event sweep_unit(struct uas *uas);
static enum uas_event drain(struct uas *uas);
static enum uas_event reset_port(struct uas *uas);
static enum uas_event fail(struct uas *uas);

static const struct transition transitions[UAS_STATES][UAS_EVENTS] = {
    [UAS_WORKING] =
        {[UAS_STRAYED] = {UAS_ABORTING, abort_task}, [UAS_GONE] = {UAS_UNCONNECTED, NULL}},
    [UAS_ABORTING] =
        {
            [UAS_DONE] = {UAS_WORKING, end_victim},
            [UAS_REFUSED] = {UAS_RESETTING_UNIT, reset_unit},
            [UAS_TOO_MUCH] = {UAS_DRAINING, drain},
            [UAS_GONE] = {UAS_UNCONNECTED, NULL},
        },
    [UAS_RESETTING_UNIT] =
        {
            [UAS_DONE] = {UAS_WORKING, sweep_unit},
            [UAS_REFUSED] = {UAS_DRAINING, drain},
            [UAS_GONE] = {UAS_UNCONNECTED, NULL},
        },
    [UAS_DRAINING] =
        {
            [UAS_DRAINED] = {UAS_WORKING, reset_port},
            [UAS_GONE] = {UAS_UNCONNECTED, NULL},
        },
    /* The action of DRAINED went wrong. */
    [UAS_FAILED] = {[UAS_GONE] = {UAS_UNCONNECTED, NULL}},
};

void uas_happens(struct uas *uas, enum uas_event event)
{
    GO_ALONG(transitions, uas, event);
}

/* Functions. */

void uas_function_answered(struct uas *uas, enum uas_event result)
{
    struct function *function = &uas->function;
    if (!function->waited)
        return;
    function->waited = false;
    function->result = result;
    usb_transport_cancel(uas->transport, &function->unit);
    usb_transport_cancel(uas->transport, &function->status);
    usb_transport_flush(uas->transport);
}

static void function_unit_done(struct usb_transfer *transfer)
{
    struct uas *uas = transfer->owner;
    uas->function.open--;
    uas_note_stall(uas, transfer);
    if (transfer->status == USB_GONE)
        uas_function_answered(uas, UAS_GONE);
    else if (transfer->status != USB_DONE || transfer->actual != transfer->length)
        uas_function_answered(uas, UAS_REFUSED);
    uas_settle(uas);
}

/* Of its own stream. */
static void function_status_done(struct usb_transfer *transfer)
{
    struct uas *uas = transfer->owner;
    struct uas_iu iu;
    uas->function.open--;
    uas_note_stall(uas, transfer);
    bool done = transfer->status == USB_DONE &&
                uas_parse(transfer->data, transfer->actual, &iu) == 0 && iu.kind == UAS_RESPONSE &&
                iu.tag == uas->function.tag &&
                (iu.status == UAS_FUNCTION_COMPLETE || iu.status == UAS_FUNCTION_SUCCEEDED);
    uas_function_answered(uas, transfer->status == USB_GONE ? UAS_GONE
                               : done                       ? UAS_DONE
                                                            : UAS_REFUSED);
    uas_settle(uas);
}

static enum uas_event send_function(struct uas *uas, enum uas_function kind)
{
    struct function *function = &uas->function;
    const struct task *victim = uas->victim;
    enum uas_event event = UAS_NOTHING;
    uas_word_function(function->unit_data, function->tag, kind, victim->tag, victim->command->unit);
    function->unit = (struct usb_transfer){
        .endpoint = uas->found.command,
        .data = function->unit_data,
        .length = UAS_FUNCTION_SIZE,
        .timeout_ms = uas->recovery_ms,
        .done = function_unit_done,
        .owner = uas,
    };
    function->status = (struct usb_transfer){
        .endpoint = uas->found.status,
        .stream = function->tag,
        .data = function->status_data,
        .length = UAS_STATUS_MAX,
        .timeout_ms = uas->recovery_ms,
        .done = function_status_done,
        .owner = uas,
    };
    uas->counts.recoveries++;
    function->result = UAS_NOTHING;
    function->waited = true;
    function->deadline = clock_ticks() + uas->recovery_ms;
    if (uas->streams)
        event = uas_submit_transfer(uas, &function->status, &function->open);
    if (event == UAS_NOTHING)
        event = uas_submit_transfer(uas, &function->unit, &function->open);
    usb_transport_flush(uas->transport);
    if (event != UAS_NOTHING)
        uas_function_answered(uas, event == UAS_GONE ? UAS_GONE : UAS_REFUSED);
    uas_listen(uas);
    return UAS_NOTHING; /* its result is seen by uas_settle() */
}

/* Actions. */

static struct task *lost_task(struct uas *uas)
{
    for (unsigned i = 0; i < uas->depth; i++)
        if (uas->tasks[i].state == TASK_LOST)
            return &uas->tasks[i];
    return NULL;
}

static enum uas_event abort_task(struct uas *uas)
{
    uas->victim = lost_task(uas);
    return ++uas->lost % LOST_RESET_PORT == 0 ? UAS_TOO_MUCH : send_function(uas, UAS_ABORT_TASK);
}

static enum uas_event end_victim(struct uas *uas)
{
    struct task *victim = uas->victim;
    uas->victim = NULL;
    uas_end_task(victim, victim->outcome);
    return UAS_NOTHING;
}

static enum uas_event reset_unit(struct uas *uas)
{
    return send_function(uas, UAS_RESET_UNIT);
}

static void sweep(struct uas *uas, const uint8_t *unit)
{
    for (unsigned i = 0; i < uas->depth; i++) {
        struct task *task = &uas->tasks[i];
        if (uas_task_waits(task) && (!unit || task->command->unit == *unit))
            uas_task_happens(task, TASK_SWEEP);
    }
}

static enum uas_event sweep_unit(struct uas *uas)
{
    uint8_t unit = uas->victim->command->unit;
    sweep(uas, &unit);
    return end_victim(uas);
}

static enum uas_event drain(struct uas *uas)
{
    sweep(uas, NULL);
    return UAS_NOTHING;
}

static void end_lost(struct uas *uas)
{
    uas->victim = NULL;
    for (struct task *task; (task = lost_task(uas));)
        uas_end_task(task, task->outcome);
}

static enum uas_event fail(struct uas *uas)
{
    uas->state = UAS_FAILED;
    end_lost(uas);
    return UAS_NOTHING;
}

/* The setting is the first one again after it, and there are no streams. */
/* Where others use the device, too, its interface alone. */
static int reset_for_all(struct uas *uas)
{
    if (uas->transport->shared)
        return usb_set_alternate(uas->transport, uas->interface, uas->found.alternate);
    uas->counts.port_resets++;
    return usb_reset(uas->transport);
}

static enum uas_event reset_port(struct uas *uas)
{
    uint8_t setting = uas->found.alternate;
    bool enough = uas->lost >= LOST_FAIL;
    if (uas->lost >= LOST_GIVE_UP)
        return UAS_GONE;
    uas_free_streams(uas);
    int r = reset_for_all(uas);
    if (r != 0)
        return UAS_GONE;
    if (enough && uas->may_fail)
        return fail(uas);
    if (setting != 0)
        r = usb_set_alternate(uas->transport, uas->interface, setting);
    if (r == 0)
        r = uas_alloc_streams(uas);
    if (r != 0)
        return r != -ENODEV && uas->may_fail ? fail(uas) : UAS_GONE;
    end_lost(uas);
    return UAS_NOTHING;
}

/* What follows from what has ended. */

static bool is_drained(const struct uas *uas)
{
    bool drained = uas->function.open == 0 && !uas->status_open;
    for (unsigned i = 0; i < uas->depth; i++)
        drained &= uas->tasks[i].open == 0;
    return drained;
}

static void end_quiet_tasks(struct uas *uas)
{
    for (unsigned i = 0; i < uas->depth; i++) {
        struct task *task = &uas->tasks[i];
        if (uas->state == UAS_UNCONNECTED)
            uas_task_happens(task, TASK_GONE);
        if (task->open == 0 && (task->state == TASK_ANSWERED || task->state == TASK_STRAYED))
            uas_task_happens(task, TASK_ENDED);
    }
}

/* Nothing is waited for that could come by it. */
static void stop_listening(struct uas *uas)
{
    bool waits = uas->function.waited;
    for (unsigned i = 0; i < uas->depth; i++)
        waits |= uas_task_waits(&uas->tasks[i]);
    if (uas->status_open && !waits)
        usb_transport_cancel(uas->transport, &uas->status);
    usb_transport_flush(uas->transport);
}

static void settle_once(struct uas *uas)
{
    struct function *function = &uas->function;
    enum uas_event result = function->result;
    end_quiet_tasks(uas);
    if (uas->halted && uas->state != UAS_UNCONNECTED &&
        usb_clear_halt(uas->transport, uas->halted) == -ENODEV)
        uas_happens(uas, UAS_GONE);
    uas->halted = 0;
    stop_listening(uas);
    if (uas->state == UAS_UNCONNECTED) {
        end_quiet_tasks(uas);
    } else if (uas->closing) {
        if (is_drained(uas))
            end_lost(uas);
    } else if (uas->state == UAS_WORKING) {
        if (lost_task(uas))
            uas_happens(uas, UAS_STRAYED);
    } else if (uas->state == UAS_DRAINING) {
        if (is_drained(uas))
            uas_happens(uas, UAS_DRAINED);
    } else if (uas->state != UAS_FAILED && result && function->open == 0) {
        function->result = UAS_NOTHING;
        uas_happens(uas, result);
    }
}

void uas_settle(struct uas *uas)
{
    uas->unsettled = true;
    if (uas->settling)
        return;
    uas->settling = true;
    while (uas->unsettled) {
        enum uas_state before = uas->state;
        uas->unsettled = false;
        settle_once(uas);
        uas->unsettled |= uas->state != before;
        uas->unsettled |= uas->state == UAS_WORKING && !uas->closing && lost_task(uas);
    }
    uas->settling = false;
}

/* Streams. */

enum { STREAMS_PIPES = 3 };

static void stream_pipes(const struct uas *uas, uint8_t pipes[STREAMS_PIPES])
{
    pipes[0] = uas->found.status;
    pipes[1] = uas->found.in;
    pipes[2] = uas->found.out;
}

/* One for each command, and one for functions. */
int uas_alloc_streams(struct uas *uas)
{
    uint8_t pipes[STREAMS_PIPES], bits = uas->found.stream_bits;
    unsigned most = bits < 8 ? 1U << bits : UINT8_MAX;
    if (!uas->streams)
        return 0;
    stream_pipes(uas, pipes);
    unsigned wanted = most < UAS_TASKS_MAX + 1 ? most : UAS_TASKS_MAX + 1;
    int r = usb_alloc_streams(uas->transport, (uint16_t)wanted, pipes, STREAMS_PIPES);
    if (r < 0)
        return r;
    /* After a reset as many as before: tags are given out. */
    if (r < 2 || (uas->function.tag && r < uas->function.tag)) {
        uas_free_streams(uas);
        return -ENOTSUP;
    }
    if (!uas->function.tag)
        uas->depth = uas->room = (unsigned)r - 1;
    return 0;
}

void uas_free_streams(struct uas *uas)
{
    uint8_t pipes[STREAMS_PIPES];
    stream_pipes(uas, pipes);
    if (uas->streams)
        usb_free_streams(uas->transport, pipes, STREAMS_PIPES);
}
