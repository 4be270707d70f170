/*
 * The engine: containers and what they need, from their record to their running process.
 *
 * Everything is called on the loop's thread and nothing blocks, but engine_create() and
 * engine_end(). What takes time ends in a callback, which is called exactly once, possibly
 * before the call returns. Structs that go in stay the caller's and may go after the call.
 *
 * A struct container pointer is valid until control returns to the loop; keep the ID instead.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include <base/error.h>
#include <base/instance.h>
#include <schema/cni.h>
#include <schema/image_worker.h>
#include <schema/management.h>
#include <schema/usb_settings.h>

struct engine;
struct container;
struct engine_waiter;

enum {
    ENGINE_CONTAINERS_MAX = 10000, /* records */
    ENGINE_ATTACHMENTS_MAX = 64,   /* streams that wait for a container's start */
    ENGINE_EXECS_MAX = 64,         /* exec sessions of a container that are remembered */
    ENGINE_WAITERS_MAX = 4096,     /* waits for one container */
    ENGINE_NETWORKS_MAX = 1024,    /* records */
    ENGINE_PLACES_MAX = 32,        /* networks of one container */
};

/* err->code of failures that errno has no word for. */
enum engine_error {
    ENGINE_NO_SUCH_IMAGE = -5000,
    ENGINE_PROGRAM_NOT_EXECUTABLE = -5126, /* docker's exit code 126 */
    ENGINE_PROGRAM_NOT_FOUND = -5127,      /* 127 */
};

struct engine_config {
    const struct instance *instance; /* must outlive the engine */
    uv_loop_t *loop;
    const char *libexec; /* folder of cloche-monitor and cloche-image */
    const char *runtime; /* path of cloche-runtime */
    /* Something happened, also while engine_create() runs. The event is taken over
     * (api_event_free()). NULL: not told. */
    void (*on_event)(struct api_event *event, void *data);
    void *on_event_data;
    struct cni_settings *cni;          /* taken over; NULL: none */
    struct usb_settings_settings *usb; /* taken over; NULL: none */
    bool rootless;             /* root of an ordinary user's namespaces: the machine is outside */
    const char *cgroup_parent; /* of the containers, without slashes at the ends; must outlive the
                                * engine. NULL: they have no cgroups */
};

/* Opens the instance's state, sets its network up, and adopts the containers that run: when it
 * returns, every container's state is true. Blocks for all of that and runs the loop meanwhile.
 * -EBUSY: another daemon has the instance. */
int engine_create(const struct engine_config *config, struct engine **ret, struct error *err);

/* Lets go of everything; containers run on. Waits for commits under way; callbacks that are still
 * owed come now, with an error. Then run the loop until it is empty, then free. NULL allowed. */
void engine_end(struct engine *engine);
void engine_free(struct engine *engine);

/* How something ended. Pointers are valid during the callback. */
struct engine_result {
    const struct error *err; /* NULL: done; the rest is only set then */
    bool changed;            /* start, stop: there was something to do */
    const char *id;          /* create: container; commit: image (sha256:...); exec: session */
    char *const *warnings;   /* create */
    int fd;                  /* attach, logs, exec: the stream, to be taken over; else -1 */
    bool tty;                /* attach, logs, exec */
    const char *attributes;  /* logs; or NULL */
    const char *detach_keys; /* exec; or NULL */
    int pid;                 /* exec */
    int exit_code;           /* wait */
    const char *why;         /* wait: why the exit code is not the program's own; or NULL */
};

typedef void (*engine_done)(const struct engine_result *result, void *data);

/* The daemon's program is also the child that touches paths of the machine which may never answer
 * (look.h): with this argument, and what it is asked on standard input. Returns an exit status. */
#define ENGINE_LOOK_OPTION "--look"
int engine_look(void);

/* --- containers ------------------------------------------------------------------------------- */

/* By full ID, name (with or without a leading '/'), or unique prefix of an ID. -ENOENT, -EEXIST. */
int engine_find(struct engine *engine, const char *reference, struct container **ret,
                struct error *err);

const char *container_id(const struct container *container);
const char *container_name(const struct container *container);

void engine_container_create(struct engine *engine, const struct api_container_spec *spec,
                             engine_done done, void *data);

/* These wait for operations on the same container that began before them. */
void engine_container_start(struct container *container, engine_done done, void *data);
void engine_container_stop(struct container *container, const struct api_container_stop *how,
                           engine_done done, void *data);
/* volumes: its anonymous volumes go with it, where nobody else has them. */
void engine_container_remove(struct container *container, bool force, bool volumes,
                             engine_done done, void *data);
void engine_container_commit(struct container *container, const struct api_container_commit *how,
                             engine_done done, void *data);

/* Docker's answers: -EBUSY when it does not run, or is what it should become. */
void engine_container_pause(struct container *container, bool pause, engine_done done, void *data);
/* The result comes when it runs again. With --rm it is not removed in between. */
void engine_container_restart(struct container *container, const struct api_container_restart *how,
                              engine_done done, void *data);
