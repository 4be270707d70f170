#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "create.h"
#include "device_nodes.h"
#include "init.h"
#include "kernel.h"
#include "sync.h"

static mode_t type_of(const struct oci_device *device)
{
    return device->type[0] == 'b' ? S_IFBLK : device->type[0] == 'p' ? S_IFIFO : S_IFCHR;
}

static dev_t number_of(const struct oci_device *device)
{
    return makedev((unsigned)device->major, (unsigned)device->minor);
}

static mode_t mode_of(const struct oci_device *device)
{
    return device->has_file_mode ? device->file_mode & 07777 : 0666;
}

static bool is_node(const struct stat *status, const struct oci_device *device)
{
    return (status->st_mode & S_IFMT) == type_of(device) && status->st_rdev == number_of(device);
}

/* A number of the container as the host has it. */
static uint32_t mapped(struct oci_id_mapping *const *maps, size_t count, uint32_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (id >= maps[i]->container_id && id - maps[i]->container_id < maps[i]->size)
            return maps[i]->host_id + (id - maps[i]->container_id);
    }
    return count ? (uint32_t)-1 : id; /* not mapped: nobody's, the node stays root's */
}

/* The node that was just made is opened and looked at: in the container's folder its name may lead
 * elsewhere by now. */
static int finish_node(int parent_fd, const char *name, const struct oci_device *device, uid_t uid,
                       gid_t gid, struct error *err)
{
    char path[32];
    struct stat status;
    _cleanup_close_ int fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open %s", device->path);
    if (!is_node(&status, device))
        return error_set(err, -EEXIST, "%s was replaced while it was made", device->path);
    if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0)
        return error_errno(err, errno, "set the owner of %s", device->path);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (chmod(path, mode_of(device)) < 0)
        return error_errno(err, errno, "set the mode of %s", device->path);
    return 0;
}

int device_node_compare(const char *path, const struct stat *status, mode_t type, dev_t number,
                        struct error *err)
{
    if ((status->st_mode & S_IFMT) != type)
        return error_set(err, -EEXIST, "%s has incorrect ftype: %#o is there, %#o is configured",
                         path, status->st_mode & S_IFMT, type);
    if (type != S_IFIFO && status->st_rdev != number)
        return error_set(
            err, -EEXIST, "%s has incorrect major:minor: %u:%u doesn't match expected %u:%u", path,
            major(status->st_rdev), minor(status->st_rdev), major(number), minor(number));
    return 0;
}

static int check_existing(int parent_fd, const char *name, const struct oci_device *device,
                          struct error *err)
{
    struct stat status;

    if (fstatat(parent_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "look at %s", device->path);
    return device_node_compare(device->path, &status, type_of(device), number_of(device), err);
}

static int make_node(int parent_fd, const char *name, const struct oci_device *device, uid_t uid,
                     gid_t gid, struct error *err)
{
    if (mknodat(parent_fd, name, type_of(device) | 0600, number_of(device)) == 0)
        return finish_node(parent_fd, name, device, uid, gid, err);
    return errno == EEXIST ? check_existing(parent_fd, name, device, err)
                           : error_errno(err, errno, "create %s", device->path);
}

int device_node_detached(const struct oci_config *config, const struct oci_device *device,
                         struct error *err)
{
    const struct oci_linux *linux = config->linux;

