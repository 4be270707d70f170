/*
 * Mounts that come to a container that is there, and go again. Their sources are opened where the
 * caller is, their places where the container is: the one process that does both has nothing of the
 * container's that it could be led astray with, no path of its /proc and no working directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/openat2.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "create.h"
#include "init.h"
#include "kernel.h"
#include "mounts.h"
#include "state.h"
#include "sync.h"

struct job {
    struct stored stored;
    struct container container; /* what mounting needs of it; its mounts are the new ones */
    bool remove;
};

/* ---- what is asked for ----------------------------------------------------------------------- */

/* The list alone, or an object that has it as `mounts`, as a config.json is one. */
static int parse_list(const char *text, struct oci_config **ret, struct error *err)
{
    _cleanup_free_ char *whole = NULL;

    if (text[strspn(text, " \t\r\n")] == '[')
        whole = xasprintf("{\"ociVersion\":\"" RUNTIME_SPEC_VERSION "\",\"mounts\":%s}", text);
    int r =
        oci_config_parse(whole ? whole : text, strlen(whole ? whole : text), "mounts", ret, err);
    if (r == 0 && !(*ret)->mounts)
        r = error_set(err, -EINVAL, "mounts: there is no list of mounts");
    return r;
}

/* The configuration with the new mounts in place of its own. */
static int replace_mounts(struct oci_config *config, const char *text, struct error *err)
{
    _cleanup_oci_config_ struct oci_config *given = NULL;
    int r = parse_list(text, &given, err);

    if (r < 0)
        return r;
    struct oci_mount **mounts = config->mounts;
    size_t count = config->mounts_count;
    config->mounts = given->mounts;
    config->mounts_count = given->mounts_count;
    given->mounts = mounts;
    given->mounts_count = count;
    return 0;
}

/* A file system that reads neither a device nor a folder: for others the kernel would look for the
 * source's path where the container is, through its links and device nodes. */
static bool is_without_source(const char *type)
{
    static const char *const types[] = {"proc", "sysfs", "tmpfs", "devpts", "mqueue"};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (text_equal(type, types[i]))
            return true;
    }
    return false;
}

/* What the process that would do it has no means for. */
static int check_entry(const struct mount_entry *entry, struct error *err)
{
    const char *type = entry->mount->type;

    if (text_equal(type, "cgroup") || (text_equal(type, "cgroup2") && !entry->bind))
        return error_set(err, -ENOTSUP, "type: a running container gets no cgroup mounts");
    if (!entry->bind && !entry->options.remount && !is_without_source(type)) {
        error_set(err, -ENOTSUP, "type: a running container gets no file system of type %s",
                  type ? type : "");
        error_hint(err, "mount it on the host, and bind that into the container");
        return -ENOTSUP;
    }
    if (entry->options.id_map && entry->source_in_root)
        return error_set(err, -ENOTSUP, "source: what is in a running container is not id-mapped");
    if (entry->options.remount && !entry->bind)
        return error_set(err, -ENOTSUP,
                         "options: a file system of a running container is not "
                         "remounted; bind mounts are");
    return 0;
}

static int check_entries(const struct container *container, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < container->mounts_count; i++) {
        r = check_entry(&container->mounts[i], err);
        if (r < 0)
            error_context(err, "mounts[%zu] (%s)", i, container->mounts[i].mount->destination);
    }
    return r;
}

/* ---- the container --------------------------------------------------------------------------- */

static bool copies_up(const struct container *container)
{
    bool any = false;

    for (size_t i = 0; i < container->mounts_count; i++)
        any |= container->mounts[i].options.copy_up;
    return any;
}

/* tmpcopyup fills memory with what the container has lying there: with its own. */
static int prepare_cgroup(struct job *job, struct error *err)
{
    struct container *container = &job->container;

    if (!copies_up(container))
        return 0;
    /* The process would stop in it, too. */
    if (job->stored.status == CLOCHE_RUNTIME_PAUSED)
        return error_set(err, -EBUSY, "options: a paused container gets no tmpcopyup");
    int r = state_open_cgroup(&job->stored, &container->cgroup, err);
    if (r == 0 && container->cgroup.user_manager)
        return error_set(err, -ENOTSUP,
                         "options: a container of a user's systemd gets no tmpcopyup later on");
    return r < 0 ? r
                 : cgroup_prepare_join_further(&container->cgroup, NULL, container->pid,
                                               &container->join, err);
}

