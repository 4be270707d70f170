/*
 * An NBD server for one client.
 *
 * Main flow: negotiate, where the client does -> read a request -> check it -> do it -> answer ->
 * the next one, until the client disconnects. A request that cannot be is answered; bytes that are
 * no request end the connection.
 */
#include <doors/nbd.h>

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <base/alloc.h>

#include "nbd_protocol.h"

enum {
    OPTION_MOST = 8192, /* bytes of an option's data */
    OPTIONS_MOST = 64,
    NAME_MOST = 4096,
    ZEROS_ZEROES = 124, /* what follows an export, for old clients */
    MOVE_ONCE = 1 << 20,
};

struct nbd {
    struct block_device *device;
    int fd;
    bool read_only, no_zeroes, structured;
};

/* The socket. */

static int gone(ssize_t moved, struct error *err)
{
    if (moved == 0)
        return error_set(err, -ECONNRESET, "the client has gone");
    return error_errno(err, errno, "speak with the client");
}

static int receive(const struct nbd *nbd, void *data, size_t size, struct error *err)
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

static int skip(const struct nbd *nbd, uint64_t size, struct error *err)
{
    uint8_t scrap[4096];
    int r = 0;
    while (r == 0 && size > 0) {
        size_t part = size < sizeof(scrap) ? (size_t)size : sizeof(scrap);
        r = receive(nbd, scrap, part, err);
        size -= part;
    }
    return r;
}

