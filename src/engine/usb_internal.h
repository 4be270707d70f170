/*
 * What the engine's files about USB share: usb.c (the table), usb_watch.c (what the kernel says of
 * devices), usb_rules.c (the policy's rules), usb_stick.c (one device), usb_process.c (its
 * process), usb_room.c (what that has for itself), usb_record.c (for the next daemon), usb_pulse.c
 * (whether it lives), usb_ending.c (its end), usb_mounts.c, usb_fuse.c and usb_blocks.c (what of it
 * is in containers), usb_devices.c (itself in containers), usb_find.c and usb_calls.c (what clients
 * ask for).
 */
#ifndef ENGINE_USB_INTERNAL_H
#define ENGINE_USB_INTERNAL_H

#include <schema/usb.h>
#include <schema/usb_settings.h>

#include "internal.h"
#include "usb_identity.h"
#include "usb_link.h"
#include "usb_policy.h"

enum {
    USB_ID_MAX = 64,
    USB_KEY_DIGITS = 8,
    USB_STICKS_MAX = 128,
    USB_RULES_MAX = 256, /* that were added */
    USB_MEMORY = 128 * 1024 * 1024,
    USB_USERS = 256, /* that processes of sticks run as; more than sticks, as some still end */
};

enum stick_state {
    STICK_DENIED,
    STICK_KERNEL, /* the kernel's drivers have it, or may */
    STICK_IDLE,   /* allowed, and nobody wants it */
    STICK_STARTING,
    STICK_READY,
    STICK_WAITING, /* its process has failed and is started again */
    STICK_FAILED,
    STICK_EJECTED, /* until it is pulled out */
};

struct usb_rule {
    int64_t id;
    struct api_usb_rule *rule; /* owned */
};

/* A volume in a container. */
struct usb_place {
    struct usb_place *next;
    char container[CONTAINER_ID_DIGITS + 1];
    pid_t pid; /* of its first process: of another one there is nothing mounted */
    char *target;
    uint32_t number; /* of cloche-usb; 0: it is not served yet */
    uint32_t volume;
    uint64_t device; /* st_dev; 0: it is nowhere in the container */
    bool read_only, placed;
    bool failed; /* until something changes it is not tried again */
};

enum usb_via { USB_VIA_NBD, USB_VIA_CUSE, USB_VIA_RING };

/* A unit as a block device in a container. */
struct usb_given {
    struct usb_given *next;
    char container[CONTAINER_ID_DIGITS + 1];
    pid_t pid; /* of its first process */
    char *target;
    enum usb_via via;
    uint32_t unit;
    uint32_t number; /* of cloche-usb; 0: it is not given out yet */
    uint32_t index;  /* of the kernel's NBD devices */
    unsigned major_number, minor_number;
    bool read_only, placed;
    bool connected; /* the kernel's NBD device is */
    bool failed;    /* until something changes it is not tried again */
};

enum pass_state {
    PASS_ADDING,
    PASS_THERE,
    PASS_REMOVING,
    PASS_REFUSED, /* until something changes */
    PASS_FAILED,  /* until it is plugged in again, or the container starts again */
};

enum { USB_NODE_MAX = 256 };

/* A device itself in a container. */
struct usb_pass {
    struct usb_pass *next;
    char type; /* of its node: b, c */
    bool read_only;
    char node[USB_NODE_MAX]; /* its path */
    char container[CONTAINER_ID_DIGITS + 1];
    pid_t pid; /* of its first process: another one has a /dev of its own */
    char port[USB_PORT_MAX];
    unsigned bus, device, major_number, minor_number;
    enum pass_state state;
};

struct stick {
    struct usb *usb;
    unsigned references; /* the table's, and one per callback under way */
    char id[USB_ID_MAX];
    /* Of its files in RUN/usb and its cgroup: its own, since the process of one that was pulled out
     * may still end when the next one has its place. */
    char key[USB_ID_MAX + 1 + USB_KEY_DIGITS + 1];
    char *url; /* of a remote one; owned */
    struct usb_identity identity;
    bool identified;
    enum stick_state state;
    char *error;     /* owned; NULL: none */
    bool wanted;     /* by usb.attach */
    bool gone;       /* from the table; the rest is of callbacks */
    bool authorized; /* its interfaces were authorised for cloche-usb */
    bool locked;     /* its media may be, by its process or one before */
    uint8_t chosen;  /* by the kernel: the configuration before ours; 0: ours is not another */

