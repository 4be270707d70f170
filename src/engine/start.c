/*
 * Starting a container, as a column of steps:
 *
 *     start_begin        an address and its ports; the record says so before anything runs
 *     look_start         in a child: folders of the machine that are bound, devices (before the
 *                        rest, when config.json has to say what it finds; else meanwhile)
 *     prepare_work       on the disk thread: commit, root mount, user, bundle
 *     network_create     on the loop meanwhile: the network namespace; before prepare_work where
 *                        plug-ins have to say in it what the addresses are (cni.c)
 *     start_monitor      the monitor is started and told what was asked before: attach, start
 *     on_start_reply     the process runs, or why not
 *
 * A failure at any step goes through start_fail(), which takes back what was reserved.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "apparmor.h"
#include "bundle.h"
#include "cgroup.h"
#include "cni.h"
#include "events.h"
#include "linked.h"
#include "nameserver.h"
#include "look.h"
#include "namespace.h"
#include "pause.h"
#include "relay.h"
#include "remove.h"
#include "spawn.h"
#include "supervision.h"
#include "userns.h"
#include "volumes.h"
#include "watchdog.h"

enum { HOST_MOUNTS_MAX = 16 };

struct start_operation {
    struct operation base;
    struct disk_job job;
    enum container_state before; /* the state to go back to */
    struct record_change change;
    struct error err;
    int netns_fd;
    int rootfs_fd;
    struct userns userns;
    unsigned under_way;        /* parts of the preparation that have not ended */
    struct error loop_err;     /* of the parts that do not run on the disk thread */
    struct bundle_place place; /* copies for the disk thread */
    bool has_place;
    char **linked_environment, **linked_hosts; /* owned; NULL: no links */
    char **linked_others;
    struct namespaces namespaces;
    char **shared_files; /* owned; NULL: it has its own */
    struct look found;
    struct cni_dns *dns; /* what plug-ins said; or NULL */
};

/* --- disk thread ------------------------------------------------------------------------------ */

static size_t host_mounts(struct bundle_mount *mounts)
{
    const struct store_host_mount *host = store_host_mounts();
    size_t count = 0;

    for (; host[count].source && count < HOST_MOUNTS_MAX; count++)
        mounts[count] = (struct bundle_mount){host[count].source, host[count].target, true};
    return count;
}

static int write_config(struct start_operation *start, int run_fd, const struct user *user,
                        struct error *err)
{
    const struct container *container = start->base.container;
    _cleanup_free_ char *bundle = container_run_path(container, NULL);
    _cleanup_free_ char *rootfs = container_run_path(container, "rootfs");
    _cleanup_free_ char *userns = container_run_path(container, "userns");
    _cleanup_free_ char *files = container_root_path(container, NULL);
    _cleanup_buffer_ struct buffer config = BUFFER_INIT;
    _cleanup_free_ char *volumes = volumes_folder(start->base.container->engine);
    struct bundle_mount mounts[HOST_MOUNTS_MAX];
    struct bundle_facts facts = {
        .id = container->id,
        .bundle = bundle,
        .rootfs = rootfs,
        .files_directory = files,
        .shared_files = start->shared_files,
        .cgroup_parent = container_cgroup_parent(container),
        .effective = container->effective,
        .user = user,
        .network = start->namespaces.network.place,
        .users = container->record->user_namespace,
        .users_path = userns,
        .rootless = container->engine->rootless,
        .pid = start->namespaces.pid.place,
        .ipc = start->namespaces.ipc.place,
        .uts = start->namespaces.uts.place,
        .cgroup = start->namespaces.cgroup.place,
        .shm = start->namespaces.shm,
        .devices = start->found.devices,
        .devices_count = start->found.devices_count,
        .limits = start->found.limits,
        .limits_count = start->found.limits_count,
        .volumes_directory = volumes,
        .mounts = mounts,
        .mounts_count = container->record->host_base ? host_mounts(mounts) : 0,
        .linked = start->linked_environment,
        .init = container->effective->init ? container->engine->init_program : NULL,
    };