static int send_two(const struct nbd *nbd, const void *head, size_t head_size, const void *data,
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

/* Negotiation. */

static uint64_t size_of(const struct nbd *nbd)
{
    return nbd->device->sectors * nbd->device->sector_size;
}

static uint16_t flags_of(const struct nbd *nbd)
{
    unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA;
    if (nbd->read_only)
        flags |= NBD_READ_ONLY;
    else
        flags |= NBD_SEND_WRITE_ZEROES | (nbd->device->discards ? NBD_SEND_TRIM : 0u);
    return (uint16_t)flags;
}

static int answer_option(const struct nbd *nbd, uint32_t option, uint32_t type, const void *data,
                         size_t size, struct error *err)
{
    uint8_t head[20];
    nbd_put64(head, NBD_ANSWER_MAGIC);
    nbd_put32(head + 8, option);
    nbd_put32(head + 12, type);
    nbd_put32(head + 16, (uint32_t)size);
    return send_two(nbd, head, sizeof(head), data, size, err);
}

/* Whether the option's data is a name and a list of what is asked for. */
static bool is_info_request(const uint8_t *data, uint32_t size)
{
    uint32_t name = size >= 6 ? nbd_get32(data) : 0;
    return size >= 6 && name <= NAME_MOST && name <= size - 6 &&
           size - 6 - name == 2u * nbd_get16(data + 4 + name);
}

static int answer_info(const struct nbd *nbd, uint32_t option, struct error *err)
{
    uint8_t export[12], sizes[14];
    nbd_put16(export, NBD_INFO_EXPORT);
    nbd_put64(export + 2, size_of(nbd));
    nbd_put16(export + 10, flags_of(nbd));
    nbd_put16(sizes, NBD_INFO_BLOCK_SIZE);
    nbd_put32(sizes + 2, nbd->device->sector_size);
    nbd_put32(sizes + 6, nbd->device->sector_size > 4096 ? nbd->device->sector_size : 4096);
    nbd_put32(sizes + 10, NBD_DOOR_REQUEST);
    int r = answer_option(nbd, option, NBD_ANSWER_INFO, export, sizeof(export), err);
    if (r == 0)
        r = answer_option(nbd, option, NBD_ANSWER_INFO, sizes, sizeof(sizes), err);
    return r == 0 ? answer_option(nbd, option, NBD_ANSWER_ACK, NULL, 0, err) : r;
}

static int answer_list(const struct nbd *nbd, struct error *err)
{
    uint8_t no_name[4] = {0};
    int r = answer_option(nbd, NBD_OPTION_LIST, NBD_ANSWER_SERVER, no_name, sizeof(no_name), err);
    return r == 0 ? answer_option(nbd, NBD_OPTION_LIST, NBD_ANSWER_ACK, NULL, 0, err) : r;
}

/* The old way, which has no answer for an error. */
static int answer_export(const struct nbd *nbd, struct error *err)
{
    uint8_t export[10 + ZEROS_ZEROES] = {0};
    nbd_put64(export, size_of(nbd));
    nbd_put16(export + 8, flags_of(nbd));
    return send_two(nbd, export, nbd->no_zeroes ? 10 : sizeof(export), NULL, 0, err);
}

/* 1: negotiated, requests follow. */
static int answer(struct nbd *nbd, uint32_t option, const uint8_t *data, uint32_t size,
                  struct error *err)
{
    int r;
    switch (option) {
    case NBD_OPTION_EXPORT_NAME:
        r = answer_export(nbd, err);
        return r == 0 ? 1 : r;
    case NBD_OPTION_ABORT:
        r = answer_option(nbd, option, NBD_ANSWER_ACK, NULL, 0, err);
        return r == 0 ? error_set(err, -ECONNRESET, "the client gave up") : r;
    case NBD_OPTION_LIST:
        return size > 0 ? answer_option(nbd, option, NBD_ANSWER_INVALID, NULL, 0, err)
                        : answer_list(nbd, err);
    case NBD_OPTION_INFO:
    case NBD_OPTION_GO:
        if (!is_info_request(data, size))
            return answer_option(nbd, option, NBD_ANSWER_INVALID, NULL, 0, err);
        r = answer_info(nbd, option, err);
        return r == 0 && option == NBD_OPTION_GO ? 1 : r;
    case NBD_OPTION_STRUCTURED_REPLY:
        nbd->structured = nbd->structured || size == 0;
        return answer_option(nbd, option, size == 0 ? NBD_ANSWER_ACK : NBD_ANSWER_INVALID, NULL, 0,
                             err);
    default:
        return answer_option(nbd, option, NBD_ANSWER_UNSUPPORTED, NULL, 0, err);
    }
}

static int negotiate_one(struct nbd *nbd, struct error *err)
{
    uint8_t head[NBD_OPTION_SIZE], data[OPTION_MOST];
    int r = receive(nbd, head, sizeof(head), err);
    if (r != 0)
        return r;
    uint32_t option = nbd_get32(head + 8), size = nbd_get32(head + 12);
    if (nbd_get64(head) != NBD_OPTION_MAGIC)
        return error_set(err, -EPROTO, "what the client sent is no option");
    if (size > OPTION_MOST) {
        r = skip(nbd, size, err);
        return r == 0 ? answer_option(nbd, option, NBD_ANSWER_TOO_BIG, NULL, 0, err) : r;
    }
    r = receive(nbd, data, size, err);
    return r == 0 ? answer(nbd, option, data, size, err) : r;
}

static int negotiate(struct nbd *nbd, struct error *err)
{
    uint8_t hello[18], flags[4];
    nbd_put64(hello, NBD_MAGIC);
    nbd_put64(hello + 8, NBD_OPTION_MAGIC);
    nbd_put16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    int r = send_two(nbd, hello, sizeof(hello), NULL, 0, err);
    if (r == 0)
        r = receive(nbd, flags, sizeof(flags), err);
    if (r != 0)
        return r;
    uint32_t said = nbd_get32(flags);
    if (said & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES) || !(said & NBD_FIXED_NEWSTYLE))
        return error_set(err, -EPROTO, "the client speaks another dialect: %#x", said);
    nbd->no_zeroes = said & NBD_NO_ZEROES;
    for (int i = 0; i < OPTIONS_MOST; i++) {
        r = negotiate_one(nbd, err);
        if (r != 0)
            return r == 1 ? 0 : r;
    }
    return error_set(err, -EPROTO, "the client only asks for options");
}

