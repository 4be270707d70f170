/*
 * What the parts of a stick's process share.
 *
 *     jail.c      what the process gives up
 *     run.c       the beginning and the end
 *     control.c   the socket: lines in, lines out, one connection
 *     jobs.c      requests, a thread for each that may wait
 *     source.c    where units come from: stick.c (the device thread), or an image
 *     device.c    what of a device only the process outside the jail may do
 *     keeper.c    the thread that follows what happens to the units, once a second looks after what
 *                 is mounted
 *     units.c     partitions and volumes of a medium
 *     volumes.c   who has which volume, how it is opened and closed
 *     mounts.c    doors of FUSE
 *     blocks.c    whole units as block devices: doors of NBD, CUSE, rings
 *     tools.c     format, check
 *     status.c    what is told of all this
 *     counted.c   a block device that counts
 *
 * Threads: control (it never waits for anything but its sockets), device, keeper, one for each
 * request that may wait, those of doors. `lock` guards everything in struct server that is not said
 * to be of one thread; nobody waits for a medium or a thread while they have it. A volume is used
 * by whoever has taken it (volumes.c), and by its doors.
 */
#ifndef SERVER_INTERNAL_H
#define SERVER_INTERNAL_H

#include <pthread.h>

#include <base/buffer.h>
#include <base/watch.h>
#include <block/partitions.h>
#include <block/stream.h>
#include <doors/cuse.h>
#include <doors/fuse.h>
#include <doors/nbd.h>
#include <doors/ring.h>
#include <files/tools.h>
#include <schema/usb.h>
#include <server/server.h>
#include <usb/disk.h>

enum {
    UNITS_MAX = 16,
    MOUNTS_MAX = 32,
    JOBS_MAX = 32,
    REQUEST_MAX = 64 << 10, /* bytes of a line */
    FDS_MAX = 4,            /* of a request */
    FDS_WAITING_MAX = 16,   /* that came, and whose request has not */
    OUTBOX_MAX = 1 << 20,   /* bytes that a peer has not read */
    FINDINGS_TOLD = 1000,   /* of a check; all are counted */
    LATENCIES = 26,         /* powers of two of microseconds: up to half a minute */
    STACK_SIZE = 256 << 10, /* bytes, of every thread */
};

struct server;

/* counted.c */

struct counts {
    _Atomic uint64_t operations, bytes, errors;
    _Atomic uint64_t latency[LATENCIES];
};

struct all_counts {
    struct counts reads, writes, flushes;
};

/* The same device, which is taken over, with its requests counted. */
struct block_device *counted_create(struct block_device *device, struct all_counts *counts,
                                    bool read_only);

/* volumes.c */

struct stick_mount {
    struct stick_mount *next;
    uint32_t number;
    struct server *server;
    struct stick_volume *volume;
    bool read_only;
    struct fuse_door *door;
    bool ended; /* of itself; the keeper closes it */
    enum fuse_door_end end;
    char *message;
};

enum volume_claim { CLAIM_NONE, CLAIM_READ, CLAIM_WRITE };

struct stick_volume {
    struct stick_volume *next; /* in the order of their numbers */
    uint32_t number, unit;
    struct partition partition; /* number 0: the whole medium */
    struct block_device *part;  /* owned */
    bool known;                 /* facts say what it is; else error says why not */
    struct volume_facts facts;
    char *error;
    const char *busy;        /* what is being done by the one who has taken it; NULL: nobody has */
    bool is_lengthy;         /* that is not waited for */
    enum volume_claim claim; /* what is done with its sectors */
    bool lost;               /* its medium is gone, or was formatted: nobody takes it any more */

    /* Of the one who has taken it; changed with the lock, too. */
    struct medium *medium; /* NULL: it is not mounted */
    struct volume *volume;
    struct served_volume *served;
    bool read_only, holds; /* holds: its unit, by source_hold() */
    bool is_failed;        /* it was said that its updates do not become durable */
    struct stick_mount *mounts;
};

enum block_door_kind { BLOCK_DOOR_NBD, BLOCK_DOOR_CUSE, BLOCK_DOOR_RING };

/* A unit that is given out as a block device. */
struct stick_block {
    uint32_t number;
    unsigned unit;
    struct server *server;
    enum block_door_kind kind;
    struct block_device *part;   /* the whole medium; owned */
    struct block_device *stream; /* the same, read ahead: what the door has; owned */
    bool read_only;              /* else its unit is held */
    union {
        struct nbd_door *nbd;
        struct cuse_door *cuse;
        struct ring_door *ring;
    };
    bool ended;      /* of itself; the keeper closes it */
    bool is_closing; /* somebody does */
    int result;      /* with ended */
    char *message;
};

struct server_unit {
    struct usb_unit_facts facts;
    struct block_device *fresh; /* a medium that the keeper has not seen yet */
    bool is_changed, is_lost;   /* for the keeper */
    bool is_rescanned;          /* the keeper reads its partitions anew */
    bool is_ejecting;           /* its volumes are not taken */

