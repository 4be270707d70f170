/*
 * Copying into containers and out of them, and the export of their roots: by a worker whose root is
 * the container's (image/worker/tree.h), with the tar's descriptor as the client gave it.
 *
 *     prepare_work    disk thread: a pidfd of its first process; or, when it does not run, its root
 *                     as a detached mount
 *     mount_volumes   a child, when it does not run: what its volumes' options say (look.h)
 *     start_worker    the loop: task.c
 *     on_worker_done
 *
 * A container that does not run is not started meanwhile: the copy is one of its operations. If
 * another operation waits for it and its client does not go on, it gives way (stall.h). One
 * that runs goes on with whatever else is asked of it. One that waits for its next run is mounted
 * already, by its monitor, which may start it at any time: the copy gets a clone of that mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "events.h"
#include "idmap.h"
#include "internal.h"
#include "look.h"
#include "monitor_root.h"
#include "mounts.h"
#include "stall.h"
#include "task.h"
#include "user.h"
#include "userns.h"
#include "volume_mount.h"

enum { CGROUP_FILE_MAX = 64 * 1024, PARENT_FIELD = 4 /* proc_pid_stat(5) */ };

enum archive_kind { ARCHIVE_STAT, ARCHIVE_GET, ARCHIVE_PUT, ARCHIVE_EXPORT };

struct engine_copy {
    struct operation base;    /* first; base.container is set in any case */
    struct engine_copy *next; /* of container->copies */
    bool is_operation;
    struct disk_job job;
    struct task *task;
    struct stall *stall; /* while another operation waits for it */
    bool stalled;        /* so it was cancelled */
    bool cancelled;
    bool told; /* done was called */
    bool holds_volumes;
    enum archive_kind kind;
    char *path, *name; /* owned */
    bool keep_kind, own_by_user;
    int archive_fd;
    int tree_fd;
    int users_fd; /* a user namespace of its mapping; -1: it has the machine's users */
    bool runs;
    bool between; /* two runs */
    pid_t pid, monitor_pid;
    uint32_t uid, gid;
    engine_copy_done done;
    void *data;
    struct error err;
};

/* --- disk thread ------------------------------------------------------------------------------ */

/* By its cgroup; without one by its monitor, whose child it is. */
static bool is_of_container(const struct engine_copy *copy)
{
    const struct container *container = copy->base.container;
    _cleanup_free_ char *path = xasprintf("/proc/%d/cgroup", copy->pid);
    _cleanup_free_ char *text = NULL;
    uint64_t parent;
    char state;

    if (!container_cgroup_parent(container))
        return process_stat(copy->pid, PARENT_FIELD, &state, &parent) == 0 &&
               (pid_t)parent == copy->monitor_pid;
    return file_read_at(AT_FDCWD, path, CGROUP_FILE_MAX, &text, NULL, NULL) == 0 &&
           strstr(text, container->id);
}

/* The process may have ended and its number be another's by now: one that is the container's while
 * the pidfd says that it lives is ours. */
static int open_process(const struct engine_copy *copy, int *ret_fd, struct error *err)
{
    _cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, copy->pid, 0);
    struct pollfd end = {.fd = fd, .events = POLLIN};

    if (fd >= 0 && is_of_container(copy) && poll(&end, 1, 0) == 0) {
        *ret_fd = steal_fd(&fd);
        return 0;
    }
    return error_set(err, -EAGAIN, "container %s has just ended", copy->base.container->name);
}

/* The user whom the files are given to, looked up in the container's own root. */
static int find_owner(struct engine_copy *copy, struct error *err)
{
    const struct container *container = copy->base.container;
    _cleanup_free_ char *rootfs = container_run_path(container, "rootfs");
    _cleanup_free_ char *path = xasprintf("/proc/%d/root%s", copy->monitor_pid, rootfs);
    _cleanup_(user_finish) struct user user = {0};
    _cleanup_close_ int root_fd = copy->runs ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
                                             : fcntl(copy->tree_fd, F_DUPFD_CLOEXEC, 0);

    if (root_fd < 0)
        return error_errno(err, errno, "open the root of %s", container->name);
    const struct user_question question = {.user = container->effective->user};
    int r = user_resolve(root_fd, &question, &user, err);
    copy->uid = user.uid;
    copy->gid = user.gid;
    return r;
}

