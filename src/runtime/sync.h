/*
 * The conversation between the runtime and the process that becomes the container's init (or an
 * executed process), over a SOCK_SEQPACKET pair. The child's end closes by itself when it executes
 * the program: end of file without an error message is success.
 *
 *   child                                          parent
 *                        <- SYNC_USERS_MAPPED      uid_map and gid_map written (new user namespace)
 *   SYNC_NETWORK_MADE    ->                        moves network devices (if there are any)
 *                        <- SYNC_DEVICES_MOVED
 *                        <- SYNC_CGROUP            the cgroup is made; carries the descriptors to
 *                                                  join by (only where it is made after the clone)
 *   SYNC_MOUNTS_DONE     ->                        prestart and createRuntime hooks (with hooks)
 *                        <- SYNC_HOOKS_DONE
 *   SYNC_ROOT_DONE       ->                        resource limits (in a user namespace)
 *                        <- SYNC_LIMITS_SET
 *                        <- SYNC_RELEASE           state file; carries the seccomp filter, maybe
 *                                                  empty
 *   SYNC_READY           ->                        (create) pid file
 *   SYNC_LISTENER        ->                        number of the descriptor that decides on system
 *                                                  calls, for the agent (if the filter has one)
 *                        <- SYNC_LISTENER_TAKEN
 *   (end of file)
 *
 * The parent sends SYNC_CGROUP and SYNC_RELEASE as soon as it can, without being asked: in the
 * plain case neither side waits for the other unless it is ahead.
 *
 * At any time: child -> SYNC_ERROR with errno and text, and the child ends. When the parent dies,
 * the child reads end of file and ends.
 */
#ifndef RUNTIME_SYNC_H
#define RUNTIME_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum sync_kind {
    SYNC_ERROR = 1,
    SYNC_USERS_MAPPED,
    SYNC_CGROUP,
    SYNC_NETWORK_MADE,
    SYNC_DEVICES_MOVED,
    SYNC_MOUNTS_DONE,
    SYNC_HOOKS_DONE,
    SYNC_ROOT_DONE,
    SYNC_LIMITS_SET,
    SYNC_RELEASE,
    SYNC_READY,
    SYNC_LISTENER,
    SYNC_LISTENER_TAKEN,
    SYNC_DEVICE, /* of a helper: a mount of a device node */
    SYNC_KINDS,
};

enum {
    SYNC_PLAIN_MAX = 2048,
    SYNC_PAYLOAD_MAX = 40960, /* BPF_MAXINSNS (4096) * 8 bytes and some */
};

struct sync_message {
    uint32_t kind;
    int32_t code; /* SYNC_ERROR: negative errno */
    char payload[SYNC_PAYLOAD_MAX];
};

int sync_pair(int *ret_parent, int *ret_child, struct error *err);

/* Both block. A peer that is gone: -EPIPE. */
int sync_send(int fd, enum sync_kind kind, const void *payload, size_t length, struct error *err);
/* The same by write(2) alone, the one system call that no filter may hand to an agent (filter.c);
 * length at most SYNC_PLAIN_MAX. SIGPIPE when the peer is gone. */
int sync_send_plain(int fd, enum sync_kind kind, const void *payload, size_t length,
                    struct error *err);
int sync_send_error(int fd, const struct error *failure);
int sync_send_fds(int fd, enum sync_kind kind, const int *fds, size_t count, struct error *err);

/* Waits for the given kind. SYNC_ERROR becomes err; end of file is -EPIPE; another kind is -EPROTO.
 * ret_payload (owned by the caller; a NUL that ret_length does not count follows the bytes) and
 * ret_length may be NULL. */
int sync_expect(int fd, enum sync_kind kind, void **ret_payload, size_t *ret_length,
                struct error *err);

/* ret_fds: room for *ret_count, which becomes the number received (owned by the caller). */
int sync_expect_fds(int fd, enum sync_kind kind, int *ret_fds, size_t *ret_count,
                    struct error *err);

/* Waits for end of file (0) or an error message. */
int sync_expect_end(int fd, struct error *err);

/* The child's own message is worth more than "it ended": when the parent failed first (err) on
 * writing to a child that is gone, what the child said is still in the socket. Returns whether err
 * is the child's now. */
bool sync_prefer_childs_error(int fd, struct error *err);

#endif
