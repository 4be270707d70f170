#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
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

static int check_name(const struct container *container, const char *name, struct error *err)
{
    uint64_t own = container_own_namespaces(container), needed;

    /* "net/ipv4/conf/eth0.1/..." is the other way to write it (sysctl(8)). */
    _cleanup_free_ char *dotted = xstrdup(name);
    if (strchr(dotted, '/') &&
        (!strchr(dotted, '.') || strchr(dotted, '/') < strchr(dotted, '.'))) {
        for (char *c = dotted; *c; c++)
            *c = *c == '/' ? '.' : *c;
    }
    if (text_starts_with(dotted, "net."))
        needed = CLONE_NEWNET;
    else if (text_starts_with(dotted, "fs.mqueue.") || strv_contains(ipc_names, dotted))
        needed = CLONE_NEWIPC;
    else if (text_equal(dotted, "kernel.hostname"))
        return error_set(err, -EINVAL,
                         "linux.sysctl: '%s' is not allowed: it conflicts with the field hostname",
                         name);
    else if (text_equal(dotted, "kernel.domainname"))
        needed = CLONE_NEWUTS;
    else
        return error_set(err, -EINVAL,
                         "linux.sysctl: '%s' belongs to no namespace: it would change the host",
                         name);
    if (!(own & needed))
        return error_set(err, -EINVAL,
                         "linux.sysctl: '%s' needs a namespace of its own, the container shares "
                         "the host's",
                         name);
    return 0;
}

int sysctl_check(const struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    int r = 0;

    for (size_t i = 0; config && config->sysctl && r == 0 && i < config->sysctl->count; i++)
        r = check_name(container, config->sysctl->keys[i], err);
    return r;
}

/* The files show the namespaces of who opens them, whichever /proc they are in: the host's is the
 * one that nobody in the container can have tampered with (CVE-2025-52881). */
static int write_one(int sys_fd, const char *name, const char *value, struct error *err)
{
    _cleanup_free_ char *path = xstrdup(name);
    char *dot = strchr(path, '.'), *slash = strchr(path, '/');

    if (dot && (!slash || dot < slash)) {
        for (char *c = path; *c; c++)
            *c = *c == '.' ? '/' : *c == '/' ? '.' : *c;
    }
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