static int prepare(struct engine_copy *copy, struct error *err)
{
    const struct container *container = copy->base.container;
    const struct api_id_mappings *mappings = container->record->user_namespace;
    struct store_users users;
    int r = 0;

    /* The worker has the rights of the container's root and no others: it may be led to what the
     * machine has bound there. */
    if (mappings) {
        r = userns_open_mapping(mappings, &copy->users_fd, err);
        users =
            (struct store_users){copy->users_fd, idmap_root(mappings->uids, mappings->uids_count),
                                 idmap_root(mappings->gids, mappings->gids_count)};
    }
    if (r < 0)
        return r;
    if (copy->runs)
        r = open_process(copy, &copy->tree_fd, err);
    else if (copy->between)
        r = monitor_root_open(copy->monitor_pid, container, &copy->tree_fd, err);
    else
        r = store_snapshot_mount(container->engine->store, container->id, false,
                                 mappings ? &users : NULL, &copy->tree_fd, err);
    return r == 0 && copy->own_by_user ? find_owner(copy, err) : r;
}

static void prepare_work(struct disk_job *job)
{
    struct engine_copy *copy = disk_job_of(job, struct engine_copy, job);

    if (copy->err.code == 0)
        engine_settle(&copy->err, prepare(copy, &copy->err));
}

/* --- the end ---------------------------------------------------------------------------------- */

static void copy_free(struct engine_copy *copy)
{
    close_fd(copy->archive_fd);
    close_fd(copy->tree_fd);
    close_fd(copy->users_fd);
    free(copy->path);
    free(copy->name);
    error_finish(&copy->err);
    free(copy);
}

static void forget(struct engine_copy *copy)
{
    struct engine_copy **at = &copy->base.container->copies;

    while (*at && *at != copy)
        at = &(*at)->next;
    if (*at)
        *at = copy->next;
}

/* As docker names them; that somebody looked is none. */
static void tell(const struct engine_copy *copy)
{
    static const char *const actions[] = {
        [ARCHIVE_GET] = "archive-path",
        [ARCHIVE_PUT] = "extract-to-dir",
        [ARCHIVE_EXPORT] = "export",
    };

    if (!copy->err.code && copy->kind != ARCHIVE_STAT)
        event_container(copy->base.container, actions[copy->kind], NULL);
}

static void finish(struct engine_copy *copy, const struct image_worker_result *result)
{
    struct container *container = copy->base.container;

    /* Whoever reads the archive sees its end before the answer. */
    close_fd(steal_fd(&copy->archive_fd));
    close_fd(steal_fd(&copy->tree_fd));
    close_fd(steal_fd(&copy->users_fd));
    copy->told = true;
    tell(copy);
    if (copy->holds_volumes)
        volumes_hold(container, false);
    if (!copy->is_operation)
        forget(copy);
    copy->done(copy->err.code ? &copy->err : NULL, result, copy->data);
    if (copy->is_operation) {
        operation_finish(&copy->base, copy->err.code ? &copy->err : NULL, true);
        return;
    }
    container_unref(container);
    copy_free(copy);
}

/* In docker's words where clients know them. */
static void explain(struct engine_copy *copy, const struct error *err)
{
    const char *name = copy->base.container->name;

    if (copy->stalled)
        error_set(&copy->err, -ETIMEDOUT,
                  "container %s was wanted for something else, and nothing of the copy was read or "
                  "written for %d seconds",
                  name, STALL_SECONDS);
    else if (err->code == -ENOENT && copy->kind != ARCHIVE_EXPORT)
        error_set(&copy->err, -ENOENT, "Could not find the file %s in container %s", copy->path,
                  name);
    else if (err->code == -ENOTDIR && copy->kind == ARCHIVE_PUT)
        error_set(&copy->err, -EINVAL, "extraction point is not a directory: %s",
                  error_message(err));
    else if (err->code == -ENOTDIR || err->code == -ELOOP)
        error_set(&copy->err, -EINVAL, "%s", error_message(err));
    else if (err->code == -EROFS)
        error_set(&copy->err, -EACCES, "%s", error_message(err));
    else
        error_set(&copy->err, err->code, "%s", error_message(err));
}

static void on_worker_done(const struct error *err, const struct image_worker_result *result,
                           void *data)
{
    struct engine_copy *copy = data;

    copy->task = NULL;
    stall_forget(steal_ptr(copy->stall));
    if (err)
        explain(copy, err);
    finish(copy, result);
}

/* --- giving way ------------------------------------------------------------------------------- */

static void on_stalled(void *data)
{
    struct engine_copy *copy = data;

    copy->stalled = true;
    task_cancel(copy->task);
}

