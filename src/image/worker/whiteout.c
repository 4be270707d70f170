#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/text.h>

#include "whiteout.h"

static const char opaque_attribute[] = "user.overlay.opaque";

bool whiteout_is_name(const char *name)
{
    return text_starts_with(name, WHITEOUT_PREFIX);
}

bool whiteout_is_device(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == makedev(0, 0);
}

bool whiteout_is(int folder_fd, const char *name)
{
    struct stat status;

    return fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           whiteout_is_device(&status);
}

int whiteout_set_opaque(int folder_fd, const char *name, struct error *err)
{
    _cleanup_close_ int fd =
        openat(folder_fd, name ? name : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fsetxattr(fd, opaque_attribute, "y", 1, 0) < 0)
        return error_errno(err, errno, "make the folder opaque");
    return 0;
}

bool whiteout_is_opaque(int folder_fd)
{
    char value = 0;

    return fgetxattr(folder_fd, opaque_attribute, &value, 1) == 1 && value == 'y';
}

int whiteout_apply(int folder_fd, const char *name, struct error *err)
{
    const char *hidden = name + sizeof(WHITEOUT_PREFIX) - 1;
    struct stat status;

    if (text_equal(name, WHITEOUT_OPAQUE))
        return whiteout_set_opaque(folder_fd, NULL, err);
    /* .wh..wh.aufs and the like are aufs' own files: docker leaves them out too. */
    if (text_starts_with(hidden, WHITEOUT_PREFIX))
        return 0;
    if (!hidden[0] || text_equal(hidden, ".") || text_equal(hidden, ".."))
        return error_set(err, -EBADMSG, "a whiteout of nothing");
    if (mknodat(folder_fd, hidden, S_IFCHR, makedev(0, 0)) == 0)
        return 0;
    if (errno != EEXIST)
        return error_errno(err, errno, "create a whiteout");
    if (fstatat(folder_fd, hidden, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode))
        return whiteout_set_opaque(folder_fd, hidden, err);
    return 0;
}
