/*
 * A command is a task: its unit over the command pipe; its data, at once where it has a stream of
 * its own, else when the device says READ READY or WRITE READY; its sense unit over the status
 * pipe. The table says what follows what. Paragraphs are those of UAS r04.
 */
#include "uas_internal.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/clock.h>

#include "transitions.h"

struct transition TRANSITION(task, enum task_event);

static enum task_event send_command(struct task *task);
static enum task_event give_data(struct task *task);
static enum task_event call_back(struct task *task);
static enum task_event call_back_broken(struct task *task);
static enum task_event call_back_late(struct task *task);
static enum task_event call_back_unsent(struct task *task);
static enum task_event call_back_swept(struct task *task);
static enum task_event spoil(struct task *task);
static enum task_event call_back_gone(struct task *task);
static enum task_event end_answered(struct task *task);
static enum task_event lose(struct task *task);
static enum task_event end_gone(struct task *task);

/* What is not in the table does not happen, or changes nothing: an answer to a task that has been
 * given up, a second end. */
static const struct transition transitions[TASK_STATES][TASK_EVENTS] =
    {
        [TASK_FREE] = {[TASK_SUBMIT] = {TASK_SENT, send_command}},
        [TASK_SENT] =
            {
                [TASK_READY] = {TASK_MOVING, give_data},
                [TASK_DATA] = {TASK_MOVING, NULL},
                [TASK_ANSWER] = {TASK_ANSWERED, call_back},
                [TASK_BROKEN] = {TASK_STRAYED, call_back_broken},
                [TASK_LATE] = {TASK_STRAYED, call_back_late},
                [TASK_NO_MEMORY] = {TASK_ANSWERED, call_back_unsent},
                [TASK_SWEEP] = {TASK_ANSWERED, call_back_swept},
                [TASK_GONE] = {TASK_ANSWERED, call_back_gone},
            },
        [TASK_MOVING] =
            {
                [TASK_READY] = {TASK_STRAYED, call_back_broken}, /* once is enough */
                [TASK_DATA_IN] = {TASK_MOVED, NULL},
                [TASK_ANSWER] = {TASK_ANSWERED, call_back},
                [TASK_BROKEN] = {TASK_STRAYED, call_back_broken},
                [TASK_LATE] = {TASK_STRAYED, call_back_late},
                [TASK_NO_MEMORY] = {TASK_STRAYED, call_back_unsent},
                [TASK_SWEEP] = {TASK_ANSWERED, call_back_swept},
                [TASK_GONE] = {TASK_ANSWERED, call_back_gone},
            },
        [TASK_MOVED] =
            {
                [TASK_READY] = {TASK_STRAYED, call_back_broken},
                [TASK_ANSWER] = {TASK_ANSWERED, call_back},
                [TASK_BROKEN] = {TASK_STRAYED, call_back_broken},
                [TASK_LATE] = {TASK_STRAYED, call_back_late},
                [TASK_SWEEP] = {TASK_ANSWERED, call_back_swept},
                [TASK_GONE] = {TASK_ANSWERED, call_back_gone},
            },
        [TASK_ANSWERED] =
            {
                [TASK_BROKEN] = {TASK_ANSWERED, spoil},
                [TASK_GONE] = {TASK_ANSWERED, call_back_gone},
                [TASK_ENDED] = {TASK_FREE, end_answered},
            },
        [TASK_STRAYED] =
            {
                [TASK_GONE] = {TASK_ANSWERED, call_back_gone},
                [TASK_ENDED] = {TASK_LOST, lose},
            },
        [TASK_LOST] = {[TASK_GONE] = {TASK_FREE, end_gone}},
};

void uas_task_happens(struct task *task, enum task_event event)
{
    GO_ALONG(transitions, task, event);
}

bool uas_task_waits(const struct task *task)
{
    return task->state == TASK_SENT || task->state == TASK_MOVING || task->state == TASK_MOVED;
}

/* Transfers. */

/* UAS_NOTHING: it is under way; UAS_REFUSED: there is no memory for it. */
enum uas_event uas_submit_transfer(struct uas *uas, struct usb_transfer *transfer, unsigned *open)
{
    int r = usb_transport_submit(uas->transport, transfer);
    if (r != 0)
        return r == -ENODEV ? UAS_GONE : r == -ENOMEM ? UAS_REFUSED : UAS_STRAYED;
    ++*open;
    return UAS_NOTHING;
}

static enum task_event submit(struct task *task, struct usb_transfer *transfer)
{
    static const enum task_event events[] = {
        [UAS_NOTHING] = TASK_NOTHING,
        [UAS_STRAYED] = TASK_BROKEN,
        [UAS_REFUSED] = TASK_NO_MEMORY,
        [UAS_GONE] = TASK_GONE,
    };
    return events[uas_submit_transfer(task->uas, transfer, &task->open)];
}