    if (!facts.cgroup_parent && container->effective->resources &&
        bundle_has_limits(container->effective->resources, facts.limits, facts.limits_count))
        return engine_need_cgroups(container->engine,
                                   "limits (--memory, --cpus, --pids-limit and their like)", err);
    int r = apparmor_load_default(container->effective, &facts.apparmor, err);
    if (r == 0)
        r = bundle_write_config(&facts, &config, err);
    return r < 0 ? r
                 : file_replace_at(run_fd, "config.json", config.data, config.length, 0600, err);
}

/* RUN/containers/ID with an empty rootfs/; what an earlier run left there goes. */
static int make_run_folder(const char *path, int *ret_fd, struct error *err)
{
    int r = file_remove_tree_at(AT_FDCWD, path, err);

    if (r < 0)
        return r;
    if (mkdir(path, 0700) < 0)
        return error_errno(err, errno, "create %s", path);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || mkdirat(fd, "rootfs", 0755) < 0)
        return error_errno(err, errno, "create %s/rootfs", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Where the sockets of USB rings come and go: bundle_mounts.c binds them. */
static int make_ring_folders(const struct api_container_spec *effective, int run_fd,
                             struct error *err)
{
    for (size_t i = 0; i < effective->usb_blocks_count; i++) {
        _cleanup_free_ char *name = xasprintf("usb-ring.%zu", i);
        if (text_equal(effective->usb_blocks[i]->via, "ring") && mkdirat(run_fd, name, 0755) < 0)
            return error_errno(err, errno, "create %s", name);
    }
    return 0;
}

/* A runtime whose monitor was killed may have got as far as its own record before it was killed,
 * too, after everybody looked for what it left. */
static int forget_earlier_run(const struct container *container, struct error *err)
{
    const struct engine *engine = container->engine;
    _cleanup_free_ char *record = xasprintf("%s/runtime/%s", engine->instance->run, container->id);
    struct process process;
    int status;

    if (access(record, F_OK) < 0)
        return 0;
    int r = spawn_delete_program(engine, container->id, &process, err);
    return r < 0 ? r : process_wait(&process, &status, err);
}

/* The health check's command runs as the container's own user, in its environment. */
static int write_check(const struct start_operation *start, int run_fd, const struct user *user,
                       struct error *err)
{
    const struct container *container = start->base.container;
    const struct api_container_spec *effective = container->effective;
    _cleanup_strv_ char **command = supervision_check_command(effective);
    _cleanup_buffer_ struct buffer process = BUFFER_INIT;
    struct bundle_exec exec = {
        .command = command, .linked = start->linked_environment, .user = user};
    int r = command ? apparmor_load_default(effective, &exec.apparmor, err) : 0;

    if (r < 0 || !command)
        return r;
    bundle_write_process(effective, &exec, &process);
    return file_replace_at(run_fd, supervision_check_file, process.data, process.length, 0600, err);
}

static void keep_cgroup(struct engine *engine)
{
    if (!engine->cgroup_kept)
        cgroup_keep_parent(engine->cgroup_parent);
    engine->cgroup_kept = true;
}

static int prepare(struct start_operation *start, struct error *err)
{
    struct container *container = start->base.container;
    _cleanup_free_ char *run_path = container_run_path(container, NULL);
    _cleanup_free_ char *root_path = container_root_path(container, NULL);
    _cleanup_close_ int run_fd = -1;
    const struct user_question question = {container->effective->user,
                                           container->effective->group_add};
    _cleanup_(user_finish) struct user user = {0};
    int r;

    keep_cgroup(container->engine);
    r = cgroup_check_empty(container_cgroup_parent(container), container->id, err);
    if (r == 0)
        r = record_change_run(&start->change, err);
    if (r == 0)
        r = forget_earlier_run(container, err);
    if (r == 0)
        r = make_run_folder(run_path, &run_fd, err);
    if (r == 0)
        r = make_ring_folders(container->effective, run_fd, err);
    if (r == 0)
        r = store_snapshot_mount(
            container->engine->store, container->id, container->effective->auto_remove,
            start->userns.users.namespace_fd >= 0 ? &start->userns.users : NULL, &start->rootfs_fd,
            err);
    if (r == 0)
        r = user_resolve(start->rootfs_fd, &question, &user, err);
    if (r == 0)
        r = userns_check(container, &user, err);
    if (r == 0)
        r = write_config(start, run_fd, &user, err);
    if (r == 0)
        r = write_check(start, run_fd, &user, err);
    if (r < 0 || start->shared_files)
        return r;
    _cleanup_close_ int root_fd = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_errno(err, errno, "open %s", root_path);
    r = bundle_write_files(root_fd, container->effective, start->has_place ? &start->place : NULL,
                           err);
    if (r == 0)
        linked_rewrite_hosts(start->linked_others);
    return r;
}

static void prepare_work(struct disk_job *job)
{
    struct start_operation *start = disk_job_of(job, struct start_operation, job);

    engine_settle(&start->err, prepare(start, &start->err));
}

/* --- failing ---------------------------------------------------------------------------------- */

static int docker_exit_code(int code)
{
    if (code == ENGINE_PROGRAM_NOT_FOUND)
        return 127;
    return code == ENGINE_PROGRAM_NOT_EXECUTABLE ? 126 : 128;
}

/* Of a container that goes when it has ended: told when it has gone, as whoever waits for that,
 * too, lets go of it when it hears of the failure (docker run --rm). */
struct last_words {
    struct error err;
    engine_done done;
    void *data;
};

static void on_gone(const struct engine_result *result, void *data)
{
    struct last_words *words = data;

    if (words->done)
        engine_fail(words->done, words->data, &words->err);
    error_finish(&words->err);
    free(words);
}

static void fail_and_remove(struct start_operation *start)
{
    struct container *container = start->base.container;
    struct last_words *words = xnew(struct last_words);

    error_move(&words->err, &start->err);
    words->done = start->base.done;
    words->data = start->base.data;
    start->base.done = NULL;
    operation_finish(&start->base, &words->err, false);
    remove_submit(container, true, on_gone, words);
}

static void start_fail(struct start_operation *start)
{
    struct container *container = container_ref(start->base.container);
    bool remove = container->effective->auto_remove;

    watchdog_stop(container);
    link_destroy(steal_ptr(container->link));
    network_release(container);
    container_drop_attachments(container);
    container_set_state(container, start->before);
    container_set_error(container, error_message(&start->err));
    container->record->exit_code = docker_exit_code(start->err.code);
    container->record->has_exit_code = true;
    event_container_died(container, container->record->exit_code, false, -1);
    waiters_container_ended(container);
    container_commit_end(container);
    if (remove && !operation_pending(container, &remove_operation_kind))
        fail_and_remove(start);
    else
        operation_finish(&start->base, &start->err, false);
    container_unref(container);
}

/* --- the loop's side -------------------------------------------------------------------------- */

static void tell_connected(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (container->places[i]->held)
            event_container_network(container, container->places[i]->network, "connect");
    }
}

