/* UAS's parts: uas.c commands on their way, uas_recover.c what is done about those that are lost.
 */
#ifndef USB_UAS_INTERNAL_H
#define USB_UAS_INTERNAL_H

#include "uas.h"
#include "uas_iu.h"

enum { UAS_TASKS_MAX = 15 };

/* Of a command. */
enum task_state {
    TASK_FREE = 1,
    TASK_SENT,   /* the device has it, or gets it */
    TASK_MOVING, /* its data are under way */
    TASK_MOVED,
    TASK_ANSWERED, /* the device is done with it: what is still under way is called back */
    TASK_STRAYED,  /* lost: the same, then it is aborted */
    TASK_LOST,     /* nothing of it is under way, the device may still have it */
    TASK_STATES,
};

enum task_event {
    TASK_NOTHING,
    TASK_SUBMIT,
    TASK_DATA,    /* its data have been asked for */
    TASK_READY,   /* READ READY, WRITE READY */
    TASK_DATA_IN, /* ... have come or gone */
    TASK_ANSWER,  /* a sense unit */
    TASK_BROKEN,
    TASK_LATE,
    TASK_SWEEP,     /* the device has forgotten it, as was asked for another one's sake */
    TASK_NO_MEMORY, /* the device has not got it */
    TASK_GONE,
    TASK_ENDED, /* nothing of it is under way any more */
    TASK_EVENTS,
};

struct task {
    struct uas *uas;
    enum task_state state;
    uint16_t tag; /* and its stream */
    struct usb_command *command;
    enum usb_outcome outcome;
    struct usb_transfer unit, data, status; /* status: with streams only */
    uint8_t unit_data[UAS_COMMAND_SIZE], status_data[UAS_STATUS_MAX];
    unsigned open; /* transfers under way */
    int64_t deadline;
};

/* Of the device. */
enum uas_state {
    UAS_UNCONNECTED = 1,
    UAS_WORKING,
    UAS_ABORTING,       /* ABORT TASK is under way */
    UAS_RESETTING_UNIT, /* LOGICAL UNIT RESET is */
    UAS_DRAINING,       /* everything is called back; then the port is reset */
    UAS_FAILED,
    UAS_STATES,
};

enum uas_event {
    UAS_NOTHING,
    UAS_STRAYED,  /* a task is lost */
    UAS_DONE,     /* the device says that it carried out the function */
    UAS_REFUSED,  /* it does not, or says nothing */
    UAS_TOO_MUCH, /* too many in a row were lost */
    UAS_DRAINED,  /* nothing is under way */
    UAS_GONE,
    UAS_EVENTS,
};

/* A task management function. */
struct function {
    uint16_t tag;
    struct usb_transfer unit, status;
    uint8_t unit_data[UAS_FUNCTION_SIZE], status_data[UAS_STATUS_MAX];
    unsigned open;
    bool waited; /* for its response */
    enum uas_event result;
    int64_t deadline;
};

struct uas {
    struct usb_transport *transport;
    struct usb_found_uas found;
    uint8_t interface;
    uint32_t recovery_ms;
    bool streams, may_fail, closing;
    unsigned depth, room; /* room: commands that the device takes, at most depth */
    struct bot_counts counts;

    enum uas_state state;
    struct task tasks[UAS_TASKS_MAX];
    unsigned newest;     /* of them: that was given out last */
    struct task *victim; /* that is being aborted */
    unsigned lost;       /* commands in a row */
    struct function function;
    uint8_t halted; /* an endpoint that stalled; 0: none */

    /* Without streams: one for all. */
    struct usb_transfer status;
    uint8_t status_data[UAS_STATUS_MAX];
    bool status_open;
    int64_t status_deadline;

    bool settling, unsettled;
};

/* uas.c */
enum uas_event uas_submit_transfer(struct uas *uas, struct usb_transfer *transfer, unsigned *open);
void uas_task_happens(struct task *task, enum task_event event);
/* Its units are waited for. */
bool uas_task_waits(const struct task *task);
/* The command ends; more may be submitted from within its callback. */
void uas_end_task(struct task *task, enum usb_outcome outcome);

/* uas_status.c */
unsigned uas_tasks_under_way(const struct uas *uas);
void uas_note_stall(struct uas *uas, const struct usb_transfer *transfer);
/* The sense unit, or what came in its place, to a task that waits. */
enum task_event uas_take_unit(struct task *task, const struct uas_iu *iu);
/* To all that wait; TASK_GONE: to all. */
void uas_break_all(struct uas *uas, enum task_event event);
/* Without streams: the status pipe is listened to as long as something is waited for. */
void uas_listen(struct uas *uas);
void uas_status_done(struct usb_transfer *transfer);

/* uas_recover.c */
void uas_happens(struct uas *uas, enum uas_event event);
/* Something has ended, or a task was lost: goes on where nothing is waited for any more. */
void uas_settle(struct uas *uas);
/* The function's response, or what came instead. */
void uas_function_answered(struct uas *uas, enum uas_event result);
int uas_alloc_streams(struct uas *uas);
void uas_free_streams(struct uas *uas);

#endif
