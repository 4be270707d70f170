#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "peer.h"

enum {
    CGROUPS_BYTES_MAX = 64 * 1024,
    STAT_BYTES_MAX = 4096,
    STAT_FLAGS = 9,     /* which field: proc_pid_stat(5) */
    FLAG_EXITING = 0x4, /* PF_EXITING of the kernel */
};

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

/* Fields 4 (root) of lines whose type, behind " - ", is cgroup or cgroup2. */
static void add_root(const char *line, size_t length, const char *cgroup_parent, char ***prefixes)
{
    _cleanup_free_ char *text = xstrndup(line, length);
    char *type = strstr(text, " - cgroup"), *root = text;

    for (int field = 1; root && field < 4; field++) {
        root = strchr(root, ' ');
        root += root != NULL;
    }
    if (!type || !root || root > type)
        return;
    root[strcspn(root, " ")] = '\0';
    /* "/" is there already; "/.." is outside of what this namespace shows. */
    if (root[0] != '/' || !root[1] || text_starts_with(root, "/.."))
        return;
    _cleanup_free_ char *prefix = xasprintf("%s/%s/", root, cgroup_parent);
    if (!strv_contains(*prefixes, prefix))
        strv_append(prefixes, prefix);
}

char **peer_prefixes(const char *mountinfo, const char *cgroup_parent)
{
    char **prefixes = NULL;

    strv_take(&prefixes, xasprintf("/%s/", cgroup_parent));
    for (const char *line = mountinfo; *line; line += *line == '\n') {
        size_t length = strcspn(line, "\n");
        add_root(line, length, cgroup_parent, &prefixes);
        line += length;
    }
    return prefixes;
}

static const char *behind_prefix(const char *path, size_t length, char *const *prefixes)
{
    for (; *prefixes; prefixes++) {
        size_t size = strlen(*prefixes);
        if (size <= length && memcmp(path, *prefixes, size) == 0)
            return path + size;
    }
    return NULL;
}

bool peer_container(const char *cgroups, char *const *prefixes, char ret[PEER_CONTAINER_DIGITS + 1])
{
    /* HIERARCHY:CONTROLLERS:/PATH lines. A container can go deeper than its own cgroup, not out. */
    for (const char *line = cgroups; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t length = strcspn(line, "\n");
        const char *path = memchr(line, '/', length);
        const char *id =
            path ? behind_prefix(path, (size_t)(line + length - path), prefixes) : NULL;
        if (!id || strspn(id, "0123456789abcdef") != PEER_CONTAINER_DIGITS)
            continue;
        memcpy(ret, id, PEER_CONTAINER_DIGITS);
        ret[PEER_CONTAINER_DIGITS] = '\0';
        return true;
    }
    return false;
}

bool peer_is_ending(const char *stat)
{
    const char *at = strrchr(stat, ')'); /* the name can have anything in it */
    unsigned long flags;

    for (int field = 2; at && field < STAT_FLAGS; field++) {
        at = strchr(at, ' ');
        at += at != NULL;
    }
    return !at || sscanf(at, "%lu", &flags) != 1 || flags & FLAG_EXITING;
}

/* Whether its users and processes are those that we have. */
static bool shares_namespaces(pid_t pid)
{
    static const char *const names[] = {"user", "pid"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_free_ char *own = xasprintf("/proc/self/ns/%s", names[i]);
        _cleanup_free_ char *its = xasprintf("/proc/%d/ns/%s", (int)pid, names[i]);
        struct stat a, b;
        if (stat(own, &a) < 0 || stat(its, &b) < 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
            return false;
    }
    return true;
}

static int read_small(pid_t pid, const char *name, size_t most, char **ret)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/%s", (int)pid, name);

    return file_read_at(AT_FDCWD, path, most, ret, NULL, NULL);
}

static bool is_shortage(int r)
{
    return r == -EMFILE || r == -ENFILE || r == -ENOMEM;
}

static void look_for_container(struct peer *peer, int fd, char *const *prefixes)
{
    _cleanup_close_ int pidfd = open_process(fd, peer->pid);
    _cleanup_free_ char *cgroups = NULL, *stat = NULL;

    int r = pidfd < 0 ? pidfd : read_small(peer->pid, "cgroup", CGROUPS_BYTES_MAX, &cgroups);
    /* Afterwards: if it has not begun to end now, it had not then. */
    if (r >= 0)
        r = read_small(peer->pid, "stat", STAT_BYTES_MAX, &stat);
    peer->later = is_shortage(r);
    if (r < 0 || peer_is_ending(stat))
        return;
    bool inside = peer_container(cgroups, prefixes, peer->container);
    bool ours = inside || shares_namespaces(peer->pid);
    /* It lives still: the files that were read are its own. */
    if (still_lives(pidfd))
        peer->place = inside ? PEER_CONTAINER : ours ? PEER_OUTSIDE : PEER_ELSEWHERE;
    else
        peer->container[0] = '\0';
}

gid_t *peer_groups(int fd, size_t *ret_count)
{
    socklen_t length = 0;

    *ret_count = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &length) == 0 || errno != ERANGE ||
        length > PEER_GROUPS_MAX * sizeof(gid_t))
        return NULL;
    gid_t *groups = xmalloc(length);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) == 0)
        *ret_count = length / sizeof(gid_t);
    return groups;
}

struct peer *peer_look(int fd, char *const *prefixes)
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
    if (peer->pid > 0)
        look_for_container(peer, fd, prefixes);
    return peer;
}

void peer_free(struct peer *peer)
{
    free(peer);
}