static int open_root(const struct job *job, struct error *err)
{
    char path[40];

    snprintf(path, sizeof(path), "%d/root", job->stored.state->pid);
    _cleanup_close_ int fd = openat(job->container.proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open the container's root");
    /* Until here the number could have become another process's. */
    if (kernel_pidfd_send_signal(job->stored.pidfd, 0) < 0)
        return error_set(err, -ESRCH, "container not running");
    return steal_fd(&fd);
}

static int load(struct job *job, const char *root, const char *id, const char *text,
                struct error *err)
{
    struct container *container = &job->container;
    int r = state_load_locked(&job->stored, root, id, err);

    if (r < 0)
        return r;
    if (job->stored.status == CLOCHE_RUNTIME_STOPPED || job->stored.pidfd < 0)
        return error_set(err, -EINVAL, "container not running");
    r = state_load_config(&job->stored, &container->config, err);
    if (r == 0)
        r = replace_mounts(container->config, text, err);
    if (r == 0)
        r = container->proc_fd = create_open_proc(err);
    if (r >= 0)
        r = namespaces_differing(container->proc_fd, job->stored.state->pid,
                                 &container->namespaces.create, err);
    if (r == 0)
        r = container->root_fd = open_root(job, err);
    if (r < 0)
        return r;
    if (!(container->namespaces.create & CLONE_NEWNS))
        return error_set(err, -ENOTSUP, "the container has no mount namespace of its own");
    container->running = container->cgroup_joined = true;
    container->bundle = xstrdup(job->stored.state->bundle);
    container->rootfs = xstrdup(job->stored.state->rootfs);
    container->pid = job->stored.state->pid;
    return 0;
}

/* ---- the process that does it ---------------------------------------------------------------- */

static int become_root(struct error *err)
{
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        return error_errno(err, errno, "become the container's root");
    /* Each change of rights sets it to what fs.suid_dumpable says. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return 0;
}

static int enter_users(const struct job *job, struct error *err)
{
    if (!(job->container.namespaces.create & CLONE_NEWUSER))
        return 0;
    if (setns(job->stored.pidfd, CLONE_NEWUSER) < 0)
        return error_errno(err, errno, "join the container's user namespace");
    return become_root(err);
}

/* An ordinary user may copy mounts in a namespace of the container's root only: in one that has
 * those of the host. */
static int enter_copy_of_host(const struct job *job, struct error *err)
{
    if (!job->container.unprivileged)
        return 0;
    int r = enter_users(job, err);
    if (r == 0 && unshare(CLONE_NEWNS) < 0)
        r = error_errno(err, errno, "copy the host's mount namespace");
    return r;
}

/* A procfs shows the processes of the pid namespace that it was made in. For nothing else it is
 * joined: who is not in it is neither seen nor reached by the container's processes. */
static bool needs_processes(const struct job *job)
{
    bool any = false;

    for (size_t i = 0; i < job->container.mounts_count; i++) {
        const struct mount_entry *entry = &job->container.mounts[i];
        any |= !entry->bind && text_equal(entry->mount->type, "proc");
    }
    return any;
}

/* With them new file systems are the container's: sysfs its network's, mqueue its queues'. */
static int enter_others(const struct job *job, struct error *err)
{
    uint64_t wanted =
        CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | (needs_processes(job) ? CLONE_NEWPID : 0);

    wanted &= job->container.namespaces.create;
    if (setns(job->stored.pidfd, (int)wanted) < 0)
        return error_errno(err, errno, "join the container's namespaces");
    return 0;
}

/* By the descriptor's name in the host's procfs: below the container's root no name is safe. */
static int detach(const struct container *container, int place_fd, struct error *err)
{
    char name[32];

    snprintf(name, sizeof(name), "self/fd/%d", place_fd);
    if (fchdir(container->proc_fd) < 0)
        return error_errno(err, errno, "enter /proc");
    int r = kernel_umount(name, MNT_DETACH);
    if (r == -EINVAL)
        return error_set(err, r, "nothing is mounted there");
    return r < 0 ? error_errno(err, -r, "unmount it") : 0;
}

/* No link may stand in the way: the container could have put it there to have something else
 * unmounted, such as a mask of its /proc. */
static int remove_one(const struct container *container, const char *destination, struct error *err)
{
    _cleanup_close_ int fd =
        file_open_in_root_flags(container->root_fd, destination, O_PATH, 0, RESOLVE_NO_SYMLINKS);

    if (fd == -ELOOP) {
        error_set(err, fd, "destination: there is a symbolic link on the way to %s", destination);
        error_hint(err, "name the place that it leads to");
        return fd;
    }
    if (fd < 0)
        return error_errno(err, -fd, "destination: open %s in the root", destination);
    if (mounts_is_root(container, fd))
        return error_set(err, -EINVAL, "destination: the root stays");
    return detach(container, fd, err);
}

/* The last one first, as they may lie below each other. */
static int remove_all(const struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    for (size_t i = config->mounts_count; i > 0; i--) {
        const char *destination = config->mounts[i - 1]->destination;
        int r = remove_one(container, destination, err);
        if (r < 0) {
            error_context(err, "mounts[%zu] (%s)", i - 1, destination);
            return r;
        }
    }
    return 0;
}

/* After a failure the first `count` are taken away again: by what was mounted, wherever links have
 * led it and the container has moved it since. */
static void take_back(struct container *container, size_t count)
{
    for (; count > 0; count--) {
        const struct mount_entry *entry = &container->mounts[count - 1];
        if (entry->attached_fd >= 0)
            detach(container, entry->attached_fd, NULL);
    }
}

static int add_all(struct container *container, struct error *err)
{
    size_t done = 0;
    int r = 0;

    for (; r == 0 && done < container->mounts_count; done += r == 0) {
        r = mounts_apply_entry(container, &container->mounts[done], err);
        if (r < 0)
            error_context(err, "mounts[%zu] (%s)", done,
                          container->mounts[done].mount->destination);
    }
    if (r == 0)
        r = mounts_complete(container, err);
    if (r < 0)
        take_back(container, container->mounts_count);
    return r;
}

static int join_cgroup(struct container *container, struct error *err)
{
    int r = copies_up(container) ? cgroup_join_self(&container->join, false) : 0;

    return r < 0 ? error_errno(err, -r, "join the container's cgroup") : 0;
}

/* State on entry: in all of the container's namespaces that are needed, but that of its users. */
static _Noreturn void member_main(struct job *job)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = job->container.unprivileged ? 0 : enter_users(job, &err);

    if (r == 0 && !job->remove)
        r = join_cgroup(&job->container, &err);
    if (r == 0)
        r = job->remove ? remove_all(&job->container, &err) : add_all(&job->container, &err);
    /* It says so when it is done: where it is in the container's pid namespace or cgroup, it can be
     * killed before. */
    if (r == 0)
        r = sync_send(job->container.sync_fd, SYNC_READY, NULL, 0, &err);
    if (r < 0)
        init_fail(job->container.sync_fd, &err);
    _exit(0);
}

static int open_sources(struct job *job, struct error *err)
{
    struct container *container = &job->container;
    int r = enter_copy_of_host(job, err);

    if (r == 0 && !job->remove)
        r = mounts_prepare_running(container, err);
    return r;
}

/* A pid namespace is for children: the work is one's. */
static _Noreturn void helper_main(struct job *job)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int r;

    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    init_reset_signals();
    r = open_sources(job, &err);
    if (r == 0)
        r = enter_others(job, &err);
    if (r < 0)
        init_fail(job->container.sync_fd, &err);
    if (!needs_processes(job))
        member_main(job);
    pid_t pid = kernel_clone(0, -1, NULL);
    if (pid == 0)
        member_main(job);
    if (pid < 0) {
        error_errno(&err, -pid, "start a process");
        init_fail(job->container.sync_fd, &err);
    }
    waitpid(pid, NULL, 0);
    _exit(0);
}

