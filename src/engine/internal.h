/*
 * What the engine's own files share. See README.md for the main flow.
 */
#ifndef ENGINE_INTERNAL_H
#define ENGINE_INTERNAL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <uv.h>

#include <base/error.h>
#include <base/process.h>
#include <cni/cni.h>
#include <engine/engine.h>
#include <net/net.h>
#include <net/pool.h>
#include <schema/management.h>
#include <schema/records.h>
#include <schema/registries.h>
#include <schema/usb_settings.h>
#include <schema/userns.h>
#include <store/snapshot.h>
#include <store/staging.h>
#include <store/store.h>

#include "disk.h"
#include "link.h"

enum { CONTAINER_ID_DIGITS = 64, EXEC_ID_DIGITS = 64, NETWORK_ID_DIGITS = 64 };

/* The names are those of record_container.state; see container_state_names. */
enum container_state {
    CONTAINER_CREATED,
    CONTAINER_STARTING,
    CONTAINER_RUNNING,
    CONTAINER_RESTARTING, /* its monitor waits for the next run */
    CONTAINER_EXITED,
    CONTAINER_REMOVING,
    CONTAINER_DEAD, /* its removal failed half way, or nobody can read its record: rm is all there
                       is */
};

struct engine {
    uv_loop_t *loop;
    const struct instance *instance;
    char *monitor_program; /* owned paths */
    char *runtime_program;
    char *image_program;
    char *names_program;
    char *relay_program;
    char *init_program;
    char *logpack_program;
    char *registry_program;

    struct store *store;
    struct disk *disk;
    struct garbage *garbage; /* NULL: not asked for */
    struct {
        struct errand *first; /* those that wait */
        unsigned count;       /* at work */
    } errands;

    struct net *net;
    struct error net_error;    /* set: why no container can have a place on a network */
    struct network **networks; /* oldest first; the engine's own are among them */
    size_t networks_count;
    struct helper *nameserver, *relay; /* NULL: not needed yet */
    struct lingering *lingering;       /* NULL: no link has lingered yet */
    struct cni_settings *cni;          /* owned; NULL: none */
    uv_poll_t net_poll;
    uv_timer_t spare_timer;
    bool net_handles_open;

    struct container **containers; /* oldest first */
    size_t containers_count;
    struct volume **volumes; /* by name */
    size_t volumes_count;
    struct engine_waiter *exec_waiters;
    struct engine_listed *listed; /* owned; NULL: nobody has asked for editions (list.c) */

    unsigned cpus;
    bool cgroup_v2;
    bool rootless;             /* root of a user namespace: the machine is outside */
    const char *cgroup_parent; /* of the containers; NULL: they have no cgroups */
    bool cgroup_kept;          /* disk thread: the instance's parent cgroup has been made */
    uv_timer_t adoption_timer;
    bool adoption_late;
    struct registries_settings *registries;     /* owned; NULL: none */
    struct userns_settings *userns;             /* owned; NULL: none */
    struct usb *usb;                            /* usb.h */
    struct usb_settings_settings *usb_settings; /* until usb has them; owned; NULL: none */
    char *libexec;                              /* owned path */
    struct transfer *transfers;                 /* under way; transfer.c */
    unsigned image_calls; /* of images.c and commit.c that use the store on other threads */
    unsigned archives;    /* of those: that are being loaded, saved or imported */
    struct task *tasks;   /* image workers under way (task.h) */
    struct build *builds; /* under way */
    bool removing;        /* the whole instance */
    bool gone;            /* so far that only another daemon can go on */
    unsigned repairs;     /* checks that may exchange layers: nothing may start on one meanwhile */
    unsigned adopting;    /* monitors that have not said how their container is */
    bool ending;          /* engine_end(): the loss of a link means nothing any more */
    void (*on_event)(struct api_event *event, void *data);
    void *on_event_data;
};

/* A stream that was asked for before the container's start. */
struct attachment {
    struct attachment *next;
    int fd; /* the monitor's end */
    struct monitor_attach how;
};

struct exec_session {
    struct exec_session *next;
    char id[EXEC_ID_DIGITS + 1];
    struct api_container_exec *how; /* NULL: an earlier daemon started it */
    bool started;
    bool running;
    int pid; /* 0: not known */
    int exit_code;
};

