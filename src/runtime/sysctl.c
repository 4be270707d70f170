#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "sysctl.h"

/* Parameters of the IPC namespace (ipc/ipc_sysctl.c, ipc/mq_sysctl.c of the kernel). */
static char *const ipc_names[] = {"kernel.msgmax",
                                  "kernel.msgmnb",
                                  "kernel.msgmni",
                                  "kernel.sem",
                                  "kernel.shmall",
                                  "kernel.shmmax",
                                  "kernel.shmmni",
                                  "kernel.shm_rmid_forced",
                                  "kernel.msg_next_id",
                                  "kernel.sem_next_id",
                                  "kernel.shm_next_id",
                                  "kernel.auto_msgmni",
                                  NULL};

/* The file below /proc/sys. "net/ipv4/conf/eth0.1/rp_filter" and "net.ipv4.conf.eth0/1.rp_filter"
 * are the same: the first separator decides which of the two is one (sysctl(8)). Owned by the
 * caller. */
static char *path_of(const char *name)
{
    char *path = xstrdup(name);

    if (path[strcspn(path, "./")] == '.') {
        for (char *c = path; *c; c++)
            *c = *c == '.' ? '/' : *c == '/' ? '.' : *c;
    }
    return path;
}

/* Below /proc/sys a path that leads elsewhere than it says would name another parameter than the
 * one that is checked here, and maybe one of the host's. */
static bool is_plain(const char *path)
{
    for (const char *at = path;; at++) {
        size_t length = strcspn(at, "/");
        if (length == 0 || (length == 1 && at[0] == '.') ||
            (length == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at += length;
        if (!*at)
            return true;
    }
}

static bool is_ipc(const char *path)
{
    if (text_starts_with(path, "fs/mqueue/"))
        return true;
    for (char *const *name = ipc_names; *name; name++) {
        _cleanup_free_ char *other = path_of(*name);
        if (text_equal(other, path))
            return true;
    }
    return false;
}

/* A namespace that is joined may be the one that we are in. */
static bool is_own(const struct container *container, uint64_t flag)
{
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        struct stat joined, ours;
        int fd = container->namespaces.fds[i];
        if (namespace_kinds[i].flag != flag || fd < 0)
            continue;
        _cleanup_free_ char *path = xasprintf("/proc/self/ns/%s", namespace_kinds[i].file);
        return fstat(fd, &joined) == 0 && stat(path, &ours) == 0 && joined.st_ino != ours.st_ino;
    }
    return container->namespaces.create & flag;
}

static int check_domain(const struct container *container, const char *value, struct error *err)
{
    const char *domain = container->config->domainname;

    if (text_empty(domain) || text_equal(domain, value))
        return 0;
    return error_set(err, -EINVAL,
                     "linux.sysctl: 'kernel.domainname' conflicts with the field domainname: '%s' "
                     "and '%s'",
                     value, domain);
}

static int check_one(const struct container *container, const char *name, const char *value,
                     struct error *err)
{
    _cleanup_free_ char *path = path_of(name);
    uint64_t needed;

    if (!is_plain(path))
        return error_set(err, -EINVAL, "linux.sysctl: '%s' contains an invalid path", name);
    if (!*value)
        return error_set(err, -EINVAL, "linux.sysctl: '%s' has no value", name);
    if (text_starts_with(path, "net/"))
        needed = CLONE_NEWNET;
    else if (is_ipc(path))
        needed = CLONE_NEWIPC;
    else if (text_starts_with(path, "user/"))
        needed = CLONE_NEWUSER;
    else if (text_equal(path, "kernel/hostname"))
        return error_set(err, -EINVAL,
                         "linux.sysctl: '%s' is not allowed: it conflicts with the field hostname",
                         name);
    else if (text_equal(path, "kernel/domainname"))
        needed = CLONE_NEWUTS;
    else
        return error_set(err, -EINVAL,
                         "linux.sysctl: '%s' is not in a separate kernel namespace: it would "
                         "change the host",
                         name);
    if (!is_own(container, needed))
        return error_set(err, -EINVAL,
                         "linux.sysctl: '%s' is not allowed in the host's namespace: it needs one "
                         "of the container's own",
                         name);
    return needed == CLONE_NEWUTS ? check_domain(container, value, err) : 0;
}

int sysctl_check(const struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    int r = 0;

    for (size_t i = 0; config && config->sysctl && r == 0 && i < config->sysctl->count; i++)
        r = check_one(container, config->sysctl->keys[i], config->sysctl->values[i], err);
    return r;
}

/* The files show the namespaces of who opens them, whichever /proc they are in: the host's is the
 * one that nobody in the container can have tampered with (CVE-2025-52881). */
static int write_one(int sys_fd, const char *name, const char *value, struct error *err)
{
    _cleanup_free_ char *path = path_of(name);
    _cleanup_close_ int fd =
        file_open_in_root_flags(sys_fd, path, O_WRONLY, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
    if (fd < 0)
        return error_errno(err, -fd, "linux.sysctl: open '%s'", name);
    if (write(fd, value, strlen(value)) < 0)
        return error_errno(err, errno, "linux.sysctl: write '%s' to '%s'", value, name);
    return 0;
}

int sysctl_apply(struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    int r = 0;

    if (!config || !config->sysctl || !config->sysctl->count)
        return 0;
    _cleanup_close_ int sys_fd =
        openat(container->proc_fd, "sys", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (sys_fd < 0)
        return error_errno(err, errno, "open /proc/sys");
    for (size_t i = 0; r == 0 && i < config->sysctl->count; i++)
        r = write_one(sys_fd, config->sysctl->keys[i], config->sysctl->values[i], err);
    return r;
}
