/*
 * Which namespaces a container gets: new ones, joined ones, or the caller's.
 */
#ifndef RUNTIME_NAMESPACES_H
#define RUNTIME_NAMESPACES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

struct oci_linux;
struct cgroup_join;

enum { NAMESPACES_COUNT = 8 };

struct namespaces {
    uint64_t create;           /* CLONE_NEW* of the new ones */
    uint64_t join;             /* and of the joined ones */
    int fds[NAMESPACES_COUNT]; /* owned; of the joined ones, else -1; index as namespace_kinds */
    bool aside;                /* another process than the caller does the joining */
};

struct namespace_kind {
    const char *name; /* in the configuration */
    const char *file; /* under /proc/PID/ns */
    uint64_t flag;
};

extern const struct namespace_kind namespace_kinds[NAMESPACES_COUNT];

/* Opens those to be joined. config may be NULL. */
int namespaces_init(struct namespaces *namespaces, const struct oci_linux *config,
                    struct error *err);

/* Opens those of the kinds `flags` that a process has, to be joined by another process. */
int namespaces_of_process(struct namespaces *namespaces, int proc_fd, pid_t pid, uint64_t flags,
                          struct error *err);
void namespaces_finish(struct namespaces *namespaces);

/* CLONE_NEW* of the kinds in which a process is in another one than the caller. */
int namespaces_differing(int proc_fd, pid_t pid, uint64_t *ret, struct error *err);

/* Whether the process has to be started through another one (namespaces.c). */
bool namespaces_need_intermediate(const struct namespaces *namespaces);

/* Starts the container's process as a child of the caller, in its new pid, time and user
 * namespaces; the others follow inside. On success 0 is returned in the child and 1 in the parent,
 * with pid and pidfd (owned). When join->clone_fd is set, the child is already in that cgroup if
 * *ret_in_cgroup says so; join is empty in a child that needs none. */
int namespaces_clone(const struct namespaces *namespaces, const struct oci_linux *config,
                     struct cgroup_join *join, pid_t *ret_pid, int *ret_pidfd, bool *ret_in_cgroup,
                     struct error *err);

/* In the child: makes and joins the others, but for the cgroup namespace. */
int namespaces_enter(const struct namespaces *namespaces, const struct oci_linux *config,
                     struct error *err);

/* In the child, when it is in its cgroup: a new cgroup namespace shows that one as the root. */
int namespaces_enter_cgroup(const struct namespaces *namespaces, struct error *err);

/* In the child, as root of its user namespace: makes those that must be made by that user. */
int namespaces_enter_as_root(const struct namespaces *namespaces, struct error *err);

/* Brings "lo" of the current network namespace up. */
int namespaces_loopback_up(struct error *err);

#endif