/* name: with or without a leading '/'. */
void engine_container_update(struct container *container, const struct api_container_update *how,
                             engine_done done, void *data);
void engine_container_rename(struct container *container, const char *name, engine_done done,
                             void *data);

/* These do not. */
void engine_container_kill(struct container *container, const char *signal, engine_done done,
                           void *data);
void engine_container_attach(struct container *container, const struct api_container_attach *how,
                             engine_done done, void *data);
void engine_container_logs(struct container *container, const struct api_container_logs *how,
                           engine_done done, void *data);
void engine_container_resize(struct container *container, const struct api_container_resize *size,
                             engine_done done, void *data);
void engine_container_exec(struct container *container, const struct api_container_exec *how,
                           engine_done done, void *data);

/* docker's two steps: what is prepared (result: id) is forgotten with the daemon, with its
 * container, or when ENGINE_EXECS_MAX others came after it. */
void engine_exec_create(struct container *container, const struct api_exec_create *what,
                        engine_done done, void *data);
/* -ENOENT; -EBUSY: it has run already. */
void engine_exec_start(struct engine *engine, const struct api_exec_start *how, engine_done done,
                       void *data);
/* NULL: there is no such session. The container is whose it is; the details are the caller's. */
struct container *engine_exec_container(struct engine *engine, const char *exec_id);
struct api_exec_details *engine_exec_inspect(struct engine *engine, const char *exec_id);

/* The answers of these are documents, valid during the callback, or an error. */
typedef void (*engine_image_done)(const struct error *err, const void *document, void *data);
void engine_container_top(struct container *container, const struct api_container_top *how,
                          engine_image_done done, void *data); /* api_processes */
/* The result comes when the condition ("not-running", "next-exit", "removed") holds. Returns NULL
 * when the callback has been called already. */
struct engine_waiter *engine_container_wait(struct container *container, const char *condition,
                                            engine_done done, void *data);
struct engine_waiter *engine_exec_wait(struct engine *engine, const char *exec_id, engine_done done,
                                       void *data);
/* Takes a wait back: its callback is not called any more. */
void engine_wait_cancel(struct engine_waiter *waiter);

/* sees: whether who asks may know of this one; NULL: of all; called with data. -EINVAL: a filter
 * makes no sense; -ENOENT: there is no container of that name. */
typedef bool (*engine_list_sees)(const struct container *container, void *data);
/* The text of an api_container_summaries, valid during the callback; NULL with an error. */
typedef void (*engine_list_done)(const struct error *err, const struct buffer *json, void *data);
void engine_container_list(struct engine *engine, const struct api_container_list *which,
                           engine_list_sees sees, engine_list_done done, void *data);
/* Of those that are named, else of all that run. -ENOENT: there is none of that name. */
void engine_statistics(struct engine *engine, const struct api_container_stats *which,
                       engine_list_sees sees, engine_image_done done,
                       void *data); /* api_statistics */
/* Removes those that do not run, of which who asks may know. */
void engine_container_prune(struct engine *engine, const struct api_container_prune *what,
                            engine_list_sees sees, engine_image_done done,
                            void *data); /* api_container_pruned */
/* Owned by the caller (api_..._free). */
struct api_container_details *engine_container_inspect(const struct container *container);
/* Walks its upper folder. */
void engine_container_size(struct container *container, engine_image_done done,
                           void *data); /* api_file_sizes */

/* Copies into a container and out of it, also into one that runs. archive_fd is taken over: where
 * the tar goes to or comes from. The result is the worker's, valid during the callback, which comes
 * after the call has returned; not set with an error. */
struct engine_copy;
typedef void (*engine_copy_done)(const struct error *err, const struct image_worker_result *result,
                                 void *data);
struct engine_copy *engine_archive_stat(struct container *container, const char *path,
                                        engine_copy_done done, void *data);
struct engine_copy *engine_archive_get(struct container *container,
                                       const struct api_archive_get *how, int archive_fd,
                                       engine_copy_done done, void *data);
struct engine_copy *engine_archive_put(struct container *container,
                                       const struct api_archive_put *how, int archive_fd,
                                       engine_copy_done done, void *data);
struct engine_copy *engine_container_export(struct container *container, int archive_fd,
                                            engine_copy_done done, void *data);
/* As engine_cancel() below. */
void engine_copy_cancel(struct engine_copy *copy);

/* --- networks --------------------------------------------------------------------------------- */

/* Answers are the typed documents of the management API, valid during the callback. */
typedef void (*engine_document_done)(const struct error *err, const void *document, void *data);

void engine_network_create(struct engine *engine, const struct api_network_create *how,
                           engine_document_done done, void *data); /* api_network_created */
void engine_network_remove(struct engine *engine, const struct api_network_remove *which,
                           engine_document_done done, void *data); /* api_empty */
void engine_network_prune(struct engine *engine, const struct api_network_filters *filters,
                          engine_document_done done, void *data); /* api_network_pruned */
/* Owned by the caller. filters may be NULL. */
struct api_networks *engine_network_list(struct engine *engine,
                                         const struct api_network_filters *filters);