static void on_start_reply(const struct link_message *message, void *data)
{
    struct start_operation *start = data;
    struct container *container = start->base.container;
    const struct monitor_pid *started =
        link_payload(message, MONITOR_STARTED, sizeof(struct monitor_pid));

    if (started) {
        container_started(container, started->pid, (int64_t)started->started);
        nameserver_start(container);
        relay_update(container);
        event_container_volumes(container, "mount");
        tell_connected(container);
        event_container(container, "start", NULL);
        container_commit_record(container);
        operation_finish(&start->base, NULL, true);
        return;
    }
    int code = link_error(message, &start->err);
    if (container->engine->ending) {
        /* The next daemon hears from the monitor how it went. */
        operation_finish(&start->base, &start->err, false);
        return;
    }
    if (message->type == 0) {
        /* The monitor died in the middle; goes on in start_container_ended(). */
        link_destroy(steal_ptr(container->link));
        container_recover(container);
        return;
    }
    if (code == 126)
        start->err.code = ENGINE_PROGRAM_NOT_EXECUTABLE;
    else if (code == 127)
        start->err.code = ENGINE_PROGRAM_NOT_FOUND;
    else if (code > 0)
        start->err.code = -EIO;
    start_fail(start);
}

static void send_attachments(struct container *container)
{
    while (container->attachments) {
        struct attachment *attachment = container->attachments;
        link_request(container->link, MONITOR_ATTACH, &attachment->how, sizeof(attachment->how),
                     &attachment->fd, 1, NULL, NULL);
        container->attachments = attachment->next;
        close_fd(attachment->fd);
        free(attachment);
    }
    container->attachments_count = 0;
}

