/* A stick's parts: stick.c the device thread, stick_open.c its beginning and end, judge.c what an
 * end means, unit.c what becomes of a unit, disk.c its requests. */
#ifndef USB_STICK_H
#define USB_STICK_H

#include <pthread.h>
#include <stdatomic.h>

#include <block/queue.h>
#include <usb/disk.h>

#include "carrier.h"
#include "scsi.h"

enum { UNITS_MAX = 16, ANSWER_SIZE = 4096, COMMAND_MAX = 1 << 20 };
enum { LANES_MAX = 8 }; /* commands of a unit at once */
enum { TRIES = 3, ATTENTIONS = 8, WAIT_MS = 100, FLUSH_FACTOR = 2 };

/* What a unit's command is for. */
enum work {
    WORK_NONE,
    WORK_STEP,    /* of becoming ready */
    WORK_START,   /* START STOP UNIT, since it wants that */
    WORK_REQUEST, /* the first of its requests */
    WORK_LOOK,    /* is the medium still there? */
    WORK_LOCK,    /* the medium in, or no more */
    WORK_EJECT,
};

enum step {
    STEP_INQUIRY,
    STEP_READY,
    STEP_CAPACITY_10,
    STEP_CAPACITY_16,
    STEP_PAGES,
    STEP_SERIAL,
    STEP_NAMES,
    STEP_LIMITS,
    STEP_PROVISIONING,
    STEP_MODES_6,
    STEP_MODES_10,
    STEPS,
};

enum eject { EJECT_NONE, EJECT_FLUSH, EJECT_ALLOW, EJECT_STOP };

struct unit;

/* An interface of mass storage: its own state machine over the device's transport. */
struct channel {
    struct usb_stick *stick;
    struct carrier carrier;
    struct usb_interface_facts *facts;
    unsigned flying; /* commands under way */
    bool falls_back; /* the carrier has failed */
    bool is_full;    /* it takes no more in this round */
    bool gone, residue_lies;
};

/* A medium as a block device. */
struct disk {
    struct block_device device; /* first */
    struct unit *unit;
    struct block_queue queue;
    bool given;      /* somebody has it */
    atomic_int gone; /* what requests are answered; 0: it is there */
    bool returned;   /* the stick's `returning` is held */
    struct disk *next;
};

/* A place for a command of a unit. */
struct lane {
    struct unit *unit;
    struct usb_command command;
    enum work work;
    bool flying; /* the command is under way, or parked */
    bool parked; /* it has ended in a way that is the device thread's matter */

    struct block_request *request; /* that it is for, until it is answered; NULL: none */
    uint32_t progress, moving;     /* sectors of it: done, of the command */
    unsigned tries, attentions;
    int64_t due, patience_end; /* milliseconds; 0: it is not waited for */
    int doomed; /* what the request is answered once the command has ended; 0: what that says */
};

struct unit {
    struct usb_stick *stick;
    struct channel *channel;
    uint8_t number, lun;
    struct usb_unit_facts facts;
    enum step step;
    int64_t due;          /* no command before; milliseconds */
    int64_t patience_end; /* 0: it is not waited for; of steps, as the next ones */
    unsigned tries, attentions;
    unsigned changes; /* of the medium, since it was ready */
    bool wants_start, ejected;
    bool has_moved; /* something of this medium was read or written */

    /* What it said. */
    uint8_t version;
    uint16_t pages; /* bit n: step n has a page */
    struct scsi_limits limits;
    struct scsi_provisioning provisioning;
    bool modes_known, cannot_flush;
    bool unflushed;  /* something was written since the last flush */
    bool write_lost; /* ... and is not there: the next flush says so */

    struct disk *disk;                   /* of the medium that is in it; NULL: none */
    struct block_request *first, **last; /* that wait for a lane */
    struct lane lanes[LANES_MAX];
    unsigned flying;      /* of them */
    uint8_t *answer;      /* ANSWER_SIZE; of commands that are alone */
    atomic_bool held;     /* somebody writes */
    bool locked, locking; /* the medium is locked in; is about to be */
    bool cannot_lock;
    enum eject eject;
    int eject_result;
    void (*eject_done)(int result, void *data);
    void *eject_data;
};

