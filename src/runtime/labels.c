#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "labels.h"

#ifndef SELINUX_MAGIC
#define SELINUX_MAGIC 0xf97cff8c
#endif

#define APPARMOR_ENABLED "/sys/module/apparmor/parameters/enabled"

static bool apparmor_enabled(void)
{
    char value = 'N';
    _cleanup_close_ int fd = open(APPARMOR_ENABLED, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && read(fd, &value, 1) == 1 && value == 'Y';
}

bool labels_selinux_enabled(void)
{
    struct statfs status;

    return statfs("/sys/fs/selinux", &status) == 0 && (unsigned long)status.f_type == SELINUX_MAGIC;
}

int labels_check(const struct oci_process *process, struct error *err)
{
    if (!text_empty(process->apparmor_profile) && !apparmor_enabled())
        return error_set(err, -ENOTSUP,
                         "process.apparmorProfile: apparmor: config provided but apparmor not "
                         "supported");
    if (!text_empty(process->selinux_label) && !labels_selinux_enabled())
        return error_set(err, -ENOTSUP,
                         "process.selinuxLabel: selinux label is specified in config, but selinux "
                         "is disabled or not supported");
    return 0;
}

static bool label_mounts(const struct oci_linux *linux)
{
    return linux && !text_empty(linux->mount_label) && labels_selinux_enabled();
}

void labels_warn_of_mounts(const struct oci_linux *linux, char ***warnings)
{
    if (!text_empty(linux->mount_label) && !labels_selinux_enabled())
        strv_append(warnings, "linux.mountLabel: selinux is disabled or not supported, mounts get "
                              "no label");
}

char *labels_mount_option(const struct oci_linux *linux, const char *type, const char *option)
{
    static char *const others[] = {"proc", "sysfs", "mqueue", "cgroup", "cgroup2", NULL};

    if (!label_mounts(linux) || strv_contains(others, type))
        return NULL;
    /* Categories have a comma between them ("s0:c4,c5"). */
    return xasprintf(strchr(linux->mount_label, ',') ? "%s=\"%s\"" : "%s=%s",
                     option ? option : "context", linux->mount_label);
}

int labels_set_mount(int mount_fd, const struct oci_linux *linux, const char *type,
                     struct error *err)
{
    char path[40];

    if (!text_equal(type, "mqueue") || !label_mounts(linux))
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", mount_fd);
    if (setxattr(path, "security.selinux", linux->mount_label, strlen(linux->mount_label), 0) < 0)
        return error_errno(err, errno, "linux.mountLabel: label mqueue");
    return 0;
}

static int write_attribute(int proc_fd, const char *name, const char *value, size_t length)
{
    _cleanup_free_ char *path = xasprintf("thread-self/attr/%s", name);
    _cleanup_close_ int fd = openat(proc_fd, path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    /* One write: each is a value of its own. */
    ssize_t n = write(fd, value, length);
    return n < 0 ? -errno : (size_t)n == length ? 0 : -EIO;
}

static int set_apparmor(int proc_fd, const char *profile, struct error *err)
{
    _cleanup_free_ char *value = xasprintf("exec %s", profile);
    int r = write_attribute(proc_fd, "apparmor/exec", value, strlen(value));

    if (r == -ENOENT) /* either no such profile, or Linux before 5.8 */
        r = write_attribute(proc_fd, "exec", value, strlen(value));
    if (r == 0)
        return 0;
    if (r != -ENOENT)
        return error_errno(
            err, -r, "process.apparmorProfile: apparmor failed to apply profile '%s'", profile);
    /* Words that callers of crun and of runc look for. */
    error_set(err, r, "process.apparmorProfile: apply apparmor profile `%s`: profile not loaded",
              profile);
    error_hint(err, "apparmor_parser -r FILE loads profiles, aa-status lists them");
    return r;
}

int labels_set_exec(int proc_fd, const struct oci_process *process, struct error *err)
{
    const char *label = process->selinux_label;
    int r = 0;

    if (!text_empty(process->apparmor_profile))
        r = set_apparmor(proc_fd, process->apparmor_profile, err);
    if (r < 0 || text_empty(label))
        return r;
    r = write_attribute(proc_fd, "exec", label, strlen(label));
    return r < 0 ? error_errno(err, -r, "process.selinuxLabel: set '%s'", label) : 0;
}

int labels_set_keys(int proc_fd, const char *label, struct error *err)
{
    /* Nothing to write would not be seen by the kernel: a lone NUL clears it. */
    bool clear = text_empty(label);
    int r = write_attribute(proc_fd, "keycreate", clear ? "" : label, clear ? 1 : strlen(label));

    return r < 0 ? error_errno(err, -r, "process.selinuxLabel: label the session keyring '%s'",
                               clear ? "" : label)
                 : 0;
}
