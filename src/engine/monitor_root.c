#include "monitor_root.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

struct opening {
    pid_t monitor;
    char *path; /* owned */
    int fd;
    int error;
};

/* open_tree(2) clones mounts of the caller's own namespace only, and setns(2) takes a thread into
 * another one only when it shares its root and working directory with nobody: this thread does
 * nothing else. */
static void *open_there(void *data)
{
    struct opening *opening = data;
    _cleanup_close_ int process = (int)syscall(SYS_pidfd_open, opening->monitor, 0);
    struct statx status;

    if (process < 0 || unshare(CLONE_FS) < 0 || setns(process, CLONE_NEWNS) < 0) {
        opening->error = errno;
        return NULL;
    }
    /* The number may be another process's by now, which has no mount there. */
    if (statx(AT_FDCWD, opening->path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) < 0 ||
        !(status.stx_attributes & STATX_ATTR_MOUNT_ROOT)) {
        opening->error = ESRCH;
        return NULL;
    }
    opening->fd = (int)syscall(SYS_open_tree, AT_FDCWD, opening->path, OPEN_TREE_CLONE | O_CLOEXEC);
    opening->error = opening->fd < 0 ? errno : 0;
    return NULL;
}

int monitor_root_open(pid_t monitor, const struct container *container, int *ret_fd,
                      struct error *err)
{
    struct opening opening = {
        .monitor = monitor, .path = container_run_path(container, "rootfs"), .fd = -1};
    pthread_t thread;
    int r = pthread_create(&thread, NULL, open_there, &opening);

    if (r == 0)
        pthread_join(thread, NULL);
    free(opening.path);
    if (r)
        return error_errno(err, r, "start a thread");
    if (opening.error == ESRCH)
        return error_set(err, -EAGAIN, "container %s has just ended", container->name);
    if (opening.error)
        return error_errno(err, opening.error, "open the root of %s", container->name);
    *ret_fd = opening.fd;
    return 0;
}
