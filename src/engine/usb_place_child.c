/*
 * In the mount namespace of a container, as root: nothing that the container has put there is
 * executed or followed out of its root, and what does not answer only holds up this process.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <engine/usb.h>

#include "usb_mountinfo.h"
#include "usb_place_child.h"

enum { REQUEST_MAX = 8192, ROUNDS_MAX = 64 };

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s", what, strerror(errno));
    return EXIT_FAILURE;
}

/* Without asking the file system, which may be gone (statx(2), AT_STATX_DONT_SYNC). */
static int device_of(int fd, unsigned *ret_major, unsigned *ret_minor)
{
    struct statx status;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &status) < 0)
        return -errno;
    *ret_major = status.stx_dev_major;
    *ret_minor = status.stx_dev_minor;
    return 0;
}

static int place(int root_fd, const char *path)
{
    unsigned major_number, minor_number;
    int target = file_open_in_root(root_fd, path, O_PATH | O_DIRECTORY, 0);

    if (target < 0) {
        errno = -target;
        return fail(path);
    }
    if (move_mount(USB_PLACE_MOUNT_FD, "", target, "",
                   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return fail("mount the stick");
    if (device_of(USB_PLACE_MOUNT_FD, &major_number, &minor_number) < 0)
        return fail("look at the mount");
    printf("%llu", (unsigned long long)makedev(major_number, minor_number));
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- unmounting ------------------------------------------------------------------------------- */

/* What lies at the path now is unmounted only when it is this device: something of the container's
 * own may lie over it. */
static bool unmount_at(int root_fd, const char *path, const char *device)
{
    _cleanup_close_ int fd = file_open_in_root(root_fd, path, O_PATH, 0);
    unsigned major_number, minor_number;
    char text[32];

    if (fd < 0 || device_of(fd, &major_number, &minor_number) < 0)
        return false;
    snprintf(text, sizeof(text), "%u:%u", major_number, minor_number);
    if (!text_equal(text, device))
        return false;
    snprintf(text, sizeof(text), "fd/%d", fd); /* the working folder is /proc/self of the machine */
    return umount2(text, MNT_DETACH) == 0;
}

static bool unmount_one(int root_fd, const char *device, const char *source)
{
    _cleanup_free_ char *text = NULL;
    char *rest;

    if (file_read_at(AT_FDCWD, "mountinfo", USB_MOUNTINFO_MAX, &text, NULL, NULL) < 0)
        return false;
    rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        const char *point = usb_mountinfo_point(line, device, source);
        if (point && unmount_at(root_fd, point, device))
            return true;
    }
    return false;
}

/* what: DEVICE SOURCE */
static int unplace(int root_fd, const char *what)
{
    const char *source = strchr(what, ' ');
    _cleanup_free_ char *device = source ? xstrndup(what, (size_t)(source - what)) : NULL;

    for (int i = 0; device && i < ROUNDS_MAX && unmount_one(root_fd, device, source + 1); i++)
        ;
    return EXIT_SUCCESS;
}

/* ---------------------------------------------------------------------------------------------- */

static const char *after(const char *request, const char *verb)
{
    return text_starts_with(request, verb) ? request + strlen(verb) : NULL;
}

static int carry_out(int root_fd, const char *request)
{
    const char *what;

    if ((what = after(request, USB_PLACE_MOUNT)))
        return place(root_fd, what);
    if ((what = after(request, USB_PLACE_UNMOUNT)))
        return unplace(root_fd, what);
    fprintf(stderr, "that is no request");
    return EXIT_FAILURE;
}

int engine_usb_place(void)
{
    _cleanup_free_ char *request = NULL;
    _cleanup_close_ int proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (proc < 0 || file_read_fd(STDIN_FILENO, REQUEST_MAX, &request, NULL, NULL) < 0)
        return fail("read the request");
    if (setns(USB_PLACE_NAMESPACE_FD, CLONE_NEWNS) < 0)
        return fail("enter the container");
    _cleanup_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fchdir(proc) < 0)
        return fail("open the container's root");
    return carry_out(root, request);
}
