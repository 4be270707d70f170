/*
 * Who is at the other end of a connection: what the kernel knew of them when they connected.
 */
#ifndef CLOCHED_PEER_H
#define CLOCHED_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <stdint.h>

enum { PEER_CONTAINER_DIGITS = 64, PEER_GROUPS_MAX = 65536 };

/* Whether a process is in one of our containers. */
enum peer_place {
    PEER_OUTSIDE,   /* in none */
    PEER_CONTAINER, /* in the one that `container` names */
    PEER_ELSEWHERE, /* in none of ours, but with users or processes of its own: in somebody else's
                     */
    PEER_UNKNOWN,   /* it has ended, or cannot be looked at: it may have been in one */
};

struct peer {
    uid_t uid; /* as this machine counts them, also of processes in user namespaces */
    gid_t gid;
    pid_t pid;
    enum peer_place place;
    bool later; /* unknown for want of a descriptor, or memory: to be looked at again */
    char container[PEER_CONTAINER_DIGITS + 1]; /* ID; "" outside */
};

/* Asks the kernel of the other end of fd, a connected Unix socket. prefixes: peer_prefixes(). What
 * the kernel does not tell is left as unknown. Reads a few small files of /proc. */
struct peer *peer_look(int fd, char *const *prefixes);
void peer_free(struct peer *peer); /* NULL is nothing */

/* All groups but its gid that the other end of fd had when it connected, owned by the caller; NULL:
 * none. They can be many, and are not kept. */
gid_t *peer_groups(int fd, size_t *ret_count);

/* What paths in /proc/PID/cgroup begin with for processes in our containers. mountinfo: of
 * ourselves; where the cgroups that we see are only a part, all paths begin with where they are.
 * Owned by the caller (strv_free()). */
char **peer_prefixes(const char *mountinfo, const char *cgroup_parent);

/* The ID of the container that a process with this /proc/PID/cgroup is in, copied to ret; false: it
 * is in none. */
bool peer_container(const char *cgroups, char *const *prefixes,
                    char ret[PEER_CONTAINER_DIGITS + 1]);

/* Whether a process with this /proc/PID/stat has ended in part: its first thread. Its cgroup file
 * says nothing then (cgroups of version 1: the root). Also when the text makes no sense. */
bool peer_is_ending(const char *stat);

#endif
