/*
 * One container while the runtime works on it. create fills it in the parent; the child inherits
 * it by fork and turns itself into the container with it.
 */
#ifndef RUNTIME_CONTAINER_STRUCT_H
#define RUNTIME_CONTAINER_STRUCT_H

#include <stdbool.h>
#include <sys/ioctl.h>

#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include <base/error.h>

#include "cgroup.h"
#include "hooks.h"
#include "namespaces.h"
#include "preserved.h"

/* A directory, in this boot of the machine. */
struct mount_place {
    uint64_t mount, inode;
};

struct container {
    const char *id;            /* borrowed */
    char *bundle;              /* owned; absolute */
    char *rootfs;              /* owned; absolute */
    struct oci_config *config; /* owned */
    char *config_text;         /* owned; as read */
    size_t config_length;
    size_t record_room; /* of the record's state, once it is written */
    char *created;      /* owned; RFC 3339 */

    struct cgroup cgroup;
    struct cgroup_join join;
    struct namespaces namespaces;
    bool in_cgroup;       /* the child was born in join.clone_fd*/
    bool no_cgroup;       /* it stays in the caller's */
    bool systemd_cgroup;  /* systemd makes the cgroup */
    bool cgroup_late;     /* the cgroup is made after the clone: SYNC_CGROUP */
    bool cgroup_joined;   /* in the child */
    bool cgroup_recorded; /* in the state file */

    int state_fd;          /* the state directory; -1 */
    int proc_fd;           /* the host's /proc, verified */
    int sync_fd;           /* the parent's or the child's end */
    int fifo_fd;           /* the child waits for a byte here before it executes; -1: it does not */
    int console_fd;        /* socket that gets the terminal's master; -1 */
    bool relays_console;   /* that socket is ours */
    int notify_fd;         /* where the container says that it is ready; -1 */
    int pidfd_socket;      /* gets a pidfd of the child; -1 */
    struct winsize window; /* first size of the terminal */
    int root_tree_fd;      /* detached copy of the root's mounts, from the parent; -1 */
    int root_fd;           /* in the child: the container's root, once it is mounted */
    uint64_t shared_root;  /* mount of the root in the host's namespace, see rootfs.h; 0: none */
    struct mount_entry *mounts; /* owned; see mounts.h */
    size_t mounts_count;
    int map_fds[2];  /* for idmapped mounts: the parent's and the child's end; -1 */
    int *device_fds; /* owned; linux.devices by index, made outside of the user namespace; NULL */
    bool no_pivot;   /* change the root by chroot */
    struct mount_place root_place; /* of root_fd, while mounting */
    bool running;                  /* it is there already: mounts_running.c */
    bool root_in_place;            /* the root is mounted over its own folder and not on "/" */

    struct hook_output hook_output;

    pid_t pid; /* in the parent */
    int pidfd;

    struct preserved preserved;
    bool no_new_keyring;
    bool unprivileged;  /* the caller is not root, not even of a user namespace */
    bool rdt_was_there; /* its group of resctrl, before it was made */
    bool foreground;    /* the caller stays until the program ends */
    bool unexecuted;    /* it was killed before it could execute the program */
    bool unwatched;     /* whether the program was executed is looked at when it has ended */
    char **warnings;    /* owned; for the log */
};

void container_init(struct container *container, const char *id);
void container_finish(struct container *container);

/* For hooks and agents; pid: as they see it. Borrows from container. */
struct runtime_state container_describe(const struct container *container);

/* CLONE_NEW* of the kinds that are not the caller's. */
static inline uint64_t container_own_namespaces(const struct container *container)
{
    return container->namespaces.create | container->namespaces.join;
}

#endif