struct container {
    struct engine *engine;
    unsigned references; /* the table's, and one per operation or callback under way */
    char id[CONTAINER_ID_DIGITS + 1];
    char *name;
    char *next_name;                      /* taken by a rename that is not committed; or NULL */
    struct api_container_spec *spec;      /* as asked for */
    struct api_container_spec *effective; /* merged; only update.c changes something in them */
    struct record_container *record;
    enum container_state state;
    bool hidden;       /* its creation is not committed yet: the name is taken, nothing else */
    bool drop_volumes; /* its anonymous volumes go with it: rm -v */
    bool unreadable;   /* its row, which stays as it is */
    bool recovering;   /* its monitor is gone and what it left is being cleaned */

    struct link *link; /* to its monitor; NULL: none */
    struct {
        struct revival *revival; /* a start that will come; NULL: none */
        unsigned losses;         /* of its monitor, one soon after the other */
        bool restarting;         /* the start that is submitted is no new beginning */
    } supervision;
    struct watchdog *watchdog;   /* it was asked to end; or NULL */
    bool holds_volumes;          /* with options, though it may not run (volumes_hold()) */
    unsigned holders;            /* image workers that have its root mounted (task_hold()) */
    struct operation *held_back; /* begins when they have ended; or NULL */
    struct engine_copy *copies;  /* of its files, while it ran when they began */
    struct attachment *attachments;
    size_t attachments_count;
    struct exec_session *execs;
    struct engine_waiter *waiters;
    size_t waiters_count;
    struct operation *operations; /* the first one is under way */

    struct place **places; /* on networks, the main one first; addresses are held while it runs */
    size_t places_count;
    int names_udp_fd, names_tcp_fd;       /* for the name server; > 0 until it has them */
    struct net_publication *publications; /* while it runs */
    size_t publications_count;
    struct relayed *relayed; /* sockets that cloche-relay has or shall have (relay.c) */
    size_t relayed_count;
    bool ports_by_plugins; /* they are not in the rules of net */
    bool leaving;          /* it has ended, and plug-ins take its networks back (cni.c) */
};

enum network_kind { NETWORK_BRIDGE, NETWORK_HOST, NETWORK_NONE, NETWORK_CNI };

/* A network, from its record. */
struct network {
    char id[NETWORK_ID_DIGITS + 1];
    enum network_kind kind;
    bool builtin; /* bridge, host, none */
    bool hidden;  /* its creation is not committed yet, or its removal has begun */
    struct record_stored_network *record;
    struct net_subnet subnet; /* of a bridge */
    struct net_subnet6 subnet6;
    struct net_bridge *bridge; /* NULL: there is no network at all */
    struct net_pool *addresses;
};

/* A container's place on a network: what was asked for, and while it runs what it got. */
struct place {
    char *network_name; /* as it was named */
    char network_id[NETWORK_ID_DIGITS + 1];
    struct network *network;     /* NULL: not found yet, or removed */
    struct api_endpoint *wanted; /* never NULL */
    bool held;                   /* the rest is true */
    char endpoint_id[NETWORK_ID_DIGITS + 1];
    struct net_interface interface;
    struct cni_addresses found; /* by plug-ins; addresses are in interface, too */
    bool attached;              /* plug-ins were asked for it and are to be told its end */
};

/* --- container.c: the table ------------------------------------------------------------------- */

extern const char *const container_state_names[];

struct container *container_ref(struct container *container);
void container_unref(struct container *container); /* NULL allowed */

/* Puts a container into the table, which takes the reference over. */
void container_table_add(struct engine *engine, struct container *container);
void container_table_remove(struct container *container);

bool container_name_in_use(struct engine *engine, const char *name);
/* -EEXIST with docker's text. */
int container_check_name_free(struct engine *engine, const char *name, struct error *err);
bool container_is_active(const struct container *container); /* starting, running, restarting */

/* For `what`, in the plural: -EOPNOTSUPP where containers have no cgroups. */
int engine_need_cgroups(const struct engine *engine, const char *what, struct error *err);
/* Cgroup that its own is in, without slashes at the ends; NULL: it has none. */
const char *container_cgroup_parent(const struct container *container);

/* Sets state in memory and in the record (which is not committed by this). */
void container_set_state(struct container *container, enum container_state state);
void container_set_error(struct container *container, const char *text); /* NULL: none */

/* Owned paths: RUN/containers/ID and ROOT/containers/ID, and a file in it where name is not NULL.
 */
char *container_run_path(const struct container *container, const char *name);
char *container_root_path(const struct container *container, const char *name);

/* --- records.c: state.db ---------------------------------------------------------------------- */

int records_migrate(struct store_db *db, struct error *err);
/* Fills the table, oldest first. Blocks; before the loop runs. */
int records_load(struct engine *engine, struct error *err);