/* Requests. */

struct request {
    uint16_t flags, command;
    uint64_t cookie, offset;
    uint32_t length;
};

static uint32_t error_of(int r)
{
    switch (-r) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return EPERM;
    case EINVAL:
        return EINVAL;
    case ENOSPC:
        return ENOSPC;
    case EOPNOTSUPP:
        return EOPNOTSUPP;
    default:
        return EIO;
    }
}

static int reply(const struct nbd *nbd, const struct request *request, int result,
                 struct error *err)
{
    uint8_t head[NBD_REPLY_SIZE];
    nbd_put32(head, NBD_REPLY_MAGIC);
    nbd_put32(head + 4, error_of(result));
    nbd_put64(head + 8, request->cookie);
    return send_two(nbd, head, sizeof(head), NULL, 0, err);
}

static void chunk_head(uint8_t *head, const struct request *request, uint16_t type, uint32_t length)
{
    nbd_put32(head, NBD_CHUNK_MAGIC);
    nbd_put16(head + 4, NBD_DONE);
    nbd_put16(head + 6, type);
    nbd_put64(head + 8, request->cookie);
    nbd_put32(head + 16, length);
}

static int reply_read(const struct nbd *nbd, const struct request *request, int result,
                      const void *data, struct error *err)
{
    uint8_t head[NBD_CHUNK_SIZE + 8];
    if (!nbd->structured && result == 0) {
        nbd_put32(head, NBD_REPLY_MAGIC);
        nbd_put32(head + 4, 0);
        nbd_put64(head + 8, request->cookie);
        return send_two(nbd, head, NBD_REPLY_SIZE, data, request->length, err);
    }
    if (!nbd->structured)
        return reply(nbd, request, result, err);
    if (result != 0) {
        chunk_head(head, request, NBD_CHUNK_ERROR, 6);
        nbd_put32(head + NBD_CHUNK_SIZE, error_of(result));
        nbd_put16(head + NBD_CHUNK_SIZE + 4, 0);
        return send_two(nbd, head, NBD_CHUNK_SIZE + 6, NULL, 0, err);
    }
    chunk_head(head, request, NBD_CHUNK_DATA, 8 + request->length);
    nbd_put64(head + NBD_CHUNK_SIZE, request->offset);
    return send_two(nbd, head, sizeof(head), data, request->length, err);
}

/* 0: whole sectors within the device, as many as may be, and flags that we know. */
static int check(const struct nbd *nbd, const struct request *request)
{
    uint64_t size = size_of(nbd);
    bool changes = request->command == NBD_WRITE || request->command == NBD_TRIM ||
                   request->command == NBD_WRITE_ZEROES;
    unsigned known = NBD_FUA | (request->command == NBD_WRITE_ZEROES ? NBD_NO_HOLE : 0u);
    if (request->flags & ~known)
        return -EINVAL;
    if (changes && nbd->read_only)
        return -EROFS;
    if (request->offset > size || request->length > size - request->offset)
        return request->command == NBD_WRITE ? -ENOSPC : -EINVAL;
    if (request->length == 0 || request->offset % nbd->device->sector_size ||
        request->length % nbd->device->sector_size)
        return -EINVAL;
    return 0;
}

/* In pieces that the device likes. */
static int move(const struct nbd *nbd, const struct request *request, uint8_t *data)
{
    uint32_t sector_size = nbd->device->sector_size;
    uint64_t sector = request->offset / sector_size;
    int r = 0;
    for (uint32_t done = 0, part; r == 0 && done < request->length; done += part) {
        part = request->length - done < MOVE_ONCE ? request->length - done : MOVE_ONCE;
        r = request->command == NBD_READ
                ? block_read(nbd->device, sector, part / sector_size, data + done, NULL)
                : block_write(nbd->device, sector, part / sector_size, data + done, NULL);
        sector += part / sector_size;
    }
    return r;
}

