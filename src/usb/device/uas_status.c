/* The status pipe: what units mean to tasks; and the pipe that all of them share where there are no
 * streams, with the time that each has. */
#include "uas_internal.h"

#include <string.h>

#include <base/clock.h>

void uas_note_stall(struct uas *uas, const struct usb_transfer *transfer)
{
    if (transfer->status == USB_STALLED)
        uas->halted = transfer->endpoint;
}

unsigned uas_tasks_under_way(const struct uas *uas)
{
    unsigned count = 0;
    for (unsigned i = 0; i < uas->depth; i++)
        count += uas->tasks[i].state != TASK_FREE;
    return count;
}

/* The device says that its queue is shorter than that. */
static void take_fewer(struct uas *uas)
{
    unsigned count = uas_tasks_under_way(uas);
    uas->room = count > 1 ? count - 1 : 1;
}

/* The sense unit, or what came in its place. */
enum task_event uas_take_unit(struct task *task, const struct uas_iu *iu)
{
    struct usb_command *command = task->command;
    if (iu->kind == UAS_READ_READY || iu->kind == UAS_WRITE_READY) {
        bool in = iu->kind == UAS_READ_READY;
        bool right = command->direction == (in ? USB_DATA_IN : USB_DATA_OUT) && !task->uas->streams;
        return right ? TASK_READY : TASK_BROKEN;
    }
    if (iu->kind != UAS_SENSE)
        return TASK_BROKEN; /* a response: it did not take the command */
    static const enum usb_outcome outcomes[UINT8_MAX + 1] = {
        [UAS_GOOD] = USB_COMMAND_GOOD,     [UAS_CHECK_CONDITION] = USB_COMMAND_FAILED,
        [UAS_BUSY] = USB_COMMAND_BUSY,     [UAS_CONDITION_MET] = USB_COMMAND_GOOD,
        [UAS_SET_FULL] = USB_COMMAND_BUSY, [UAS_ABORTED] = USB_COMMAND_SWEPT,
    };
    bool known = outcomes[iu->status] != USB_COMMAND_GOOD || iu->status == UAS_GOOD ||
                 iu->status == UAS_CONDITION_MET;
    task->outcome = known ? outcomes[iu->status] : USB_COMMAND_FAILED;
    if (iu->status == UAS_SET_FULL)
        take_fewer(task->uas);
    command->sense_size =
        (uint8_t)(iu->sense_size < USB_SENSE_MAX ? iu->sense_size : USB_SENSE_MAX);
    memcpy(command->sense, iu->sense, command->sense_size);
    return TASK_ANSWER;
}

/* Without streams. */

static struct task *task_of(struct uas *uas, uint16_t tag)
{
    return tag >= 1 && tag <= uas->depth && uas_task_waits(&uas->tasks[tag - 1])
               ? &uas->tasks[tag - 1]
               : NULL;
}

/* What it said is of no task: where only one is waited for, it was that one's answer. */
static void take_stray(struct uas *uas)
{
    struct task *only = NULL;
    unsigned waited = uas->function.waited;
    for (unsigned i = 0; i < uas->depth; i++) {
        if (!uas_task_waits(&uas->tasks[i]))
            continue;
        only = &uas->tasks[i];
        waited++;
    }
    if (waited == 1 && only)
        uas_task_happens(only, TASK_BROKEN);
    else if (waited == 1)
        uas_function_answered(uas, UAS_REFUSED);
}

static void take_status(struct uas *uas)
{
    struct uas_iu iu;
    if (uas_parse(uas->status_data, uas->status.actual, &iu) != 0) {
        take_stray(uas);
        return;
    }
    struct task *task = task_of(uas, iu.tag);
    bool response = iu.kind == UAS_RESPONSE && iu.tag == uas->function.tag;
    if (task)
        uas_task_happens(task, uas_take_unit(task, &iu));
    else if (uas->function.waited && response)
        uas_function_answered(uas, iu.status == UAS_FUNCTION_COMPLETE ||
                                           iu.status == UAS_FUNCTION_SUCCEEDED
                                       ? UAS_DONE
                                       : UAS_REFUSED);
    else
        take_stray(uas);
}

static void end_late(struct uas *uas)
{
    int64_t now = clock_ticks();
    for (unsigned i = 0; i < uas->depth; i++)
        if (uas_task_waits(&uas->tasks[i]) && uas->tasks[i].deadline <= now)
            uas_task_happens(&uas->tasks[i], TASK_LATE);
    if (uas->function.waited && uas->function.deadline <= now)
        uas_function_answered(uas, UAS_REFUSED);
}

void uas_break_all(struct uas *uas, enum task_event event)
{
    for (unsigned i = 0; i < uas->depth; i++)
        if (event == TASK_GONE || uas_task_waits(&uas->tasks[i]))
            uas_task_happens(&uas->tasks[i], event);
    if (uas->function.waited)
        uas_function_answered(uas, event == TASK_GONE ? UAS_GONE : UAS_REFUSED);
}

void uas_status_done(struct usb_transfer *transfer)
{
    struct uas *uas = transfer->owner;
    bool called_back = transfer->status == USB_CANCELLED || transfer->status == USB_TIMED_OUT;
    uas->status_open = false;
    uas_note_stall(uas, transfer);
    if (transfer->status == USB_DONE || (called_back && transfer->actual > 0))
        take_status(uas);
    else if (called_back)
        end_late(uas);
    else
        uas_break_all(uas, transfer->status == USB_GONE ? TASK_GONE : TASK_BROKEN);
    uas_settle(uas);
    uas_listen(uas);
}

static int64_t first_deadline(const struct uas *uas)
{
    int64_t first = uas->function.waited ? uas->function.deadline : INT64_MAX;
    for (unsigned i = 0; i < uas->depth; i++)
        if (uas_task_waits(&uas->tasks[i]) && uas->tasks[i].deadline < first)
            first = uas->tasks[i].deadline;
    return first;
}

void uas_listen(struct uas *uas)
{
    int64_t first = first_deadline(uas), now = clock_ticks();
    unsigned open = 0;
    if (uas->streams || first == INT64_MAX || uas->state == UAS_UNCONNECTED)
        return;
    if (uas->status_open) {
        /* Another deadline comes first: it is asked again. */
        if (first < uas->status_deadline)
            usb_transport_cancel(uas->transport, &uas->status);
        usb_transport_flush(uas->transport);
        return;
    }
    uas->status_deadline = first;
    uas->status.timeout_ms = first > now ? (uint32_t)(first - now) : 1;
    enum uas_event event = uas_submit_transfer(uas, &uas->status, &open);
    uas->status_open = open > 0;
    usb_transport_flush(uas->transport);
    if (event != UAS_NOTHING) {
        uas_break_all(uas, event == UAS_GONE ? TASK_GONE : TASK_BROKEN);
        uas_settle(uas);
    }
}
