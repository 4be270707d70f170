#include "folders.h"

#include <dirent.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

static const char *const names[] = {"containers", "runtime"};

static char *path_of(const struct instance *instance, const char *name)
{
    return xasprintf("%s/%s", instance->run, name);
}

static bool is_in_memory(const char *path)
{
    struct statfs status;

    return statfs(path, &status) == 0 &&
           (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

static bool is_empty(const char *path)
{
    _cleanup_closedir_ DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (!text_equal(entry->d_name, ".") && !text_equal(entry->d_name, ".."))
            return false;
    }
    return dir != NULL;
}

void folders_hold(const struct instance *instance)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_free_ char *path = path_of(instance, names[i]);

        if (is_in_memory(path) || !is_empty(path))
            continue;
        if (mount("cloche", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
            log_debug("%s stays on the disk", path);
    }
}

void folders_release(const struct instance *instance)
{
    _cleanup_free_ char *containers = path_of(instance, names[0]);

    if (is_empty(containers))
        folders_remove(instance);
}

/* Only what is a mount of its own: /run itself may be in memory, and is not a mount at these names
 * then (EINVAL). */
void folders_remove(const struct instance *instance)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_free_ char *path = path_of(instance, names[i]);

        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
}