static int write_zeroes(const struct nbd *nbd, const struct request *request)
{
    uint32_t sector_size = nbd->device->sector_size;
    uint8_t *zeros = block_buffer_alloc(nbd->device, MOVE_ONCE);
    uint64_t sector = request->offset / sector_size;
    int r = 0;
    memset(zeros, 0, MOVE_ONCE);
    for (uint32_t done = 0, part; r == 0 && done < request->length; done += part) {
        part = request->length - done < MOVE_ONCE ? request->length - done : MOVE_ONCE;
        r = block_write(nbd->device, sector, part / sector_size, zeros, NULL);
        sector += part / sector_size;
    }
    block_buffer_free(nbd->device, zeros, MOVE_ONCE);
    return r;
}

static int carry_out(const struct nbd *nbd, const struct request *request)
{
    uint32_t sector_size = nbd->device->sector_size;
    switch (request->command) {
    case NBD_FLUSH:
        return block_flush(nbd->device, NULL);
    case NBD_TRIM:
        return block_discard(nbd->device, request->offset / sector_size,
                             request->length / sector_size, NULL);
    case NBD_WRITE_ZEROES:
        return write_zeroes(nbd, request);
    default:
        return -EINVAL;
    }
}

static int flush_if(const struct nbd *nbd, const struct request *request, int r)
{
    return r == 0 && request->flags & NBD_FUA ? block_flush(nbd->device, NULL) : r;
}

static int answer_moving(const struct nbd *nbd, const struct request *request, int result,
                         struct error *err)
{
    if (request->length > NBD_DOOR_REQUEST)
        return error_set(err, -EPROTO, "a request of %u bytes", request->length);
    if (result != 0 && request->command == NBD_READ)
        return reply_read(nbd, request, result, NULL, err);
    uint8_t *data = block_buffer_alloc(nbd->device, request->length ? request->length : 1);
    int r = 0;
    if (request->command == NBD_WRITE)
        r = receive(nbd, data, request->length, err);
    if (r == 0 && result == 0)
        result = move(nbd, request, data);
    if (r == 0 && request->command == NBD_READ)
        r = reply_read(nbd, request, result, data, err);
    else if (r == 0)
        r = reply(nbd, request, flush_if(nbd, request, result), err);
    block_buffer_free(nbd->device, data, request->length ? request->length : 1);
    if (r == 0 && (result == -ENODEV || result == -ENOMEDIUM))
        return error_set(err, -ENODEV, "the device is gone");
    return r;
}

/* 1: the client takes its leave. */
static int serve_one(const struct nbd *nbd, struct error *err)
{
    uint8_t raw[NBD_REQUEST_SIZE];
    int r = receive(nbd, raw, sizeof(raw), err);
    if (r != 0)
        return r;
    if (nbd_get32(raw) != NBD_REQUEST_MAGIC)
        return error_set(err, -EPROTO, "what the client sent is no request");
    struct request request = {
        .flags = nbd_get16(raw + 4),
        .command = nbd_get16(raw + 6),
        .cookie = nbd_get64(raw + 8),
        .offset = nbd_get64(raw + 16),
        .length = nbd_get32(raw + 24),
    };
    if (request.command == NBD_DISCONNECT)
        return 1;
    int result = request.command == NBD_FLUSH ? 0 : check(nbd, &request);
    if (request.command == NBD_READ || request.command == NBD_WRITE)
        return answer_moving(nbd, &request, result, err);
    if (result == 0)
        result = flush_if(nbd, &request, carry_out(nbd, &request));
    return reply(nbd, &request, result, err);
}

int nbd_serve(struct block_device *device, int fd, const struct nbd_door_options *options,
              struct error *err)
{
    struct nbd nbd = {
        .device = device, .fd = fd, .read_only = options->read_only || device->read_only};
    int r = options->negotiates ? negotiate(&nbd, err) : 0;
    while (r == 0)
        r = serve_one(&nbd, err);
    return r == 1 ? 0 : r;
}