    struct usb_link *link;
    pid_t pid; /* 0: there is no process */
    int pidfd;
    uint64_t started;
    uint32_t user;      /* its own; 0: none */
    bool child;         /* of ours: its end is told by that */
    bool is_old;        /* an older daemon's: its mounts do not have its name */
    bool adopted;       /* of an earlier daemon's; a reference, until it has ended */
    bool swept;         /* ... and what that had begun is taken back */
    bool ending;        /* its process is to end */
    bool eject;         /* and to let go of its medium before */
    bool asked;         /* it was told so */
    char *amiss;        /* owned; what first went wrong with that; NULL: nothing */
    unsigned unplacing; /* children that unmount */
    unsigned failures;
    uint64_t running_since_ms;
    uv_timer_t *timer; /* until the process is started again; or NULL */
    struct starting *starting;
    struct dropping *dropping;       /* its cgroup, in which something still is; or NULL */
    bool asking, ask_again;          /* for its status */
    struct usb_stick_status *status; /* owned; NULL: not known yet */
    struct usb_place *places;
    struct usb_connection *connections;
    struct usb_given *given;
    struct stick_waiter *waiters; /* for ready, or for its end */
    struct stick_call *calls;     /* format and check under way */
};

struct usb {
    struct engine *engine;
    char *program;
    struct usb_settings_settings *settings; /* owned; NULL: none */
    bool local;                             /* this machine's devices are looked at */
    bool exclusive;
    struct usb_rule *rules; /* that were added, in their order */
    size_t rules_count;
    struct stick **sticks; /* by place, remote ones last */
    size_t sticks_count;
    unsigned remotes; /* how many there have been */
    int uevents_fd, devices_fd;
    int fusectl_fd; /* a mount; -1: not yet */
    uv_poll_t *uevents;
    bool looking, look_again;
    unsigned errands;       /* on other threads */
    struct usb_turn *turns; /* those of usb_turns.h, the oldest first */
    bool looked;            /* what is there is known */
    struct usb_pass *passes;
    bool passes_loaded;   /* what an earlier daemon has passed */
    uv_timer_t *pulse;    /* or NULL */
    uint32_t users_first; /* 0: there are none */
    unsigned users_next;
    bool users[USB_USERS]; /* that somebody has */
    bool ending;
};

extern const char *const stick_state_names[];

/* --- usb.c ------------------------------------------------------------------------------------ */

char *usb_run_path(const struct usb *usb, const char *name, const char *suffix); /* owned */
struct stick *stick_ref(struct stick *stick);
void stick_unref(struct stick *stick);
struct stick *usb_stick_by_id(const struct usb *usb, const char *id); /* or NULL */
/* NULL: there are too many. */
struct stick *usb_stick_add(struct usb *usb, const char *id, const char *url);

/* --- usb_rules.c ------------------------------------------------------------------------------ */

int usb_rules_load(struct usb *usb, struct error *err); /* blocks */
void usb_rules_free(struct usb *usb);
enum usb_verdict usb_judge(const struct usb *usb, const struct usb_identity *identity,
                           const char *place);

/* --- usb_watch.c ------------------------------------------------------------------------------ */

/* Listens to uevents and looks at what is there. Blocks shortly. */
void usb_watch_open(struct usb *usb);
void usb_watch_close(struct usb *usb);
/* Looks at all devices anew, on another thread. */
void usb_watch_look(struct usb *usb);

/* --- usb_stick.c ------------------------------------------------------------------------------ */

/* What became of it by rules and wishes: starts its process, or lets go of it. */
void stick_settle(struct stick *stick);
void stick_settle_all(struct usb *usb);
void stick_set_state(struct stick *stick, enum stick_state state, const char *error);
void stick_event(const struct stick *stick, const char *action, const char *error,
                 const char *container);