struct usb_stick {
    struct usb_transport *transport;
    struct channel channels[USB_INTERFACES_SERVED_MAX]; /* facts.interface_count */
    struct usb_stick_options options;
    struct usb_stick_facts facts;
    usb_unit_changed changed;
    void *data;
    int epoll, wake;
    int quiet; /* an epoll descriptor as well, without the transport's */
    /* Whoever has it has the stick: the device thread while it is awake, or the attendant, who
     * works on its own request in that thread's place (attend.c). Neither sleeps with it but in
     * what the transport says waits. */
    pthread_mutex_t lock; /* recursive */
    pthread_cond_t left;  /* by the attendant */
    /* Somebody looks into the queues before going to sleep: nobody need be woken for them. */
    atomic_bool awake, attended;
    bool attendant_has_it; /* the lock, now */
    unsigned parked;       /* lanes that are */
    uint64_t attends, attends_seen;
    bool sleeps_long;          /* the device thread: nothing but an event wakes it soon */
    pthread_mutex_t returning; /* who gives a disk back has the stick until that is done */
    bool gone;
    struct unit units[UNITS_MAX];
    unsigned next; /* unit whose turn it is */
    struct disk *disks;

    unsigned flying; /* commands under way */
    bool scheduling, again;
};

/* What the end of a command means. */
enum verdict {
    VERDICT_GOOD,
    VERDICT_AGAIN,      /* at once: UNIT ATTENTION */
    VERDICT_RESET,      /* the same, and what its cache had may be gone */
    VERDICT_WRITE_LOST, /* this command was not done, since a write before it has failed */
    VERDICT_LOST,       /* on its way, or aborted */
    VERDICT_LATE,
    VERDICT_WAIT, /* it becomes ready */
    VERDICT_START,
    VERDICT_EMPTY,   /* no medium */
    VERDICT_CHANGED, /* another medium */
    VERDICT_PROTECTED,
    VERDICT_REFUSED, /* it does not know the command, or what is in it */
    VERDICT_ERROR,   /* of the medium or the unit */
};

/* judge.c */
enum verdict judge(const struct usb_command *command);

/* unit_steps.c */
struct unit_step {
    const char *name;
    bool (*wanted)(const struct unit *unit); /* NULL: always */
    void (*word)(struct usb_command *command, void *data);
    int (*take)(struct unit *unit, const uint8_t *data, size_t size);
    bool needed; /* without it the unit is given up */
};
extern const struct unit_step unit_steps[STEPS];

/* unit.c */
void unit_init(struct unit *unit, struct channel *channel, uint8_t number, uint8_t lun);
/* Words the next command, where there is one to be sent now by this lane; WORK_NONE: there is none.
 */
enum work unit_word(struct lane *lane, int64_t now);
void unit_done(struct lane *lane, enum verdict verdict, int64_t now);
bool unit_has_requests(const struct unit *unit);
/* When it wants to be asked again; -1: not of its own. */
int64_t unit_due(const struct unit *unit);
void unit_lose_medium(struct unit *unit, enum usb_unit_state state, int result, const char *why);

/* unit_medium.c */
void unit_word_eject(struct unit *unit, struct usb_command *command);
void unit_eject_done(struct unit *unit, enum verdict verdict);
bool unit_wants_lock(const struct unit *unit); /* the medium in, or no more */
enum work unit_word_lock(struct unit *unit, struct usb_command *command);
void unit_lock_done(struct unit *unit, enum verdict verdict);
bool unit_is_locked(const struct unit *unit); /* or is about to be, or no more to be */

/* disk.c */
struct disk *disk_create(struct unit *unit, struct error *err);
void disk_free(struct disk *disk);
void disk_take(struct disk *disk); /* what was submitted becomes requests of the unit */
/* Beside it there may be no other command of the unit. */
bool request_is_alone(const struct block_request *request);
void requests_take(struct lane *lane); /* the first that waits */
void requests_word(struct lane *lane);
void requests_done(struct lane *lane, enum verdict verdict, int64_t now);
void requests_answer(struct unit *unit, int result); /* all; those under way when they have ended */
void requests_doom(struct lane *lane);               /* its command has ended */
/* What a flush is answered that the unit says is done. */
int requests_flushed(struct unit *unit);

/* attend.c: block_device_ops.attend of a disk. */
void stick_attend(const struct unit *unit, const atomic_bool *done);
/* With the lock: nobody attends any more. */
void stick_end_attendance(struct usb_stick *stick);

/* stick.c, with the lock: takes what was submitted, begins what can be begun. */
void stick_go_on(struct usb_stick *stick);
bool stick_has_submitted(const struct usb_stick *stick); /* in the queues */
bool stick_falls_back(const struct usb_stick *stick);    /* some interface does */
void stick_settle_parked(struct usb_stick *stick);
void stick_lose(struct usb_stick *stick); /* all of it is gone */

/* judge.c: bytes of a command's data that came or went. */
uint32_t stick_moved(const struct channel *channel, const struct usb_command *command);

#endif