/* A change of one record, made on the loop's thread from what the container is then, run on the
 * disk thread. */
struct record_change {
    struct store_db *db;
    char *id, *name, *spec, *effective; /* owned; spec NULL: only the record changes */
    char *record;                       /* NULL: a new name and nothing else */
    bool remove;
    bool insert;
};
void record_change_insert(struct record_change *change, const struct container *container);
void record_change_update(struct record_change *change, const struct container *container);
void record_change_rename(struct record_change *change, const struct container *container,
                          const char *name);
/* The specification too. */
void record_change_limits(struct record_change *change, const struct container *container);
void record_change_remove(struct record_change *change, const struct container *container);
int record_change_run(const struct record_change *change, struct error *err);
void record_change_finish(struct record_change *change);

/* engine_container_create(). build_step: nobody wants it any more when this daemon has died. */
void container_create(struct engine *engine, const struct api_container_spec *spec, bool build_step,
                      engine_done done, void *data);

/* Commits the record as it is now, some time soon; a failure is logged. */
void container_commit_record(struct container *container);
/* The same, and deletes the run folder afterwards. */
void container_commit_end(struct container *container);

/* --- list.c ------------------------------------------------------------------------------------
 */

void engine_listed_free(struct engine_listed *listed); /* NULL allowed */

/* --- operation.c: one thing at a time per container ------------------------------------------- */

struct operation;
struct operation_kind {
    const char *name;
    void (*begin)(struct operation *operation);
    /* The container has ended while this operation is under way. May be NULL. */
    void (*container_ended)(struct operation *operation);
    /* Another one waits for it. May be NULL. */
    void (*awaited)(struct operation *operation, const struct operation *by);
    void (*release)(struct operation *operation); /* frees the whole of it */
};

/* First member of each kind's own structure. */
struct operation {
    const struct operation_kind *kind;
    struct operation *next;
    struct container *container; /* a reference */
    engine_done done;            /* may be NULL */
    void *data;
};

/* Takes operation over; begins it now or when those before it have ended. */
void operation_submit(struct container *container, struct operation *operation, engine_done done,
                      void *data);
/* The operation under way goes on as another one, which is taken over and begun; who waits for it
 * is told by done. */
void operation_replace(struct operation *operation, struct operation *by, engine_done done,
                       void *data);
/* Ends the operation that is under way, tells, and begins the next one. err NULL: success. */
void operation_finish(struct operation *operation, const struct error *err, bool changed);
void operation_finish_result(struct operation *operation, const struct engine_result *result);
/* Whether an operation of this kind is under way or waits. */
bool operation_pending(const struct container *container, const struct operation_kind *kind);

/* What a function that may fail left in err, by what it returned: a function that succeeds may have
 * tried something else before and have said so. From here on err->code decides. */
void engine_settle(struct error *err, int r);

/* A result that says only that something failed; and telling it. */
void engine_fail(engine_done done, void *data, const struct error *err);
#define ENGINE_RESULT_INIT                                                                         \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* --- network.c: the engine's side of net -------------------------------------------------------
 */

/* Opens the network and makes the recorded networks known. A failure is remembered in
 * engine->net_error. */
int network_open(struct engine *engine, struct error *err);
int network_setup(struct engine *engine, struct error *err);
void network_close(struct engine *engine);
void network_free_all(struct engine *engine);

/* --- networks.c: the table ---------------------------------------------------------------------
 */

/* Fills the table; the networks that are always there are recorded where they are missing. Blocks;
 * before the loop runs. */
int networks_load(struct engine *engine, struct error *err);
/* By name, full ID, or unique prefix of an ID. -ENOENT, -EEXIST. */
int network_find(struct engine *engine, const char *reference, struct network **ret,
                 struct error *err);
struct network *network_by_id(struct engine *engine, const char *id); /* or NULL */
struct network *network_by_name(struct engine *engine, const char *name);
void network_free(struct network *network); /* NULL allowed */

/* --- place.c: containers on networks -----------------------------------------------------------
 */

/* What the specification says about networks, into container->places. Pure. */
void places_plan(struct container *container);
/* Finds the networks of its places, as far as they are there. */
void places_resolve(struct container *container);
/* From and into the record. */
void places_read(struct container *container);
void places_write(struct container *container);
void places_free(struct container *container);
/* The one whose addresses ports lead to and whose gateway is the default route; NULL: none is held.
 */