/* err NULL: what was waited for has happened. */
enum stick_wait { STICK_WAIT_LOOK /* what it is, is known */, STICK_WAIT_READY, STICK_WAIT_END };
typedef void (*stick_done)(struct stick *stick, const struct error *err, void *data);
void stick_wait(struct stick *stick, enum stick_wait what, stick_done done, void *data);
void stick_tell(struct stick *stick, enum stick_wait what, const struct error *err);
void stick_ask_status(struct stick *stick);
extern const struct usb_link_handlers stick_link_handlers;

/* --- usb_ending.c ----------------------------------------------------------------------------- */

/* Unmounts, ends the process, and tells who waits for that. */
void stick_let_go(struct stick *stick, bool eject);
/* It was pulled out, or detached: out of the table. */
void stick_gone(struct stick *stick);
/* Said to those who wait for the end; the first stays. */
void stick_goes_amiss(struct stick *stick, const char *what);
/* Its process has ended, with this exit code; -1: nobody knows. */
void stick_ended(struct stick *stick, int code);
void stick_start_failed(struct stick *stick, const struct error *err);
void stick_stop_timer(struct stick *stick); /* until it is started again */
/* The kernel's drivers get it, or (withdraw) lose what was authorised for cloche-usb. */
void stick_hand_over(struct stick *stick, bool withdraw);
/* The configuration that the kernel had chosen; the daemon ends. Blocks. */
void stick_give_back(struct stick *stick);

/* --- usb_process.c ---------------------------------------------------------------------------- */

uint64_t usb_memory(const struct usb *usb); /* bytes that it may have */
/* Opens the device and starts cloche-usb with it; a failure comes by stick_start_failed(). */
void stick_process_start(struct stick *stick);
/* Asks it to end when the mounts are gone, and kills it when it does not, or they do not go. */
void stick_process_end(struct stick *stick);
void stick_process_kill(struct stick *stick);
/* What is left of it: link, record, socket, cgroup. */
void stick_process_clear(struct stick *stick);
/* Killed, waited for, cleared away. Blocks. */
void stick_process_destroy(struct stick *stick);
/* An earlier daemon's: true when it lives and is spoken to. */
bool stick_process_adopt(struct stick *stick, const struct usb_settings_record *record);
void stick_process_forget(struct stick *stick); /* it goes on without us */

/* --- usb_record.c ----------------------------------------------------------------------------- */

/* For the next daemon. */
void stick_record(const struct stick *stick);

/* --- usb_room.c ------------------------------------------------------------------------------- */

void usb_room_open(struct usb *usb);
uint32_t usb_room_new_user(struct usb *usb);
void usb_room_take_user(struct usb *usb, uint32_t user); /* an earlier daemon's */
void usb_room_drop_user(struct usb *usb, uint32_t user);
/* Of its cgroup; owned. */
char *usb_room_name(const struct stick *stick);
int usb_room_make(const struct usb *usb, const char *name, struct error *err); /* any thread */
/* As soon as nothing is in it; until then the stick is not started again. */
void usb_room_drop(struct stick *stick);
void usb_room_forget(struct stick *stick); /* is not dropped any more */
void usb_room_sweep(struct usb *usb);      /* what an earlier daemon has left */

/* --- usb_pulse.c ------------------------------------------------------------------------------ */

unsigned usb_patience(const struct usb *usb); /* seconds for an answer */
/* Asks processes of which something is in containers whether they live, as long as there are any.
 */
void usb_pulse_start(struct usb *usb);
void usb_pulse_stop(struct usb *usb);
/* Whether its process lives: that needs nothing of the stick, which may be slow. */
void stick_ask_in_a_hurry(struct stick *stick);

/* --- usb_mounts.c ----------------------------------------------------------------------------- */

/* It runs, and which process is its first is known. */
bool usb_container_runs(const struct container *container);
/* Mounts what is wanted and is not there yet. */
void usb_mounts_settle(struct usb *usb);
/* Takes all of its mounts out of containers. */
void stick_unmount_all(struct stick *stick);
void stick_unmounted(struct stick *stick, const struct usb_stick_unmounted *event);
/* Mounts that an earlier daemon had begun, or does not know of: its process has just said what it
 * has. */
void stick_sweep(struct stick *stick);
/* Whether a running container asks for this stick. */
bool stick_is_wanted(const struct stick *stick);
void place_free_all(struct stick *stick);