static void start_monitor(struct start_operation *start)
{
    struct container *container = start->base.container;
    struct monitor_policy policy;

    if (container->engine->ending) {
        /* The next daemon finds a start that did not happen. */
        error_set(&start->err, -EAGAIN, "the daemon ends");
        operation_finish(&start->base, &start->err, false);
        return;
    }
    if (start->err.code == 0 && start->loop_err.code < 0)
        error_move(&start->err, &start->loop_err);
    if (start->err.code == 0)
        engine_settle(&start->err, spawn_monitor(container, &start->namespaces, start->rootfs_fd,
                                                 start->netns_fd, start->userns.users.namespace_fd,
                                                 &start->err));
    close_fd(steal_fd(&start->rootfs_fd));
    close_fd(steal_fd(&start->netns_fd));
    userns_close(&start->userns);
    if (start->err.code < 0) {
        start_fail(start);
        return;
    }
    link_request(container->link, MONITOR_HELLO, NULL, 0, NULL, 0, NULL, NULL);
    send_attachments(container);
    supervision_policy(container, &policy);
    link_request(container->link, MONITOR_START, &policy, sizeof(policy), NULL, 0, on_start_reply,
                 start);
}

static void part_ended(struct start_operation *start)
{
    if (--start->under_way == 0)
        start_monitor(start);
}

static void prepare_done(struct disk_job *job)
{
    struct start_operation *start = disk_job_of(job, struct start_operation, job);

    part_ended(start);
}

static void prepare_rest(struct start_operation *start);

static void on_looked(const struct error *err, struct look *found, void *data)
{
    struct start_operation *start = data;

    if (err)
        error_set(&start->loop_err, err->code, "%s", error_message(err));
    start->found = *found;
    *found = (struct look){0};
    if (!err && look_finds(start->base.container->effective))
        prepare_rest(start);
    part_ended(start);
}

static void make_network(struct start_operation *start)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (network_create(start->base.container, start->userns.netns_fd, &start->netns_fd, &err) < 0)
        error_move(&start->loop_err, &err);
}

/* What the disk thread needs to know of the container, as it is now. */
static void prepare_disk(struct start_operation *start)
{
    struct container *container = start->base.container;
    const struct place *main = places_main(container);

    start->has_place = main != NULL;
    if (main)
        start->place =
            (struct bundle_place){main->interface.address, place_gateway(main),
                                  nameserver_is_needed(container), start->linked_hosts, start->dns};
    if (start->shared_files) /* its hostname may be another one */
        record_change_limits(&start->change, container);
    else
        record_change_update(&start->change, container);
    disk_submit(container->engine->disk, &start->job);
}

/* Only the result of ADD says whether there are names. */
static int begin_names(struct start_operation *start, struct error *err)
{
    struct container *container = start->base.container;

    return container->names_udp_fd > 0 ? 0 : nameserver_prepare(container, start->netns_fd, err);
}

static void on_network_added(const struct error *err, struct cni_dns *dns, void *data)
{
    struct start_operation *start = data;

    start->dns = dns;
    if (err) {
        error_set(&start->loop_err, err->code, "%s", error_message(err));
        if (err->hint)
            error_hint(&start->loop_err, "%s", err->hint);
        part_ended(start);
        return;
    }
    if (begin_names(start, &start->loop_err) < 0) {
        part_ended(start);
        return;
    }
    places_write(start->base.container);
    prepare_disk(start);
}

static void prepare_rest(struct start_operation *start)
{
    struct container *container = start->base.container;
    _cleanup_error_ struct error err = ERROR_INIT;

    start->under_way++;
    if (!cni_is_held(container)) {
        prepare_disk(start);
        make_network(start);
        return;
    }
    make_network(start);
    if (start->loop_err.code == 0 &&
        cni_add(container, start->netns_fd, on_network_added, start, &err) == 0)
        return;
    if (err.code)
        error_move(&start->loop_err, &err);
    part_ended(start);
}