static const enum task_event ends[] = {
    [USB_STALLED] = TASK_BROKEN, [USB_TIMED_OUT] = TASK_LATE, [USB_CANCELLED] = TASK_BROKEN,
    [USB_BABBLE] = TASK_BROKEN,  [USB_FAILED] = TASK_BROKEN,  [USB_GONE] = TASK_GONE,
};

/* One of its transfers has ended, and that means this; unless it was called back. */
static void transfer_done(struct task *task, const struct usb_transfer *transfer,
                          enum task_event event)
{
    struct uas *uas = task->uas;
    bool called_back = !uas_task_waits(task) && transfer->status == USB_CANCELLED;
    uas_note_stall(uas, transfer);
    task->open--;
    uas_task_happens(task, called_back ? TASK_NOTHING : event);
    uas_settle(uas);
}

static void unit_done(struct usb_transfer *transfer)
{
    bool whole = transfer->actual == transfer->length;
    transfer_done(transfer->owner, transfer,
                  transfer->status != USB_DONE ? ends[transfer->status]
                  : whole                      ? TASK_NOTHING
                                               : TASK_BROKEN);
}

static void data_done(struct usb_transfer *transfer)
{
    struct task *task = transfer->owner;
    task->command->moved = transfer->actual;
    bool ended = transfer->status == USB_DONE ||
                 transfer->status == USB_STALLED; /* the sense unit says why */
    transfer_done(task, transfer, ended ? TASK_DATA_IN : ends[transfer->status]);
}

/* Of its own stream. */
static void status_done(struct usb_transfer *transfer)
{
    struct task *task = transfer->owner;
    struct uas_iu iu;
    enum task_event event = TASK_BROKEN;
    if (transfer->status != USB_DONE)
        event = ends[transfer->status];
    else if (!uas_task_waits(task))
        event = TASK_NOTHING; /* it was given up before */
    else if (uas_parse(transfer->data, transfer->actual, &iu) == 0 && iu.tag == task->tag)
        event = uas_take_unit(task, &iu);
    transfer_done(task, transfer, event);
}

/* Actions. */

static void word_transfer(struct task *task, struct usb_transfer *transfer, uint8_t endpoint,
                          bool stream, void *data, uint32_t length)
{
    transfer->endpoint = endpoint;
    transfer->stream = stream ? task->tag : 0;
    transfer->data = data;
    transfer->length = length;
    transfer->timeout_ms = 0;
    transfer->owner = task;
}

static void word_data(struct task *task)
{
    const struct usb_command *command = task->command;
    const struct usb_found_uas *found = &task->uas->found;
    uint8_t endpoint = command->direction == USB_DATA_IN ? found->in : found->out;
    word_transfer(task, &task->data, endpoint, task->uas->streams, command->data, command->length);
    task->data.done = data_done;
}

/* What the device may use of the host at once is there before the command: 6.3.4. */
static enum task_event send_command(struct task *task)
{
    struct uas *uas = task->uas;
    const struct usb_command *command = task->command;
    bool has_data = command->direction != USB_NO_DATA && command->length > 0;
    enum task_event event = TASK_NOTHING;
    uas->counts.commands++;
    uas_word_command(task->unit_data, task->tag, command);
    word_transfer(task, &task->unit, uas->found.command, false, task->unit_data, UAS_COMMAND_SIZE);
    task->unit.done = unit_done;
    task->unit.timeout_ms = command->timeout_ms;
    if (uas->streams) {
        word_transfer(task, &task->status, uas->found.status, true, task->status_data,
                      UAS_STATUS_MAX);
        task->status.done = status_done;
        task->status.timeout_ms = command->timeout_ms;
        if (has_data)
            word_data(task);
        event = has_data ? submit(task, &task->data) : TASK_NOTHING;
        if (event == TASK_NOTHING)
            event = submit(task, &task->status);
    }
    if (event == TASK_NOTHING)
        event = submit(task, &task->unit);
    return event ? event : uas->streams && has_data ? TASK_DATA : TASK_NOTHING;
}

static enum task_event give_data(struct task *task)
{
    if (task->command->length == 0)
        return TASK_BROKEN;
    word_data(task);
    enum task_event event = submit(task, &task->data);
    usb_transport_flush(task->uas->transport);
    return event;
}

static enum task_event call_back(struct task *task)
{
    struct usb_transport *transport = task->uas->transport;
    struct usb_transfer *const transfers[] = {&task->unit, &task->data, &task->status};
    for (unsigned i = 0; i < 3; i++)
        usb_transport_cancel(transport, transfers[i]);
    usb_transport_flush(transport);
    return TASK_NOTHING;
}

static enum task_event call_back_as(struct task *task, enum usb_outcome outcome)
{
    task->outcome = outcome;
    return call_back(task);
}

static enum task_event call_back_broken(struct task *task)
{
    return call_back_as(task, USB_COMMAND_BROKEN);
}

static enum task_event call_back_late(struct task *task)
{
    return call_back_as(task, USB_COMMAND_LATE);
}

static enum task_event call_back_unsent(struct task *task)
{
    return call_back_as(task, USB_COMMAND_NO_MEMORY);
}