    struct block_device *medium; /* counted; the keeper's */
    bool is_read;                /* partitions are known */
    bool is_unreadable;          /* ... to be none, as their table cannot be read */
    bool is_taken;               /* unit_take() */
    unsigned holders;            /* source_hold() */
    struct stick_block *block;   /* NULL: it is not given out */
    enum partition_table table;
    char *error; /* why they are not */
};

struct connection {
    struct watch watch;
    uint64_t number; /* of all that there were */
    struct buffer in;
    int fds[FDS_WAITING_MAX];
    size_t fds_count;
};

enum source_state { SOURCE_OPENING, SOURCE_OPEN, SOURCE_GONE };

struct source_call;

struct server {
    const struct server_options *options;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a volume was given back, a job ended, a unit was read */

    /* control.c: the control thread's */
    int epoll;
    struct watch listener, wake;
    struct connection connection; /* watch.fd -1: there is none */
    bool is_heard;                /* by this process: anything at all */
    /* with the lock */
    uint64_t connection_number; /* 0: nobody is there */
    struct buffer outbox;
    bool is_stalled; /* too much was not read */

    /* jobs.c */
    unsigned jobs;
    struct job *cancellable; /* those under way that can be cancelled */
    bool is_ending;          /* no new ones */

    /* source.c, stick.c */
    const struct source_ops *source;
    enum source_state state;
    bool has_device;
    struct usb_stick_facts device;
    struct usb_stick
        *stick; /* NULL: not open, or closed; used by its thread only, but for waking */
    struct block_device *disks[UNITS_MAX]; /* the device thread's: what was told of each unit */
    struct source_call *calls;
    bool is_closing; /* the device thread ends when its disks are back */
    pthread_t device_thread;
    bool has_device_thread;
    struct usb_stick_counts stick_counts; /* the last, of a stick that is gone */

    /* keeper.c */
    pthread_cond_t work; /* for the keeper */
    pthread_t keeper;
    bool has_keeper;
    bool keeper_ends; /* closes everything and ends */

    struct server_unit units[UNITS_MAX];
    unsigned unit_count;
    struct stick_volume *volumes;
    uint32_t last_volume, last_mount, last_block;
    unsigned mount_count;

    struct all_counts counts;
    uint64_t cache_hits, cache_misses; /* of volumes that are closed */
    bool is_over;                      /* the control thread ends */
    enum server_end end;
};

/* control.c */

int control_open(struct server *server, struct error *err);
/* Until server->is_over, and what was to be told has been read, or two seconds went by. */
void control_run(struct server *server);
void control_wake(struct server *server); /* any thread */
void control_finish(struct server *server, enum server_end end);
/* Any thread, without the lock. An answer goes to the connection that the request came by. */
void control_answer(struct server *server, uint64_t connection, uint64_t id,
                    const struct usb_stick_result *result);
void control_refuse(struct server *server, uint64_t connection, uint64_t id,
                    const struct error *failure);
void control_tell(struct server *server, const struct usb_stick_event *event);
void control_tell_unit(struct server *server, unsigned unit, bool is_ready);

/* jobs.c */

struct job {
    struct job *next; /* of the cancellable ones */
    struct server *server;
    uint64_t connection;
    struct usb_stick_request *request; /* owned */
    int fds[FDS_MAX];                  /* owned; -1: taken, or none */
    size_t fds_count;
    _Atomic bool is_cancelled;
};

/* Takes request and descriptors over. */
void job_begin(struct server *server, uint64_t connection, struct usb_stick_request *request,
               const int *fds, size_t fds_count);
/* A thread of a size that fits, that is not waited for where ret_thread is NULL. */
int thread_start(void *(*run)(void *data), void *data, pthread_t *ret_thread, struct error *err);

/* All of them end as soon as they can. With the lock. */
void jobs_cancel(struct server *server);

/* What jobs do: 0 with what is to be said in *result, or -errno. */
int job_mount(struct job *job, struct usb_stick_result *result, struct error *err);
int job_unmount(struct job *job, struct usb_stick_result *result, struct error *err);
int job_sync(struct job *job, struct usb_stick_result *result, struct error *err);
int job_eject(struct job *job, struct usb_stick_result *result, struct error *err);
int job_format(struct job *job, struct usb_stick_result *result, struct error *err);
int job_check(struct job *job, struct usb_stick_result *result, struct error *err);
int job_stats(struct job *job, struct usb_stick_result *result, struct error *err);
int job_block(struct job *job, struct usb_stick_result *result, struct error *err);
int job_unblock(struct job *job, struct usb_stick_result *result, struct error *err);
int job_end(struct job *job, struct usb_stick_result *result, struct error *err);

/* source.c */

struct source_ops {
    /* Begins; units come by source_unit(). */
    int (*open)(struct server *server, struct error *err);
    /* Waits until the unit has let go of its medium. -EOPNOTSUPP: it cannot. */
    int (*eject)(struct server *server, unsigned unit, struct error *err);
    /* While it is held the unit keeps its medium, where it can. With the lock. NULL: it always
     * does. */
    void (*hold)(struct server *server, unsigned unit, bool held);
    void (*counts)(struct server *server, struct usb_stick_counts *ret_counts);
    /* Every medium was given back. Waits until nothing is left. */
    void (*close)(struct server *server);
};