/* Whether it is the one that is asked for by device and place; NULL: any. */
bool stick_fits(const struct stick *stick, const char *device, const char *port);

/* --- usb_connections.c ------------------------------------------------------------------------ */

/* The FUSE file system of this device, which is this stick's and still there, for this container.
 */
void usb_connection_keep(struct stick *stick, const char *container, uint64_t device);
/* Those of an earlier daemon, of the places that it has left. Reads procfs. */
void usb_connections_adopt(struct stick *stick);
/* Whoever waits for one of them hears that it is gone. container: NULL: all. */
void usb_connections_abort(struct stick *stick, const char *container);
void usb_connections_free(struct stick *stick);

/* --- usb_blocks.c ----------------------------------------------------------------------------- */

/* Gives out what is wanted and is not there yet. */
void usb_blocks_settle(struct usb *usb);
/* Whether a running container asks for all of this stick. */
bool stick_is_wanted_whole(const struct stick *stick);
/* Takes the stick's devices out of containers. */
void stick_take_blocks(struct stick *stick);
void stick_unblocked(struct stick *stick, const struct usb_stick_unblocked *event);
void usb_blocks_ended(struct usb *usb, const struct container *container);
/* For the next daemon, and from an earlier one. *ret_count pointers; owned. */
struct usb_settings_given **usb_blocks_record(const struct stick *stick, size_t *ret_count);
void usb_given_free_all(struct stick *stick);
void usb_blocks_adopt(struct stick *stick, const struct usb_settings_record *record);

/* --- usb_blocks_kernel.c ---------------------------------------------------------------------- */

extern const char *const usb_via_names[];
/* nbd or cuse, what the kernel has. wanted: NULL, or what it is to be. -EOPNOTSUPP. */
int usb_via_choose(const char *wanted, enum usb_via *ret, struct error *err);
/* A device of the kernel's on this connected socket. Does not wait. */
int usb_nbd_connect(int fd, const struct usb_stick_blocked *blocked, uint32_t *ret_index,
                    struct error *err);
void usb_nbd_disconnect(uint32_t index);
/* A name that no device has, and a descriptor for it. */
int usb_cuse_open(char *ret_name, size_t size, struct error *err);
/* MAJOR:MINOR of a file of sysfs. */
int usb_device_number(const char *path, unsigned *ret_major, unsigned *ret_minor,
                      struct error *err);

/* --- usb_devices.c ---------------------------------------------------------------------------- */

/* Devices themselves into containers that are to have them, and out again. */
void usb_devices_settle(struct usb *usb);
/* The container that has it, or is about to; or NULL. */
const struct usb_pass *usb_devices_holder(const struct stick *stick);
bool usb_pass_is_of(const struct usb_pass *pass, const struct stick *stick);
void usb_devices_ended(struct usb *usb, const struct container *container);
void usb_devices_free(struct usb *usb);

/* -EOPNOTSUPP: what is asked for is nothing for the engine of an ordinary user. */
int usb_check_root(const struct engine *engine, const char *what, struct error *err);

/* --- usb_devices_run.c ------------------------------------------------------------------------ */

/* Makes the node in the container and lets it be used, or takes both back. done comes once, later;
 * not when this fails. err NULL: it is done. */
typedef void (*usb_pass_done)(struct usb *usb, const struct usb_pass *pass,
                              const struct error *err);
int usb_pass_run(struct usb *usb, const struct usb_pass *pass, bool add, usb_pass_done done,
                 struct error *err);

/* What of it the next daemon is to know. */
void usb_passes_record(const struct usb *usb, const struct container *container);
void usb_passes_load(struct usb *usb, const struct container *container);

/* --- usb_find.c ------------------------------------------------------------------------------- */

/* By its name, URL, serial number, or VENDOR:PRODUCT[:SERIAL]. -ENOENT, -EEXIST. */
int usb_find(struct engine *engine, const char *reference, struct stick **ret, struct error *err);
struct api_usb_stick *usb_describe(const struct stick *stick); /* owned */

/* --- usb_calls.c ------------------------------------------------------------------------------ */

void stick_progress(struct stick *stick, const struct usb_stick_progress *progress);
void stick_finding(struct stick *stick, const struct usb_stick_finding *finding);

#endif