    if (unshare(CLONE_NEWNS) < 0)
        return error_errno(err, errno, "create a mount namespace");
    int r = kernel_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (r < 0)
        return error_errno(err, -r, "make the mount namespace private");
    _cleanup_close_ int context_fd = kernel_fsopen("tmpfs");
    r = context_fd < 0 ? context_fd : kernel_fsconfig_create(context_fd);
    _cleanup_close_ int mount_fd = r < 0 ? r : kernel_fsmount(context_fd, 0);
    _cleanup_close_ int over_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (mount_fd < 0 || over_fd < 0)
        return error_errno(err, mount_fd < 0 ? -mount_fd : errno, "create a tmpfs");
    /* A mount can only be copied from the namespace one is in: it has to be somewhere in ours. */
    r = kernel_move_mount(mount_fd, over_fd);
    if (r < 0)
        return error_errno(err, -r, "attach a tmpfs");
    r = make_node(
        mount_fd, "node", device,
        mapped(linux->uid_mappings, linux->uid_mappings_count, device->has_uid ? device->uid : 0),
        mapped(linux->gid_mappings, linux->gid_mappings_count, device->has_gid ? device->gid : 0),
        err);
    if (r < 0)
        return r;
    int tree_fd = kernel_open_tree(mount_fd, "node", OPEN_TREE_CLONE);
    return tree_fd < 0 ? error_errno(err, -tree_fd, "copy the mount of a device") : tree_fd;
}

/* The root of the container's first process, whatever it has made of it. */
static int open_root(const struct stored *stored, struct error *err)
{
    char path[40];
    _cleanup_close_ int proc_fd = create_open_proc(err);

    if (proc_fd < 0)
        return proc_fd;
    snprintf(path, sizeof(path), "%d/root", stored->state->pid);
    _cleanup_close_ int fd = openat(proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open the container's root");
    /* The number may have come to another process before it was opened, but not while the first
     * one is there. */
    if (kernel_pidfd_send_signal(stored->pidfd, 0) < 0)
        return error_set(err, -ESRCH, "container not running");
    return steal_fd(&fd);
}

struct node_job {
    const struct stored *stored;
    const struct oci_config *config;
    const struct oci_device *device;
    int root_fd;
};

/* State on entry: a child of ours. Afterwards it is in the container's mount namespace, as the root
 * of its user namespace where it has one. */
static int enter_container(const struct node_job *job, struct error *err)
{
    bool own_users = job->config->linux && job->config->linux->uid_mappings_count;

    if (setns(job->stored->pidfd, CLONE_NEWNS | (own_users ? CLONE_NEWUSER : 0)) < 0)
        return error_errno(err, errno, "enter the container's mount namespace");
    if (own_users && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
        return error_errno(err, errno, "become the container's root");
    return 0;
}

static int bind_over_file(int parent_fd, const char *name, int tree_fd,
                          const struct oci_device *device, struct error *err)
{
    struct stat made, found;
    _cleanup_close_ int file_fd =
        openat(parent_fd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);

    if (file_fd < 0 && errno == EEXIST)
        return check_existing(parent_fd, name, device, err);
    if (file_fd < 0)
        return error_errno(err, errno, "create the file for it");
    _cleanup_close_ int dest_fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (dest_fd < 0 || fstat(file_fd, &made) < 0 || fstat(dest_fd, &found) < 0)
        return error_errno(err, errno, "open the file for it");
    if (made.st_dev != found.st_dev || made.st_ino != found.st_ino)
        return error_set(err, -EEXIST, "it was replaced while it was made");
    int r = kernel_move_mount(tree_fd, dest_fd);
    if (r < 0) {
        unlinkat(parent_fd, name, 0);
        return error_errno(err, -r, "bind it");
    }
    return 0;
}

static int bind_node(const struct node_job *job, struct error *err)
{
    const char *name;
    _cleanup_close_ int tree_fd = device_node_detached(job->config, job->device, err);
    int r = tree_fd < 0 ? tree_fd : enter_container(job, err);

    if (r < 0)
        return r;
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(job->root_fd, job->device->path, 0755, &name, err);
    if (parent_fd < 0)
        return parent_fd;
    r = bind_over_file(parent_fd, name, tree_fd, job->device, err);
    return r < 0 ? error_context(err, "%s", job->device->path) : 0;
}

static int unbind_node(const struct node_job *job, struct error *err)
{
    const char *name;
    int r = enter_container(job, err);

    if (r < 0)
        return r;
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(job->root_fd, job->device->path, 0, &name, err);
    /* By its name in the folder one is in: no path of the container is walked. */
    if (parent_fd < 0 || fchdir(parent_fd) < 0)
        return error_errno(err, errno, "open the folder of %s", job->device->path);
    r = kernel_umount(name, MNT_DETACH | UMOUNT_NOFOLLOW);
    if (r < 0)
        return error_errno(err, -r, "unmount %s", job->device->path);
    if (unlinkat(parent_fd, name, 0) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove %s", job->device->path);
    return 0;
}

/* Namespaces that are entered are not left again: a child does it. */
static int run_in_child(int (*work)(const struct node_job *job, struct error *err),
                        const struct node_job *job, struct error *err)
{
    int parent_fd, child_fd, pidfd = -1;
    int r = sync_pair(&parent_fd, &child_fd, err);

    if (r < 0)
        return r;
    pid_t pid = kernel_clone(0, -1, &pidfd);
    if (pid == 0) {
        struct error failure = ERROR_INIT;
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        close(parent_fd);
        if (work(job, &failure) < 0)
            init_fail(child_fd, &failure);
        _exit(0);
    }
    close(child_fd);
    if (pid < 0)
        r = error_errno(err, -pid, "start a process");
    else
        r = sync_expect_end(parent_fd, err);
    close(parent_fd);
    close_fd(pidfd);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return r;
}

/* Engines write down what they saw on the host, in its numbers, for every device that they pass on
 * (podman run --privileged --uidmap ...): they mean the host's node, as runc and crun take it.
 * One of the container's root in its place would give it the host's disks. */
static bool is_copied_from(const struct stat *status, const struct oci_device *device)
{
    return (!device->has_uid || device->uid == status->st_uid) &&
           (!device->has_gid || device->gid == status->st_gid);
}

/* Whether the host's node of that path will do. */
static bool host_has(const struct oci_config *config, const struct oci_device *device)
{
    const struct oci_linux *linux = config->linux;
    struct stat status;

    if (lstat(device->path, &status) < 0 || !is_node(&status, device) ||
        (device->has_file_mode && mode_of(device) != (status.st_mode & 07777)))
        return false;
    return is_copied_from(&status, device) ||
           ((!device->has_uid || mapped(linux->uid_mappings, linux->uid_mappings_count,
                                        device->uid) == status.st_uid) &&
            (!device->has_gid ||
             mapped(linux->gid_mappings, linux->gid_mappings_count, device->gid) == status.st_gid));
}

static bool wants_node(const struct oci_config *config, const struct oci_device *device)
{
    return device->type[0] != 'p' && device->has_major && device->has_minor &&
           !host_has(config, device);
}

static int send_nodes(const struct oci_config *config, int fd, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < config->linux->devices_count; i++) {
        const struct oci_device *device = config->linux->devices[i];
        if (!wants_node(config, device))
            continue;
        int tree_fd = r = device_node_detached(config, device, err);
        if (r >= 0)
            r = sync_send_fds(fd, SYNC_DEVICE, &tree_fd, 1, err);
        else
            error_context(err, "linux.devices[%zu]", i);
        close_fd(tree_fd);
    }
    return r;
}

static int receive_nodes(struct container *container, int fd, const bool *wanted, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < container->config->linux->devices_count; i++) {
        size_t count = 1;
        if (wanted[i])
            r = sync_expect_fds(fd, SYNC_DEVICE, &container->device_fds[i], &count, err);
    }
    return r;
}

/* In a child, for the mount namespace that it takes. */
static int make_nodes(struct container *container, const bool *wanted, struct error *err)
{
    int parent_fd, child_fd;
    int r = sync_pair(&parent_fd, &child_fd, err);

    if (r < 0)
        return r;
    pid_t pid = kernel_clone(0, -1, NULL);
    if (pid == 0) {
        struct error failure = ERROR_INIT;
        close(parent_fd);
        if (send_nodes(container->config, child_fd, &failure) < 0)
            init_fail(child_fd, &failure);
        _exit(0);
    }
    close(child_fd);
    r = pid < 0 ? error_errno(err, -pid, "start a process")
                : receive_nodes(container, parent_fd, wanted, err);
    close(parent_fd);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return r;
}

int device_nodes_prepare(struct container *container, struct error *err)
{
    const struct oci_linux *linux = container->config->linux;
    size_t count = linux ? linux->devices_count : 0;
    bool any = false;

    if (!count || !(container->namespaces.create & CLONE_NEWUSER) || runtime_caller_is_limited())
        return 0;
    _cleanup_free_ bool *wanted = xnew_array(bool, count);
    container->device_fds = xnew_array(int, count);
    for (size_t i = 0; i < count; i++) {
        container->device_fds[i] = -1;
        wanted[i] = wants_node(container->config, linux->devices[i]);
        any |= wanted[i];
    }
    return any ? make_nodes(container, wanted, err) : 0;
}

void device_nodes_finish(struct container *container)
{
    size_t count = container->device_fds ? container->config->linux->devices_count : 0;

    for (size_t i = 0; i < count; i++)
        close_fd(container->device_fds[i]);
    free(container->device_fds);
    container->device_fds = NULL;
}

static bool devices_work_in(int parent_fd)
{
    struct statvfs status;

    return fstatvfs(parent_fd, &status) == 0 && !(status.f_flag & ST_NODEV);
}

int device_node_add(const struct stored *stored, const struct oci_config *config,
                    const struct oci_device *device, struct error *err)
{
    const char *name;
    struct node_job job = {.stored = stored, .config = config, .device = device, .root_fd = -1};
    _cleanup_close_ int root_fd = job.root_fd = open_root(stored, err);

    if (root_fd < 0)
        return root_fd;
    if (config->linux && config->linux->uid_mappings_count)
        return run_in_child(bind_node, &job, err);
    _cleanup_close_ int parent_fd =
        file_open_parent_in_root(root_fd, device->path, 0755, &name, err);
    if (parent_fd < 0)
        return parent_fd;
    if (!devices_work_in(parent_fd))
        return run_in_child(bind_node, &job, err);
    return make_node(parent_fd, name, device, device->has_uid ? device->uid : 0,
                     device->has_gid ? device->gid : 0, err);
}

int device_node_remove(const struct stored *stored, const struct oci_config *config,
                       const struct oci_device *device, struct error *err)
{
    const char *name;
    struct stat status;
    struct node_job job = {.stored = stored, .config = config, .device = device, .root_fd = -1};
    _cleanup_close_ int root_fd = job.root_fd = open_root(stored, err);

    if (root_fd < 0)
        return root_fd;
    _cleanup_close_ int parent_fd = file_open_parent_in_root(root_fd, device->path, 0, &name, err);
    if (parent_fd == -ENOENT ||
        (parent_fd >= 0 && fstatat(parent_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 &&
         errno == ENOENT)) {
        error_finish(err);
        return 0;
    }
    if (parent_fd < 0)
        return parent_fd;
    if (!is_node(&status, device))
        return error_set(err, -EEXIST, "%s is another thing by now: it is left there",
                         device->path);
    if (unlinkat(parent_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EBUSY)
        return error_errno(err, errno, "remove %s", device->path);
    return run_in_child(unbind_node, &job, err);
}