int engine_network_inspect(struct engine *engine, const char *reference,
                           struct api_network_details **ret, struct error *err);
/* These wait for operations on the same container that began before them. */
void engine_network_connect(struct container *container, const struct api_network_connect *how,
                            engine_done done, void *data);
void engine_network_disconnect(struct container *container,
                               const struct api_network_disconnect *how, engine_done done,
                               void *data);

/* Further ports of a container, or some less, at once and for later starts. */
void engine_container_publish(struct container *container, const struct api_container_ports *which,
                              engine_done done, void *data);
void engine_container_unpublish(struct container *container,
                                const struct api_container_ports *which, engine_done done,
                                void *data);
/* Those that are published now; owned by the caller. */
struct api_published_ports *engine_container_ports(const struct container *container);

/* --- images ----------------------------------------------------------------------------------- */

void engine_image_list(struct engine *engine, const struct api_image_list *which,
                       engine_image_done done, void *data); /* api_image_summaries */
void engine_image_inspect(struct engine *engine, const char *image, engine_image_done done,
                          void *data); /* api_image_details */
void engine_image_history(struct engine *engine, const char *image, engine_image_done done,
                          void *data); /* api_image_history_list */
void engine_image_prune(struct engine *engine, const struct api_image_prune *what,
                        engine_image_done done, void *data); /* api_image_pruned */
void engine_image_tag(struct engine *engine, const char *image, const char *name,
                      engine_image_done done, void *data); /* api_empty */
void engine_image_remove(struct engine *engine, const struct api_image_remove *how,
                         engine_image_done done, void *data); /* api_image_removed */

/* What differs from the container's image: api_container_changes. */
void engine_container_changes(struct container *container, engine_image_done done, void *data);

/* archive_fd is taken over. cancel: see engine_cancel. */
struct engine_cancel;
struct engine_transfer_callbacks; /* engine/registry.h */
struct engine_cancel *
engine_image_load(struct engine *engine, int archive_fd,
                  const struct engine_transfer_callbacks *callbacks); /* api_image_loaded */
struct engine_cancel *
engine_image_save(struct engine *engine, char *const *names, int archive_fd,
                  const struct engine_transfer_callbacks *callbacks); /* api_empty */
struct engine_cancel *engine_image_import(struct engine *engine, const struct api_image_import *how,
                                          int archive_fd, engine_image_done done,
                                          void *data); /* api_image_id */
/* The socket is taken over: the context comes from it, an api_build_message a line goes into it,
 * and it is closed before the callback: api_build_result. NULL: the callback came already. */
struct engine_cancel *engine_build(struct engine *engine, const struct api_build_run *how,
                                   int socket_fd, engine_image_done done, void *data);
void engine_build_prune(struct engine *engine, const struct api_build_prune *how,
                        engine_image_done done, void *data); /* api_build_pruned */
/* The one who asked is gone: the worker is killed; the callback comes with -ECANCELED. NULL is
 * nothing; not to be used after the callback. */
void engine_cancel(struct engine_cancel *cancel);

/* --- volumes ---------------------------------------------------------------------------------- */

/* The documents are as with images. Lists and descriptions are the caller's. */
void engine_volume_create(struct engine *engine, const struct api_volume_create *how,
                          engine_image_done done, void *data); /* api_volume */
struct api_volumes *engine_volume_list(struct engine *engine,
                                       const struct api_volume_filters *filters); /* NULL: all */
int engine_volume_inspect(struct engine *engine, const char *name, struct api_volume **ret,
                          struct error *err);
void engine_volume_remove(struct engine *engine, const char *name, bool force,
                          engine_image_done done, void *data); /* no document */
void engine_volume_prune(struct engine *engine, const struct api_volume_prune *how,
                         engine_image_done done, void *data); /* api_volumes_pruned */

/* What images, containers and volumes take: api_disk_usage. */
void engine_disk_usage(struct engine *engine, const struct api_disk_usage_what *what,
                       engine_image_done done, void *data);

/* --- the instance ----------------------------------------------------------------------------- */

void engine_info(struct engine *engine, engine_image_done done, void *data); /* api_system_info */

/* Is the store what its records say (api_system_checked)? deep: all layers are read, too; repair:
 * what can be mended is. -EAGAIN while the instance is being removed. */
struct engine_cancel *engine_check(struct engine *engine, bool deep, bool repair,
                                   engine_image_done done, void *data);

/* Whether somebody who gave these filters wants the event. Pure. */
bool engine_event_matches(const struct api_event_filters *filters, const struct api_event *event);

/* Removes everything the instance has. When it has succeeded nothing is left but what lies in RUN
 * itself (the daemon's socket, log and lock file); only engine_end() may be called then. -EBUSY:
 * containers run and force is false. */
/* Whether a removal has come so far that the daemon has to end, also when it failed: the next one
 * has all of the instance, or goes on with the removal before it opens anything. */
bool engine_is_gone(const struct engine *engine);
void engine_remove_instance(struct engine *engine, bool force, engine_done done, void *data);

#endif
