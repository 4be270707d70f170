/*
 * An NBD server for one client.
 *
 * Main flow: negotiate, where the client does -> its requests (nbd_requests.c).
 */
#include <errno.h>

#include "nbd_internal.h"
#include "nbd_protocol.h"

enum {
    OPTION_MOST = 8192, /* bytes of an option's data */
    OPTIONS_MOST = 64,
    NAME_MOST = 4096,
    ZEROS_ZEROES = 124, /* what follows an export, for old clients */
};

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
    return nbd_send(nbd, head, sizeof(head), data, size, err);
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
    return nbd_send(nbd, export, nbd->no_zeroes ? 10 : sizeof(export), NULL, 0, err);
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
    int r = nbd_receive(nbd, head, sizeof(head), err);
    if (r != 0)
        return r;
    uint32_t option = nbd_get32(head + 8), size = nbd_get32(head + 12);
    if (nbd_get64(head) != NBD_OPTION_MAGIC)
        return error_set(err, -EPROTO, "what the client sent is no option");
    if (size > OPTION_MOST) {
        r = nbd_skip(nbd, size, err);
        return r == 0 ? answer_option(nbd, option, NBD_ANSWER_TOO_BIG, NULL, 0, err) : r;
    }
    r = nbd_receive(nbd, data, size, err);
    return r == 0 ? answer(nbd, option, data, size, err) : r;
}

static int negotiate(struct nbd *nbd, struct error *err)
{
    uint8_t hello[18], flags[4];
    nbd_put64(hello, NBD_MAGIC);
    nbd_put64(hello + 8, NBD_OPTION_MAGIC);
    nbd_put16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    int r = nbd_send(nbd, hello, sizeof(hello), NULL, 0, err);
    if (r == 0)
        r = nbd_receive(nbd, flags, sizeof(flags), err);
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

int nbd_serve(struct block_device *device, int fd, const struct nbd_door_options *options,
              struct error *err)
{
    struct nbd nbd = {
        .device = device, .fd = fd, .read_only = options->read_only || device->read_only};
    int r = options->negotiates ? negotiate(&nbd, err) : 0;
    return r == 0 ? nbd_take_requests(&nbd, err) : r;
}
