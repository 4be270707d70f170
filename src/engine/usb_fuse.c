#include "usb_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

/* doors/fuse.h of src/usb says why. */
static const struct cache_setting {
    const char *name, *value;
} cache_settings[] = {
    {"read_ahead_kb", "4096"},
    {"max_ratio", "7"},
    {"min_ratio", "3"},
};

char *usb_fuse_source(const struct stick *stick)
{
    return stick->is_old ? xstrdup("cloche-usb") : xasprintf("cloche-usb:%s", stick->key);
}

static int set(int context, const char *key, const char *value)
{
    return fsconfig(context, FSCONFIG_SET_STRING, key, value, 0);
}

int usb_fuse_make(const struct api_usb_storage *storage, const char *source, int *ret_fuse_fd,
                  int *ret_mount_fd, struct error *err)
{
    _cleanup_close_ int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    _cleanup_close_ int context = fuse < 0 ? -1 : fsopen("fuse", FSOPEN_CLOEXEC);
    char number[16];
    unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                          (storage->exec ? 0 : MOUNT_ATTR_NOEXEC) |
                          (storage->read_only ? MOUNT_ATTR_RDONLY : 0);

    if (fuse < 0)
        return error_errno(err, errno, "open /dev/fuse");
    snprintf(number, sizeof(number), "%d", fuse);
    if (context < 0 || set(context, "source", source) < 0 || set(context, "fd", number) < 0 ||
        set(context, "rootmode", "40000") < 0 || set(context, "user_id", "0") < 0 ||
        set(context, "group_id", "0") < 0 ||
        fsconfig(context, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_FLAG, "default_permissions", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return error_errno(err, errno, "make a FUSE file system");
    int mount = fsmount(context, FSMOUNT_CLOEXEC, attributes);
    if (mount < 0)
        return error_errno(err, errno, "make a FUSE file system");
    *ret_mount_fd = mount;
    *ret_fuse_fd = steal_fd(&fuse);
    return 0;
}

uint64_t usb_fuse_device(int mount_fd)
{
    struct statx status;

    return statx(mount_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &status) < 0
               ? 0
               : makedev(status.stx_dev_major, status.stx_dev_minor);
}

void usb_fuse_set_cache(uint64_t device)
{
    for (size_t i = 0; i < ARRAY_SIZE(cache_settings); i++) {
        const struct cache_setting *setting = &cache_settings[i];
        _cleanup_free_ char *path =
            xasprintf("/sys/class/bdi/%u:%u/%s", major(device), minor(device), setting->name);
        (void)file_write_existing_at(AT_FDCWD, path, setting->value, strlen(setting->value), NULL);
    }
}