static int run_helper(struct job *job, struct error *err)
{
    int parent_fd;
    int r = sync_pair(&parent_fd, &job->container.sync_fd, err);

    if (r < 0)
        return r;
    pid_t pid = kernel_clone(0, -1, NULL);
    if (pid == 0) {
        close(parent_fd);
        helper_main(job);
    }
    close_fd(steal_fd(&job->container.sync_fd));
    r = pid < 0 ? error_errno(err, -pid, "start a process")
                : sync_expect(parent_fd, SYNC_READY, NULL, NULL, err);
    if (r == -EPIPE)
        r = error_set(err, r,
                      "the process that would do it was killed; some of the mounts may be there");
    close(parent_fd);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return r;
}

static int change(const char *root, const char *id, const char *text, bool remove, char ***warnings,
                  struct error *err)
{
    struct job job = {.stored = {.fd = -1, .root_fd = -1, .pidfd = -1}, .remove = remove};
    struct container *container = &job.container;

    container_init(container, id);
    int r = load(&job, root, id, text, err);
    if (r == 0 && !remove) /* of what goes only the places count */
        r = mounts_parse(container, err);
    if (r == 0)
        r = check_entries(container, err);
    if (r == 0)
        r = prepare_cgroup(&job, err);
    for (char **item = container->warnings; item && *item; item++)
        strv_append(warnings, *item);
    if (r == 0)
        r = run_helper(&job, err);
    container_finish(container);
    state_finish(&job.stored);
    return r;
}

int runtime_add_mounts(const char *root, const char *id, const char *mounts, char ***warnings,
                       struct error *err)
{
    return change(root, id, mounts, false, warnings, err);
}

int runtime_remove_mounts(const char *root, const char *id, const char *mounts, char ***warnings,
                          struct error *err)
{
    return change(root, id, mounts, true, warnings, err);
}
