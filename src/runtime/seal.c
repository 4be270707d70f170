/*
 * Keeping the program's file out of the container's reach (CVE-2019-5736).
 *
 * A process of ours becomes the container's program, and until then /proc/PID/exe in there leads to
 * our file; an image whose program is a script with "#!/proc/self/exe" even executes it. Whoever
 * opens that link reaches the file through the mount it was executed from. So what goes near a
 * container has its file from a mount of its own, which is read-only and attached nowhere: nobody
 * can make it writable again. The file is exchanged under the running program, or, where that is
 * not allowed, the program is executed once more from there; where mounts cannot be made, from a
 * sealed copy in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <runtime/runtime.h>

#include <base/cleanup.h>

#include "seal.h"
#include "seal_in_place.h"

#define OWN_FILE "/proc/self/exe"
#define ALL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

static int mount_fd = -1;

void seal_release(void)
{
    close_fd(steal_fd(&mount_fd));
}

void seal_keep_off(int end)
{
    if (mount_fd < 0 || mount_fd >= end)
        return;
    int fd = fcntl(mount_fd, F_DUPFD_CLOEXEC, end);
    seal_release();
    mount_fd = fd; /* above the limit of open files: -1, it is closed early */
}

static bool is_sealed(int fd)
{
    struct statvfs status;

    return fcntl(fd, F_GET_SEALS) == ALL_SEALS ||
           (fstatvfs(fd, &status) == 0 && (status.f_flag & ST_RDONLY));
}

static int open_readonly_mount(void)
{
    const struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, OWN_FILE, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd >= 0 && syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0)
        return fd;
    close_fd(fd);
    return -1;
}

static int copy_to_memory(int own_fd)
{
    struct stat status;
    off_t offset = 0;
    int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 every one may be executed */
        fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fstat(own_fd, &status) < 0)
        goto fail;
    while (offset < status.st_size) {
        if (sendfile(fd, own_fd, &offset, (size_t)(status.st_size - offset)) <= 0)
            goto fail;
    }
    if (fcntl(fd, F_ADD_SEALS, ALL_SEALS) == 0)
        return fd;
fail:
    close_fd(fd);
    return -1;
}

int cloche_runtime_seal(char **argv, unsigned flags)
{
    if (flags & ~CLOCHE_RUNTIME_SEAL_KEEP_FOLDER)
        return -EINVAL;
    if (flags & CLOCHE_RUNTIME_SEAL_KEEP_FOLDER)
        runtime_systemd_find_helper();
    _cleanup_close_ int own_fd = open(OWN_FILE, O_RDONLY | O_CLOEXEC);
    const char *name = strrchr(argv[0], '/');

    if (own_fd < 0)
        return -errno;
    if (is_sealed(own_fd)) {
        prctl(PR_SET_NAME, name ? name + 1 : argv[0]); /* execveat left a descriptor's number */
        return 0;
    }
    _cleanup_close_ int fd = open_readonly_mount();
    if (fd >= 0 && seal_in_place(fd, argv) == 0) {
        mount_fd = steal_fd(&fd);
        return 0;
    }
    if (fd < 0)
        fd = copy_to_memory(own_fd);
    if (fd >= 0)
        syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
    return -errno;
}
