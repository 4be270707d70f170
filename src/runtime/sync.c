#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "sync.h"

static const char *const kind_names[SYNC_KINDS] = {
    [SYNC_ERROR] = "error",
    [SYNC_USERS_MAPPED] = "users mapped",
    [SYNC_CGROUP] = "in its cgroup",
    [SYNC_NETWORK_MADE] = "network made",
    [SYNC_DEVICES_MOVED] = "devices moved",
    [SYNC_MOUNTS_DONE] = "mounts done",
    [SYNC_HOOKS_DONE] = "hooks done",
    [SYNC_ROOT_DONE] = "root done",
    [SYNC_LIMITS_SET] = "limits set",
    [SYNC_RELEASE] = "release",
    [SYNC_READY] = "ready",
    [SYNC_LISTENER] = "listener",
    [SYNC_LISTENER_TAKEN] = "listener taken",
};

enum { HEADER_SIZE = offsetof(struct sync_message, payload) };

int sync_pair(int *ret_parent, int *ret_child, struct error *err)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return error_errno(err, errno, "create a socket pair");
    *ret_parent = fds[0];
    *ret_child = fds[1];
    return 0;
}

static int send_plain(int fd, enum sync_kind kind, int code, const void *payload, size_t length)
{
    uint32_t header[2] = {kind, (uint32_t)code};
    char message[HEADER_SIZE + SYNC_PLAIN_MAX];
    ssize_t n;

    memcpy(message, header, sizeof(header));
    if (length)
        memcpy(message + HEADER_SIZE, payload, length);
    do
        n = write(fd, message, HEADER_SIZE + length);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static int send_message(int fd, enum sync_kind kind, int code, const void *payload, size_t length)
{
    uint32_t header[2] = {kind, (uint32_t)code};
    struct iovec parts[] = {{header, sizeof(header)}, {(void *)payload, length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = length ? 2 : 1};
    ssize_t n;

    _Static_assert(sizeof(header) == HEADER_SIZE, "the header is sent as two words");
    if (length > SYNC_PAYLOAD_MAX)
        return -EMSGSIZE;
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    /* The container's seccomp filter is already in force when its program cannot be executed, and
     * may well know write but not sendmsg. */
    if (n < 0 && errno != EPIPE)
        return send_plain(fd, kind, code, payload,
                          length < SYNC_PLAIN_MAX ? length : SYNC_PLAIN_MAX);
    return n < 0 ? -errno : 0;
}

int sync_send(int fd, enum sync_kind kind, const void *payload, size_t length, struct error *err)
{
    int r = send_message(fd, kind, 0, payload, length);

    return r < 0 ? error_errno(err, -r, "send '%s' to the other process", kind_names[kind]) : 0;
}

int sync_send_plain(int fd, enum sync_kind kind, const void *payload, size_t length,
                    struct error *err)
{
    int r = length > SYNC_PLAIN_MAX ? -EMSGSIZE : send_plain(fd, kind, 0, payload, length);

    return r < 0 ? error_errno(err, -r, "send '%s' to the other process", kind_names[kind]) : 0;
}

int sync_send_fds(int fd, enum sync_kind kind, const int *fds, size_t count, struct error *err)
{
    const uint32_t header[2] = {kind, 0};
    ssize_t r = socket_send(fd, header, sizeof(header), fds, count);

    return r < 0 ? error_errno(err, (int)-r, "send '%s' to the other process", kind_names[kind])
                 : 0;
}

int sync_send_error(int fd, const struct error *failure)
{
    const char *text = error_message(failure);
    size_t length = strlen(text);

    return send_message(fd, SYNC_ERROR, failure->code, text,
                        length > SYNC_PAYLOAD_MAX - 1 ? SYNC_PAYLOAD_MAX - 1 : length);
}

static ssize_t read_errno(int fd, void *data, size_t size)
{
    ssize_t n = read(fd, data, size);

    return n < 0 ? -errno : n;
}

/* Returns the payload's length, -EPIPE at end of file. */
static ssize_t receive(int fd, struct sync_message *message, int *fds, size_t *fds_count,
                       struct error *err)
{
    ssize_t n;

    /* read is known to more filters than recvmsg. A peer that ended without having read all we sent
     * resets the connection; what it has said itself is there at the next try (af_unix.c). */
    do
        n = fds ? socket_receive(fd, message, sizeof(*message) - 1, fds, fds_count)
                : read_errno(fd, message, sizeof(*message) - 1);
    while (n == -EINTR || n == -ECONNRESET);
    if (n == 0)
        return -EPIPE;
    if (n < 0)
        return error_errno(err, (int)-n, "receive from the other process");
    if (n < HEADER_SIZE || message->kind == 0 || message->kind >= SYNC_KINDS)
        return error_set(err, -EPROTO, "a malformed message from the other process");
    n -= HEADER_SIZE;
    message->payload[n] = '\0';
    if (message->kind == SYNC_ERROR)
        return error_set(err, message->code < 0 ? message->code : -EIO, "%s", message->payload);
    return n;
}

static ssize_t expect(int fd, enum sync_kind kind, struct sync_message *message, int *fds,
                      size_t *fds_count, struct error *err)
{
    ssize_t length = receive(fd, message, fds, fds_count, err);

    if (length == -EPIPE)
        return error_set(err, -EPIPE, "the process ended before it was %s", kind_names[kind]);
    if (length >= 0 && message->kind != kind)
        return error_set(err, -EPROTO, "expected '%s' from the other process, got '%s'",
                         kind_names[kind], kind_names[message->kind]);
    return length;
}

int sync_expect_fds(int fd, enum sync_kind kind, int *ret_fds, size_t *ret_count, struct error *err)
{
    _cleanup_free_ struct sync_message *message = xmalloc(sizeof(*message));
    ssize_t r = expect(fd, kind, message, ret_fds, ret_count, err);

    return r < 0 ? (int)r : 0;
}

int sync_expect(int fd, enum sync_kind kind, void **ret_payload, size_t *ret_length,
                struct error *err)
{
    _cleanup_free_ struct sync_message *message = xmalloc(sizeof(*message));
    ssize_t length = expect(fd, kind, message, NULL, NULL, err);

    if (length < 0)
        return (int)length;
    if (ret_payload) {
        char *payload = xmalloc((size_t)length + 1);
        memcpy(payload, message->payload, (size_t)length);
        payload[length] = '\0';
        *ret_payload = payload;
    }
    if (ret_length)
        *ret_length = (size_t)length;
    return 0;
}

int sync_expect_end(int fd, struct error *err)
{
    _cleanup_free_ struct sync_message *message = xmalloc(sizeof(*message));
    ssize_t length = receive(fd, message, NULL, NULL, err);

    if (length == -EPIPE)
        return 0;
    if (length < 0)
        return (int)length;
    return error_set(err, -EPROTO, "unexpected '%s' from the other process",
                     kind_names[message->kind]);
}

bool sync_prefer_childs_error(int fd, struct error *err)
{
    _cleanup_error_ struct error child = ERROR_INIT;

    if ((err->code != -EPIPE && err->code != -ESRCH) || sync_expect_end(fd, &child) == 0 ||
        child.code == -EPROTO)
        return false;
    error_move(err, &child);
    return true;
}
