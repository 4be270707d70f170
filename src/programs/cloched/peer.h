/*
 * Who is at the other end of a connection: what the kernel knew of them when they connected.
 */
#ifndef CLOCHED_PEER_H
#define CLOCHED_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { PEER_CONTAINER_DIGITS = 64, PEER_GROUPS_MAX = 65536 };

/* Whether a process is in one of our containers. */
enum peer_place {
    PEER_OUTSIDE,   /* in none */
    PEER_CONTAINER, /* in the one that `container` names */
    PEER_UNKNOWN,   /* it has ended, or cannot be looked at: it may have been in one */
};

struct peer {
    uid_t uid; /* as this machine counts them, also of processes in user namespaces */
    gid_t gid;
    pid_t pid;
    gid_t *groups; /* owned; all but gid */
    size_t groups_count;
    enum peer_place place;
    char container[PEER_CONTAINER_DIGITS + 1]; /* ID; "" outside */
};

/* Asks the kernel of the other end of fd, a connected Unix socket. cgroup_parent: of our
 * containers. What the kernel does not tell is left as unknown. Reads two small files of /proc. */
struct peer *peer_look(int fd, const char *cgroup_parent);
void peer_free(struct peer *peer); /* NULL is nothing */

/* The ID of the container that a process with this /proc/PID/cgroup is in, copied to ret; false: it
 * is in none. */
bool peer_container(const char *cgroups, const char *cgroup_parent,
                    char ret[PEER_CONTAINER_DIGITS + 1]);

#endif