/* Everything that can be done at the same time. The last part to end goes on with the monitor. */
static void prepare_all(struct start_operation *start)
{
    const struct container *container = start->base.container;
    bool looking = look_needed(container->effective);

    start->under_way = 1;
    if (looking) {
        start->under_way++;
        if (look_start(container->engine, container->effective, on_looked, start,
                       &start->loop_err) < 0)
            start->under_way--;
    }
    if (!looking || !look_finds(container->effective))
        prepare_rest(start);
    part_ended(start);
}

static bool may_start(struct start_operation *start)
{
    struct container *container = start->base.container;

    if (container->state == CONTAINER_REMOVING) {
        error_set(&start->err, -ENOENT, "No such container: %s", container->name);
        operation_finish(&start->base, &start->err, false);
        return false;
    }
    if (container_is_paused(container)) {
        error_set(&start->err, -EBUSY, "cannot start a paused container, try unpause instead");
        operation_finish(&start->base, &start->err, false);
        return false;
    }
    if (container->state == CONTAINER_DEAD) {
        error_set(&start->err, -EBUSY, "container is marked for removal and cannot be started");
        operation_finish(&start->base, &start->err, false);
        return false;
    }
    if (container_is_active(container)) {
        operation_finish(&start->base, NULL, false);
        return false;
    }
    if (container->engine->removing) {
        error_set(&start->err, -EAGAIN, "the instance is being removed");
        operation_finish(&start->base, &start->err, false);
        return false;
    }
    if (container->engine->repairs) {
        error_set(&start->err, -EAGAIN, "images are being repaired");
        error_hint(&start->err, "wait for the end of `cloche system check --repair`");
        operation_finish(&start->base, &start->err, false);
        return false;
    }
    return true;
}

static void start_begin(struct operation *operation)
{
    struct start_operation *start = (struct start_operation *)operation;
    struct container *container = operation->container;

    if (!may_start(start) || container_holds_back(operation, true))
        return;
    start->before = container->state;
    if (!supervision_take_restart(container))
        supervision_wanted(container);
    supervision_health_reset(container);
    int r = namespaces_find(container, &start->namespaces, &start->err);
    if (r == 0)
        r = namespaces_share_files(container, &start->shared_files, &start->err);
    if (r == 0)
        r = linked_check_running(container, &start->err);
    if (r == 0)
        r = userns_open(container, &start->userns, &start->err);
    if (r == 0)
        r = network_reserve(container, &start->err);
    engine_settle(&start->err, r);
    if (r < 0) {
        start_fail(start);
        return;
    }
    container_set_state(container, CONTAINER_STARTING);
    start->linked_environment = linked_environment(container);
    start->linked_hosts = linked_hosts(container);
    start->linked_others = linked_others(container);
    start->job.work = prepare_work;
    start->job.done = prepare_done;
    prepare_all(start);
}

static void start_container_ended(struct operation *operation)
{
    struct start_operation *start = (struct start_operation *)operation;

    if (start->err.code == 0)
        error_set(&start->err, -EIO, "the container ended while it was started");
    operation_finish(operation, &start->err, false);
}

static void start_release(struct operation *operation)
{
    struct start_operation *start = (struct start_operation *)operation;

    record_change_finish(&start->change);
    error_finish(&start->err);
    error_finish(&start->loop_err);
    look_finish(&start->found);
    cni_dns_free(start->dns);
    namespaces_finish(&start->namespaces);
    strv_free(start->shared_files);
    strv_free(start->linked_environment);
    strv_free(start->linked_hosts);
    strv_free(start->linked_others);
    close_fd(start->rootfs_fd);
    close_fd(start->netns_fd);
    userns_close(&start->userns);
    free(start);
}

const struct operation_kind start_operation_kind = {
    .name = "start",
    .begin = start_begin,
    .container_ended = start_container_ended,
    .release = start_release,
};

struct operation *start_operation_create(void)
{
    struct start_operation *start = xnew(struct start_operation);

    start->base.kind = &start_operation_kind;
    start->rootfs_fd = start->netns_fd = -1;
    start->userns = (struct userns)USERNS_INIT;
    return &start->base;
}

void engine_container_start(struct container *container, engine_done done, void *data)
{
    operation_submit(container, start_operation_create(), done, data);
}
