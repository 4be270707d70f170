#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <base/alloc.h>
#include <base/socket.h>

/* What fits behind "/proc/self/fd/" and a number in sun_path. */
enum { NAME_LENGTH_MAX = 80 };

int socket_unix_address(const char *path, struct sockaddr_un *address, int *dir_fd,
                        struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *dir_fd = -1;
    if (strlen(path) < sizeof(address->sun_path)) {
        memcpy(address->sun_path, path, strlen(path) + 1);
        return 0;
    }
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(slash) > NAME_LENGTH_MAX)
        return error_set(err, -ENAMETOOLONG, "socket name in '%s' is too long", path);
    _cleanup_free_ char *directory = xstrndup(path, (size_t)(slash - path));
    *dir_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dir_fd < 0)
        return error_errno(err, errno, "open %s", directory);
    snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d%s", *dir_fd, slash);
    return 0;
}

/* What umask(2) has taken from the mode. Never through a link: the folder can be somebody's. */
static int complete_mode(const char *path, mode_t mode)
{
    _cleanup_close_ int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    char name[32];

    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;
    if ((status.st_mode & 07777) == mode)
        return 0;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    return chmod(name, mode) < 0 ? -errno : 0;
}

int socket_listen_unix(const char *path, int type, mode_t mode, struct error *err)
{
    _cleanup_close_ int fd = -1, dir_fd = -1;
    struct sockaddr_un address;
    int r;

    r = socket_unix_address(path, &address, &dir_fd, err);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    /* fchmod before bind: the file is born with this mode (unix(7), inode of the socket). */
    if (fchmod(fd, mode) < 0)
        return error_errno(err, errno, "set mode of socket %s", path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_errno(err, errno, "bind %s", path);
    r = complete_mode(address.sun_path, mode);
    if (r < 0)
        return error_errno(err, -r, "set the mode of %s", path);
    if (listen(fd, SOMAXCONN) < 0)
        return error_errno(err, errno, "listen on %s", path);
    return steal_fd(&fd);
}

int socket_connect_unix(const char *path, int type, struct error *err)
{
    _cleanup_close_ int fd = -1, dir_fd = -1;
    struct sockaddr_un address;
    int r;

    r = socket_unix_address(path, &address, &dir_fd, err);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_errno(err, errno, "connect to %s", path);
    return steal_fd(&fd);
}

int socket_accept(int listener, int flags, int *spare_fd)
{
    int fd = accept4(listener, NULL, NULL, flags);

    if (fd >= 0 || (errno != EMFILE && errno != ENFILE))
        return fd;
    close_fd(steal_fd(spare_fd));
    close_fd(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    *spare_fd = fcntl(listener, F_DUPFD_CLOEXEC, 0);
    return -1;
}

int socket_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static ssize_t send_message(int fd, const void *data, size_t length, const int *fds,
                            size_t fds_count, int flags)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(SOCKET_FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec vector = {.iov_base = (void *)data, .iov_len = length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    ssize_t sent;

    if (fds_count > SOCKET_FDS_MAX)
        return -E2BIG;
    if (fds_count) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(fds_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fds_count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, fds_count * sizeof(int));
    }
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | flags);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

ssize_t socket_send(int fd, const void *data, size_t length, const int *fds, size_t fds_count)
{
    return send_message(fd, data, length, fds, fds_count, 0);
}

ssize_t socket_send_now(int fd, const void *data, size_t length, const int *fds, size_t fds_count)
{
    return send_message(fd, data, length, fds, fds_count, MSG_DONTWAIT);
}

/* Moves the descriptors of one control message into fds; those beyond limit are closed. */
static size_t take_fds(const struct cmsghdr *control, int *fds, size_t have, size_t limit)
{
    size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    for (size_t i = 0; i < count; i++, have++) {
        int fd;
        memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(fd));
        if (have < limit)
            fds[have] = fd;
        else
            close(fd);
    }
    return have;
}

/* There was room for more of them in the message: the kernel could not open them here
 * (scm_detach_fds of net/core/scm.c stops at the first that it cannot install). */
static bool is_shortage(const struct msghdr *message, size_t have, size_t limit)
{
    return (message->msg_flags & (MSG_CTRUNC | MSG_TRUNC)) == MSG_CTRUNC && have <= limit &&
           have < SOCKET_FDS_MAX;
}

static ssize_t receive_message(int fd, void *data, size_t length, int *fds, size_t *fds_count,
                               int flags)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(SOCKET_FDS_MAX * sizeof(int))];
    } control;
    struct iovec vector = {.iov_base = data, .iov_len = length};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    size_t limit = *fds_count, have = 0;
    ssize_t received;

    *fds_count = 0;
    received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags);
    if (received < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            have = take_fds(c, fds, have, limit);
    }
    if (have > limit || (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC))) {
        for (size_t i = 0; i < have && i < limit; i++)
            close(fds[i]);
        return is_shortage(&message, have, limit) ? -EMFILE : -EMSGSIZE;
    }
    *fds_count = have;
    return received;
}

ssize_t socket_receive(int fd, void *data, size_t length, int *fds, size_t *fds_count)
{
    size_t room = *fds_count;
    ssize_t n;

    do {
        *fds_count = room;
        n = receive_message(fd, data, length, fds, fds_count, 0);
    } while (n == -EINTR);
    return n;
}

/* A signal does not interrupt what does not wait (signal(7)). */
ssize_t socket_receive_now(int fd, void *data, size_t length, int *fds, size_t *fds_count)
{
    return receive_message(fd, data, length, fds, fds_count, MSG_DONTWAIT);
}

ssize_t socket_receive_once(int fd, void *data, size_t length, int *fds, size_t *fds_count)
{
    return receive_message(fd, data, length, fds, fds_count, 0);
}
