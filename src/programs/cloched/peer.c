#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "peer.h"

enum { CGROUPS_BYTES_MAX = 64 * 1024 };

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* The process that connected, whatever has become of its number. Before Linux 6.5 the number is all
 * there is: one that ended and whose number was given away between connect() and here would be
 * taken for another. */
static int open_process(int fd, pid_t pid)
{
    socklen_t length = sizeof(int);
    int pidfd = -1;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0)
        return pidfd;
    if (errno != ENOPROTOOPT)
        return -errno; /* it has ended */
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return pidfd < 0 ? -errno : pidfd;
}

/* A pidfd is readable when the process has ended. */
static bool still_lives(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};

    return poll(&ended, 1, 0) == 0;
}

bool peer_container(const char *cgroups, const char *cgroup_parent,
                    char ret[PEER_CONTAINER_DIGITS + 1])
{
    _cleanup_free_ char *prefix = xasprintf("/%s/", cgroup_parent);

    /* HIERARCHY:CONTROLLERS:/PATH lines. A container can go deeper than its own cgroup, not out. */
    for (const char *line = cgroups; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t length = strcspn(line, "\n");
        const char *path = memchr(line, '/', length);
        if (!path || strncmp(path, prefix, strlen(prefix)) != 0)
            continue;
        path += strlen(prefix);
        if (strspn(path, "0123456789abcdef") != PEER_CONTAINER_DIGITS)
            continue;
        memcpy(ret, path, PEER_CONTAINER_DIGITS);
        ret[PEER_CONTAINER_DIGITS] = '\0';
        return true;
    }
    return false;
}

static void look_for_container(struct peer *peer, int fd, const char *cgroup_parent)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/cgroup", (int)peer->pid);
    _cleanup_close_ int pidfd = open_process(fd, peer->pid);
    _cleanup_free_ char *text = NULL;

    peer->place = PEER_UNKNOWN;
    if (pidfd < 0 || file_read_at(AT_FDCWD, path, CGROUPS_BYTES_MAX, &text, NULL, NULL) < 0)
        return;
    bool inside = peer_container(text, cgroup_parent, peer->container);
    /* It lives still: the file that was read is its own. */
    if (still_lives(pidfd))
        peer->place = inside ? PEER_CONTAINER : PEER_OUTSIDE;
    else
        peer->container[0] = '\0';
}

static void look_for_groups(struct peer *peer, int fd)
{
    socklen_t length = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) == 0 || errno != ERANGE ||
        length > PEER_GROUPS_MAX * sizeof(gid_t))
        return;
    peer->groups = xmalloc(length);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &length) == 0)
        peer->groups_count = length / sizeof(gid_t);
}

struct peer *peer_look(int fd, const char *cgroup_parent)
{
    struct peer *peer = xnew(struct peer);
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    peer->uid = (uid_t)-1;
    peer->gid = (gid_t)-1;
    peer->place = PEER_UNKNOWN;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return peer;
    peer->uid = credentials.uid;
    peer->gid = credentials.gid;
    peer->pid = credentials.pid;
    look_for_groups(peer, fd);
    if (peer->pid > 0)
        look_for_container(peer, fd, cgroup_parent);
    return peer;
}

void peer_free(struct peer *peer)
{
    if (!peer)
        return;
    free(peer->groups);
    free(peer);
}