static void watch_stall(struct engine_copy *copy)
{
    if (copy->task && !copy->stall)
        copy->stall =
            stall_watch(copy->base.container->engine->loop, task_pid(copy->task), on_stalled, copy);
}

/* By what has come while it was made ready, or waits behind it since it began to wait itself. */
static void watch_if_awaited(struct engine_copy *copy)
{
    const struct operation *next = copy->is_operation ? copy->base.next : NULL;

    while (next && next->kind == copy->base.kind)
        next = next->next;
    if (next)
        watch_stall(copy);
}

/* --- the worker ------------------------------------------------------------------------------- */

static int start_worker(struct engine_copy *copy, struct error *err)
{
    struct container *container = copy->base.container;
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_tree tree = {
        .kind = (char *)(copy->runs ? "process" : "mount"),
        .alone = copy->kind == ARCHIVE_EXPORT,
        .has_alone = true,
        .users = copy->users_fd >= 0,
        .has_users = true,
    };
    struct image_worker_stat stat = {&tree, copy->path};
    struct image_worker_pack pack = {.tree = &tree, .path = copy->path, .name = copy->name};
    struct image_worker_place place = {
        .tree = &tree,
        .path = copy->path,
        .keep_kind = copy->keep_kind,
        .has_keep_kind = true,
        .owner = (char *)(copy->own_by_user ? "given" : "archive"),
        .uid = copy->uid,
        .has_uid = true,
        .gid = copy->gid,
        .has_gid = true,
    };
    struct image_worker_request request = {
        .stat = copy->kind == ARCHIVE_STAT ? &stat : NULL,
        .place = copy->kind == ARCHIVE_PUT ? &place : NULL,
    };

    if (!request.stat && !request.place)
        request.pack = &pack;
    if (!copy->runs && copy->kind != ARCHIVE_EXPORT)
        mounts_fill_tree(container, &tree);
    spec.program = container->engine->image_program;
    spec.request = &request;
    spec.archive_fd = copy->archive_fd;
    spec.tree_fd = copy->tree_fd;
    spec.users_fd = copy->users_fd;
    int r = task_start(container->engine, &spec, on_worker_done, copy, &copy->task, err);
    if (r == 0)
        task_hold(copy->task, container);
    mounts_clear_tree(&tree);
    return r;
}

static void copy_files(struct engine_copy *copy)
{
    const struct engine *engine = copy->base.container->engine;

    if (copy->err.code == 0 && (copy->cancelled || engine->ending || engine->removing))
        error_set(&copy->err, -ECANCELED, "cancelled");
    if (copy->err.code < 0 || start_worker(copy, &copy->err) < 0) {
        engine_settle(&copy->err, copy->err.code ? copy->err.code : -EIO);
        finish(copy, NULL);
        return;
    }
    watch_if_awaited(copy);
    /* The worker has its own. */
    close_fd(steal_fd(&copy->archive_fd));
    close_fd(steal_fd(&copy->tree_fd));
    close_fd(steal_fd(&copy->users_fd));
}

static void on_mounted(const struct error *err, struct look *found, void *data)
{
    struct engine_copy *copy = data;

    if (err)
        error_set(&copy->err, err->code, "%s", error_message(err));
    copy_files(copy);
}

/* Then it is an operation of the container: there is one such copy at a time. */
static bool mounts_volumes(const struct engine_copy *copy)
{
    return !copy->runs && copy->kind != ARCHIVE_EXPORT &&
           look_wants_volumes(copy->base.container->effective);
}

static int mount_volumes(struct engine_copy *copy, struct error *err)
{
    struct container *container = copy->base.container;

    copy->holds_volumes = true;
    volumes_hold(container, true);
    return look_for_volumes(container->engine, container->effective, on_mounted, copy, err);
}

static void prepare_done(struct disk_job *job)
{
    struct engine_copy *copy = disk_job_of(job, struct engine_copy, job);

    if (copy->err.code == 0 && mounts_volumes(copy) && mount_volumes(copy, &copy->err) == 0)
        return;
    copy_files(copy);
}

static void begin(struct engine_copy *copy)
{
    struct container *container = copy->base.container;

    copy->runs = container->state == CONTAINER_RUNNING && container->record->pid > 0;
    copy->between = container->state == CONTAINER_RESTARTING && container->link;
    copy->pid = (pid_t)container->record->pid;
    copy->monitor_pid = (pid_t)container->record->monitor_pid;
    copy->job.work = prepare_work;
    copy->job.done = prepare_done;
    disk_submit(container->engine->disk, &copy->job);
}