extern const struct source_ops stick_source; /* stick.c */
extern const struct source_ops image_source;

/* A unit has come or is different. medium: where it has one that was not told before, which the
 * keeper destroys. */
void source_unit(struct server *server, unsigned unit, const struct usb_unit_facts *facts,
                 struct block_device *medium);
/* Somebody begins to write on the unit's medium, or has ended that. */
void source_hold(struct server *server, unsigned unit, bool begins);
/* The stick is gone, or could not be opened (failure). */
void source_gone(struct server *server, const struct error *failure);

/* device.c */

/* Bits of the interfaces that may be claimed, and the configuration that they are of. Before
 * anything of the device is used. */
int device_confine(int fd, uint32_t *ret_interfaces, uint8_t *ret_configuration, struct error *err);
/* Resets the device when the child asks for it by this socket, until that is closed. */
void device_help(pid_t child, int help, int fd, uint32_t interfaces);
/* Has it reset; data: the other end of the socket. 0 or -errno. */
int device_reset(void *help);

/* keeper.c */

int keeper_start(struct server *server, struct error *err);
void keeper_stop(struct server *server); /* every volume is closed when it returns */
/* Has the keeper read the unit's partitions again and waits for it. */
void keeper_rescan(struct server *server, unsigned unit);

/* units.c: the keeper only. */

void unit_read(struct server *server, unsigned unit);
/* Closes the volumes and lets go of the medium where it is lost. */
void unit_drop(struct server *server, unsigned unit, const char *reason, bool with_medium);
/* What the volume is, by its own words. Of the one who has taken it, or made it. */
void unit_identify(struct server *server, struct stick_volume *volume);

/* volumes.c */

/* Waits while somebody else has it; not when that is lengthy. -ENOENT, -EBUSY, -ENOMEDIUM. doing:
 * what is told meanwhile, static. */
int volume_take(struct server *server, uint32_t number, const char *doing, bool is_lengthy,
                struct stick_volume **ret_volume, struct error *err);
/* The unit's next one from this number on, though it is being ejected; what is lost is the keeper's
 * to close. NULL: there is none. -EBUSY. */
int volume_take_next(struct server *server, uint32_t number, unsigned unit, const char *doing,
                     struct stick_volume **ret_volume, struct error *err);
/* The keeper, for one that is there: as long as it takes. Nobody else lets one go. */
void volume_take_over(struct server *server, struct stick_volume *volume, const char *doing);
void volume_give(struct server *server, struct stick_volume *volume);
/* Partitions may lie in each other: what is written by one is nobody else's meanwhile. Of the one
 * who has taken it, until volume_unclaim(). -EBUSY. */
int volume_claim(struct server *server, struct stick_volume *volume, enum volume_claim claim,
                 struct error *err);
void volume_unclaim(struct server *server, struct stick_volume *volume);
int volume_open(struct server *server, struct stick_volume *volume,
                const struct usb_stick_mount *wanted, struct error *err);
/* Its mounts are closed. Nothing is said of a medium that is gone. */
int volume_close(struct server *server, struct stick_volume *volume, struct error *err);
/* The next one from this number on, of a unit (or of all: -1); NULL: there is none. With the lock.
 */
struct stick_volume *volume_from(struct server *server, uint32_t number, int unit);
void volume_free(struct stick_volume *volume);

/* Takes all volumes of a unit, none of which is mounted, or nothing. While they are taken its
 * medium stays. */
int unit_take(struct server *server, unsigned unit, const char *doing, struct error *err);
/* lost: they are not what they were. */
void unit_give(struct server *server, unsigned unit, bool lost);

/* mounts.c: of the one who has taken the volume. */

/* Closes a mount; the volume with its last one. */
int mount_close(struct server *server, struct stick_mount *mount, struct error *err);
/* All of a volume, each with the event. */
int mounts_close(struct server *server, struct stick_volume *volume, const char *reason,
                 struct error *err);
/* The keeper: those that ended of themselves. */
void mounts_reap(struct server *server, struct stick_volume *volume);

/* blocks.c */

/* Closes the unit's block device, if it has one; reason NULL: without the event. Waits for others
 * that do. The unit's partitions are read anew by the keeper. */
int block_close(struct server *server, unsigned unit, const char *reason, struct error *err);
/* A unit whose block device has ended of itself; -1: none has. With the lock. */
int block_to_reap(const struct server *server);
void block_reap(struct server *server, unsigned unit); /* the keeper */

/* status.c */

void status_of_block(const struct stick_block *block, struct usb_stick_blocked *blocked);

void status_fill(struct server *server, struct usb_stick_status *status);
void status_of_mount(const struct stick_mount *mount, struct usb_stick_mounted *mounted);

#endif