struct place *places_main(const struct container *container);
/* What goes with its addresses; prefix 0: it has none of the family. */
unsigned place_prefix(const struct place *place);
unsigned place_prefix6(const struct place *place);
struct in_addr place_gateway(const struct place *place);
struct in6_addr place_gateway6(const struct place *place);
struct place *places_find(const struct container *container, const struct network *network);
void place_free(struct place *place);
/* Reserves addresses for it. */
int place_hold(struct container *container, struct place *place, struct error *err);
void place_release(struct place *place);

/* Reserves what a running container holds by its record, for adoption. */
void network_restore(struct container *container);
/* Addresses and the published ports for a container that starts; written to its record. */
int network_reserve(struct container *container, struct error *err);
/* The namespace for it, -1 for the host's and for that of another container. made_fd: an empty one
 * that is to be used where it gets one of its own, which stays the caller's; -1: a new one. */
int network_create(struct container *container, int made_fd, int *ret_netns_fd, struct error *err);
/* The network namespace of a running container: as its monitor holds it, which also does so while
 * the container is between two lives. */
int container_open_netns(const struct container *container, int *ret_fd, struct error *err);
/* Takes back what network_reserve or network_restore took. */
void network_release(struct container *container);
bool network_is_host(const struct container *container);
/* The container whose network this one shares: its reference, or NULL. */
const char *network_shared_with(const struct container *container);

/* --- ports.c ------------------------------------------------------------------------------------
 */

/* Publishes what the container wants at its main place; what was published before an error stays
 * recorded (ports_withdraw). */
int ports_publish(struct container *container, struct error *err);
void ports_withdraw(struct container *container);
void ports_restore(struct container *container);
void ports_write(struct container *container); /* into the record */

/* --- start.c, lifecycle.c, remove.c, recover.c -------------------------------------------------
 */

extern const struct operation_kind start_operation_kind;
extern const struct operation_kind restart_operation_kind;
struct operation *start_operation_create(void);
extern const struct operation_kind remove_operation_kind;

extern const struct link_handlers container_link_handlers; /* data: the container */

/* The container's first process runs: state and record. */
void container_started(struct container *container, int pid, int64_t started);

struct container_end {
    int exit_code;
    bool oom;
    int64_t finished;
    bool never_ran;  /* cut off in its start: it is again what it was before */
    bool lost;       /* with its monitor, which would have restarted it */
    const char *why; /* NULL: the exit code is the program's own */
};
/* It waits for its next run; and what its checks say has changed. */
void container_restarting(struct container *container, const struct monitor_restarting *how);
void container_health_changed(struct container *container, uint32_t status);

/* It has ended and everything of it in the kernel is gone: releases the network and the link,
 * answers those who wait, commits, tells the operation under way, removes it with autoRemove. */
void container_ended(struct container *container, const struct container_end *end);

/* Its monitor is gone, by what it left in the run folder: ends in container_ended(). */
void container_recover(struct container *container);

void container_drop_attachments(struct container *container);

/* --- archive.c -------------------------------------------------------------------------------- */

/* Whether the operation has to wait until nobody has the container's root mounted: two overlays of
 * one upper folder are not to be. It is begun again then. With end, those copies that were begun
 * while it ran are cancelled. */
bool container_holds_back(struct operation *operation, bool end);
/* Ends all copies, those that wait as well. */
void archives_cancel(struct engine *engine);

/* --- system.c --------------------------------------------------------------------------------- */

/* A removal of the whole instance that failed half-way goes on, before anything is opened. Blocks.
 */
int instance_finish_removal(const struct instance *instance, struct error *err);

/* All but the number of images; owned by the caller. */
struct api_system_info *system_info(struct engine *engine);

/* --- wait.c ----------------------------------------------------------------------------------- */

void waiters_container_ended(struct container *container);
void waiters_container_removed(struct container *container);
void waiters_exec_ended(struct engine *engine, const struct exec_session *session);
void waiters_drop_all(struct engine *engine);

/* --- attach.c --------------------------------------------------------------------------------- */

/* text: "ctrl-p,ctrl-q" and the like; NULL or "": none. -EINVAL. */
int detach_parse(const char *text, struct monitor_detach *ret, struct error *err);

/* --- exec.c ----------------------------------------------------------------------------------- */

struct exec_session *exec_session_find(struct engine *engine, const char *id,
                                       struct container **ret_container);
/* An earlier daemon started it. */
void exec_adopt(struct container *container, const char *id, int pid);
/* Of those that run, or are prepared to. Owned string list. */
char **exec_live_ids(const struct container *container);
void exec_ended(struct container *container, const char *id, int exit_code);
void exec_end_all(struct container *container); /* with 137, when the container has ended */
void exec_free_all(struct container *container);

#endif
