/* Numbers of the NBD protocol (its specification: proto.md of the project NetworkBlockDevice), in
 * the byte order of networks. */
#ifndef DOORS_NBD_PROTOCOL_H
#define DOORS_NBD_PROTOCOL_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_MAGIC UINT64_C(0x4E42444D41474943)
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454F5054)
#define NBD_ANSWER_MAGIC UINT64_C(0x0003E889045565A9)
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_REPLY_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC 0x668E33EFu

enum {
    NBD_FIXED_NEWSTYLE = 1 << 0, /* of both sides' first words */
    NBD_NO_ZEROES = 1 << 1,
};

enum nbd_option {
    NBD_OPTION_EXPORT_NAME = 1,
    NBD_OPTION_ABORT = 2,
    NBD_OPTION_LIST = 3,
    NBD_OPTION_INFO = 6,
    NBD_OPTION_GO = 7,
    NBD_OPTION_STRUCTURED_REPLY = 8,
};

#define NBD_ANSWER_ACK 1u
#define NBD_ANSWER_SERVER 2u
#define NBD_ANSWER_INFO 3u
#define NBD_ANSWER_UNSUPPORTED 0x80000001u
#define NBD_ANSWER_INVALID 0x80000003u
#define NBD_ANSWER_TOO_BIG 0x80000009u

enum { NBD_INFO_EXPORT = 0, NBD_INFO_BLOCK_SIZE = 3 };

enum { /* what an export can do */
       NBD_HAS_FLAGS = 1 << 0,
       NBD_READ_ONLY = 1 << 1,
       NBD_SEND_FLUSH = 1 << 2,
       NBD_SEND_FUA = 1 << 3,
       NBD_SEND_TRIM = 1 << 5,
       NBD_SEND_WRITE_ZEROES = 1 << 6,
};

enum nbd_command {
    NBD_READ = 0,
    NBD_WRITE = 1,
    NBD_DISCONNECT = 2,
    NBD_FLUSH = 3,
    NBD_TRIM = 4,
    NBD_WRITE_ZEROES = 6,
};
enum { NBD_FUA = 1 << 0, NBD_NO_HOLE = 1 << 1 };

enum { NBD_DONE = 1 << 0 }; /* of a chunk: the last one */
enum { NBD_CHUNK_DATA = 1, NBD_CHUNK_ERROR = 0x8001 };

enum { NBD_REQUEST_SIZE = 28, NBD_REPLY_SIZE = 16, NBD_CHUNK_SIZE = 20, NBD_OPTION_SIZE = 16 };

static inline uint16_t nbd_get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return be16toh(value);
}

static inline uint32_t nbd_get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

static inline uint64_t nbd_get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return be64toh(value);
}

static inline void nbd_put16(uint8_t *at, uint16_t value)
{
    value = htobe16(value);
    memcpy(at, &value, sizeof(value));
}

static inline void nbd_put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof(value));
}

static inline void nbd_put64(uint8_t *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof(value));
}

#endif