static enum task_event call_back_swept(struct task *task)
{
    return call_back_as(task, USB_COMMAND_SWEPT);
}

/* What it answered is not true: its data came to a bad end. */
static enum task_event spoil(struct task *task)
{
    if (task->outcome == USB_COMMAND_GOOD)
        task->outcome = USB_COMMAND_BROKEN;
    return TASK_NOTHING;
}

static enum task_event call_back_gone(struct task *task)
{
    task->uas->state = UAS_UNCONNECTED;
    return call_back_as(task, USB_COMMAND_GONE);
}

void uas_end_task(struct task *task, enum usb_outcome outcome)
{
    struct usb_command *command = task->command;
    task->state = TASK_FREE;
    task->command = NULL;
    command->residue = command->length - command->moved;
    command->outcome = outcome;
    command->done(command);
}

static enum task_event end_answered(struct task *task)
{
    struct uas *uas = task->uas;
    if (task->outcome == USB_COMMAND_GOOD || task->outcome == USB_COMMAND_FAILED)
        uas->lost = 0;
    uas->counts.failed += task->outcome == USB_COMMAND_FAILED;
    uas_end_task(task, task->outcome);
    return TASK_NOTHING;
}

static enum task_event lose(struct task *task)
{
    return task->uas->state == UAS_UNCONNECTED ? TASK_GONE : TASK_NOTHING; /* uas_settle() */
}

static enum task_event end_gone(struct task *task)
{
    uas_end_task(task, USB_COMMAND_GONE);
    return TASK_NOTHING;
}

/* From outside. */

int uas_create(struct usb_transport *transport, uint8_t interface,
               const struct usb_found_uas *found, uint32_t recovery_ms, bool may_fail,
               struct uas **ret_uas)
{
    struct uas *uas = xnew(struct uas);
    uas->transport = transport;
    uas->interface = interface;
    uas->found = *found;
    uas->recovery_ms = recovery_ms;
    uas->may_fail = may_fail;
    uas->streams = found->stream_bits > 0;
    uas->depth = uas->room = UAS_TASKS_MAX;
    uas->state = UAS_WORKING;
    uas->status = (struct usb_transfer){
        .endpoint = found->status,
        .data = uas->status_data,
        .length = UAS_STATUS_MAX,
        .done = uas_status_done,
        .owner = uas,
    };
    int r = uas_alloc_streams(uas);
    if (r != 0) {
        free(uas);
        return r;
    }
    for (unsigned i = 0; i < uas->depth; i++) {
        uas->tasks[i].uas = uas;
        uas->tasks[i].state = TASK_FREE;
        uas->tasks[i].tag = (uint16_t)(i + 1);
    }
    uas->function.tag = (uint16_t)(uas->depth + 1);
    *ret_uas = uas;
    return 0;
}

unsigned uas_depth(const struct uas *uas)
{
    return uas->depth;
}

/* Nothing of it was sent. */
static int take_back(struct task *task)
{
    struct uas *uas = task->uas;
    if (task->outcome == USB_COMMAND_NO_MEMORY && uas_tasks_under_way(uas) > 1) {
        task->state = TASK_FREE;
        task->command = NULL;
        return -EBUSY; /* when another has ended there may be some */
    }
    uas_settle(uas);
    return 0;
}

int uas_submit(struct uas *uas, struct usb_command *command)
{
    struct task *task = NULL;
    if (uas->state == UAS_UNCONNECTED)
        return -ENODEV;
    if (uas->state == UAS_FAILED)
        return -EPROTONOSUPPORT;
    for (unsigned i = 0; i < uas->depth && !task; i++) {
        unsigned at = (uas->newest + 1 + i) % uas->depth; /* a tag rests as long as it can */
        if (uas->tasks[at].state == TASK_FREE)
            task = &uas->tasks[at];
    }
    if (!task || uas->state != UAS_WORKING || uas_tasks_under_way(uas) >= uas->room)
        return -EBUSY;
    command->sense_size = 0;
    command->moved = command->residue = 0;
    uas->newest = (unsigned)(task - uas->tasks);
    task->command = command;
    task->deadline = clock_ticks() + command->timeout_ms;
    uas_task_happens(task, TASK_SUBMIT);
    if (task->open == 0)
        return take_back(task);
    uas_listen(uas);
    usb_transport_flush(uas->transport);
    return 0;
}

void uas_cancel(struct uas *uas)
{
    uas->closing = true;
    uas_break_all(uas, TASK_BROKEN);
    uas_settle(uas);
}

bool uas_is_quiet(const struct uas *uas)
{
    return uas_tasks_under_way(uas) == 0 && uas->function.open == 0 && !uas->status_open;
}

const struct bot_counts *uas_counts(const struct uas *uas)
{
    return &uas->counts;
}

void uas_destroy(struct uas *uas)
{
    if (uas && uas->state != UAS_UNCONNECTED)
        uas_free_streams(uas);
    free(uas);
}