/* --- as an operation of a container that does not run ----------------------------------------- */

static void copy_begin(struct operation *operation)
{
    struct engine_copy *copy = (struct engine_copy *)operation;

    if (!container_is_active(operation->container) && container_holds_back(operation, false))
        return;
    if (operation->container->state == CONTAINER_REMOVING)
        error_set(&copy->err, -ENOENT, "No such container: %s", operation->container->name);
    begin(copy);
}

/* The daemon ends before it began. */
static void on_operation_done(const struct engine_result *result, void *data)
{
    struct engine_copy *copy = data;

    if (!copy->told)
        copy->done(result->err, NULL, copy->data);
}

static void copy_release(struct operation *operation)
{
    copy_free((struct engine_copy *)operation);
}

/* Another copy can wait as long as this one takes: who reads a page at a time is no fault. */
static void copy_awaited(struct operation *operation, const struct operation *by)
{
    if (by->kind != operation->kind)
        watch_stall((struct engine_copy *)operation);
}

static const struct operation_kind copy_operation_kind = {
    .name = "copy",
    .begin = copy_begin,
    .awaited = copy_awaited,
    .release = copy_release,
};

static struct engine_copy *new_copy(enum archive_kind kind, const char *path, int archive_fd,
                                    engine_copy_done done, void *data)
{
    struct engine_copy *copy = xnew(struct engine_copy);

    copy->base.kind = &copy_operation_kind;
    copy->kind = kind;
    copy->path = xstrdup(path);
    copy->archive_fd = archive_fd;
    copy->tree_fd = copy->users_fd = -1;
    copy->done = done;
    copy->data = data;
    return copy;
}

static struct engine_copy *submit(struct container *container, struct engine_copy *copy)
{
    if (container->state == CONTAINER_RUNNING) {
        copy->base.container = container_ref(container);
        copy->next = container->copies;
        container->copies = copy;
        begin(copy);
    } else {
        copy->is_operation = true;
        operation_submit(container, &copy->base, on_operation_done, copy);
    }
    return copy;
}

struct engine_copy *engine_archive_stat(struct container *container, const char *path,
                                        engine_copy_done done, void *data)
{
    return submit(container, new_copy(ARCHIVE_STAT, path, -1, done, data));
}

struct engine_copy *engine_archive_get(struct container *container,
                                       const struct api_archive_get *how, int archive_fd,
                                       engine_copy_done done, void *data)
{
    struct engine_copy *copy = new_copy(ARCHIVE_GET, how->path, archive_fd, done, data);

    copy->name = how->name ? xstrdup(how->name) : NULL;
    return submit(container, copy);
}

struct engine_copy *engine_archive_put(struct container *container,
                                       const struct api_archive_put *how, int archive_fd,
                                       engine_copy_done done, void *data)
{
    struct engine_copy *copy = new_copy(ARCHIVE_PUT, how->path, archive_fd, done, data);

    copy->keep_kind = how->no_overwrite_dir_non_dir;
    copy->own_by_user = how->copy_uid_gid && !text_empty(container->effective->user);
    return submit(container, copy);
}

struct engine_copy *engine_container_export(struct container *container, int archive_fd,
                                            engine_copy_done done, void *data)
{
    struct engine_copy *copy = new_copy(ARCHIVE_EXPORT, "/", archive_fd, done, data);

    copy->name = xstrdup("");
    return submit(container, copy);
}

void engine_copy_cancel(struct engine_copy *copy)
{
    copy->cancelled = true;
    if (copy->task)
        task_cancel(copy->task);
}

static void cancel_copies(struct container *container)
{
    struct operation *first = container->operations;

    for (struct operation *at = first; at; at = at->next) {
        if (at->kind == &copy_operation_kind)
            ((struct engine_copy *)at)->cancelled = true;
    }
    while (container->copies) {
        struct engine_copy *copy = container->copies;
        container->copies = copy->next;
        engine_copy_cancel(copy);
    }
    if (first && first->kind == &copy_operation_kind)
        engine_copy_cancel((struct engine_copy *)first);
}

void archives_cancel(struct engine *engine)
{
    for (size_t i = engine->containers_count; i > 0; i--)
        cancel_copies(engine->containers[i - 1]);
}

bool container_holds_back(struct operation *operation, bool end)
{
    struct container *container = operation->container;

    while (end && container->copies) {
        struct engine_copy *copy = container->copies;
        container->copies = copy->next;
        engine_copy_cancel(copy);
    }
    if (!container->holders)
        return false;
    container->held_back = operation;
    return true;
}
