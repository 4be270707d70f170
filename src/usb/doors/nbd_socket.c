/* The bytes of an NBD client. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "nbd_internal.h"

static int gone(ssize_t moved, struct error *err)
{
    if (moved == 0)
        return error_set(err, -ECONNRESET, "the client has gone");
    return error_errno(err, errno, "speak with the client");
}

int nbd_receive(const struct nbd *nbd, void *data, size_t size, struct error *err)
{
    uint8_t *at = data;
    while (size > 0) {
        ssize_t moved = recv(nbd->fd, at, size, MSG_WAITALL);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return gone(moved, err);
        at += moved;
        size -= (size_t)moved;
    }
    return 0;
}

int nbd_skip(const struct nbd *nbd, uint64_t size, struct error *err)
{
    uint8_t scrap[4096];
    int r = 0;
    while (r == 0 && size > 0) {
        size_t part = size < sizeof(scrap) ? (size_t)size : sizeof(scrap);
        r = nbd_receive(nbd, scrap, part, err);
        size -= part;
    }
    return r;
}

int nbd_send(const struct nbd *nbd, const void *head, size_t head_size, const void *data,
             size_t size, struct error *err)
{
    struct iovec parts[] = {{(void *)head, head_size}, {(void *)data, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t moved = sendmsg(nbd->fd, &message, MSG_NOSIGNAL);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return gone(-1, err);
        for (int i = 0; i < 2 && moved > 0; i++) {
            size_t part = (size_t)moved < parts[i].iov_len ? (size_t)moved : parts[i].iov_len;
            if (part == 0)
                continue;
            parts[i].iov_base = (uint8_t *)parts[i].iov_base + part;
            parts[i].iov_len -= part;
            moved -= (ssize_t)part;
        }
    }
    return 0;
}
