/*
 * The two encodings of the protocol's messages, behind one face: where a message ends, which
 * members its envelope has and where params, result and error stand in the data, and the envelopes
 * of what is sent. Strict: unknown, repeated and mistyped members make a message invalid.
 *
 * JSON: a message, or a batch, is a line. CBOR: four bytes of length, big-endian, then a map, or an
 * array of them; the member jsonrpc may be left out.
 */
#ifndef RPC_CODEC_H
#define RPC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>
#include <base/error.h>

struct json_type;

enum { RPC_ID_MAX = 256 }; /* bytes of an id, as it is encoded */

#define RPC_NO_TIMEOUT UINT64_MAX
#define RPC_TIMEOUT_MAX (UINT64_C(1) << 42) /* ms: more is no time-out */

/* A part of the data, not a copy; text NULL: absent. */
struct rpc_part {
    const char *text;
    size_t length;
};

struct rpc_message {
    bool valid;             /* false: problem says why; id is there if it was found */
    bool progress;          /* notifications of it are wanted */
    bool positional;        /* params is an array */
    struct rpc_part id;     /* encoded; absent: a notification */
    struct rpc_part method; /* the name itself; absent: an answer */
    struct rpc_part params; /* encoded, as result and error */
    struct rpc_part result;
    struct rpc_part error;
    size_t fds;
    uint64_t timeout_ms; /* RPC_NO_TIMEOUT: absent */
    char *decoded;       /* owned; the method's name, if it was written with escapes */
    char problem[96];    /* set when not valid */
};

/* What came in one piece. */
struct rpc_frame {
    bool batch;
    struct rpc_message *messages; /* &single, or owned */
    size_t count;
    struct rpc_message single;
};

/* Where the next frame is in the data: text and length of it, and the bytes up to the one after. */
struct rpc_span {
    const char *text;
    size_t length; /* 0: nothing between two frames */
    size_t consumed;
};

struct rpc_bounds {
    size_t depth; /* levels of a message */
    size_t batch; /* messages */
};

/* The head of a request that is sent. */
struct rpc_head {
    int64_t number; /* 0: a notification */
    const char *method;
    uint64_t timeout_ms; /* RPC_NO_TIMEOUT: none */
    bool progress;
    bool params; /* follow */
    size_t fds;
};

struct rpc_codec {
    const char *name; /* of rpc.hello */

    /* Whether a frame is there: 1, or 0 and *searched bytes need not be looked at again; -EMSGSIZE:
     * one of more than max bytes begins, or is there (then *ret is set, too, else consumed is 0).
     */
    int (*split)(const char *data, size_t length, size_t max, size_t *searched,
                 struct rpc_span *ret);
    /* -EBADMSG: not of this encoding; -EFBIG: beyond the bounds. text must outlive *ret, and *ret
     * stays where it is. */
    int (*parse)(const char *text, size_t length, const struct rpc_bounds *bounds,
                 struct rpc_frame *ret, struct error *err);

    /* Values, as json_parse() and json_write() and their like. */
    int (*read)(const struct json_type *type, const char *text, size_t length, void **ret,
                struct error *err);
    int (*read_positional)(const struct json_type *type, const char *text, size_t length,
                           void **ret, struct error *err);
    void (*write)(const struct json_type *type, const void *value, struct buffer *out);
    void (*write_json)(const char *text, size_t length, struct buffer *out);

    /* Around a frame; what begin returns is for end. */
    size_t (*begin)(struct buffer *out);
    void (*end)(struct buffer *out, size_t mark);

    /* Envelopes, which hold what is written between begin and end. */
    void (*request_begin)(struct buffer *out, const struct rpc_head *head);
    void (*request_end)(struct buffer *out, const struct rpc_head *head);
    void (*result_begin)(struct buffer *out, struct rpc_part id, size_t fds);
    void (*result_end)(struct buffer *out, size_t fds);
    /* id absent: null. error: of rpc_fault_type. */
    void (*error)(struct buffer *out, struct rpc_part id, const void *fault);

    /* Between the answers of a batch. */
    void (*batch_next)(struct buffer *out);
    void (*batch_end)(struct buffer *out);

    /* The JSON text that stands for an id, or any other part. */
    void (*to_json)(struct rpc_part id, struct buffer *out);
    /* The number, or -1 when the id is none of ours. */
    int64_t (*id_number)(struct rpc_part id);
};

extern const struct rpc_codec rpc_codec_json;
extern const struct rpc_codec rpc_codec_cbor;

/* NULL: there is none of that name. */
const struct rpc_codec *rpc_codec_find(const char *name);

void rpc_frame_finish(struct rpc_frame *frame);

/* An error answer; message may be NULL, where and hint too. */
void rpc_write_error(const struct rpc_codec *codec, struct buffer *out, struct rpc_part id,
                     int code, const char *message, const char *where, const char *hint);

/* ---- what the codecs share ---- */

enum rpc_member {
    RPC_MEMBER_JSONRPC,
    RPC_MEMBER_ID,
    RPC_MEMBER_METHOD,
    RPC_MEMBER_PARAMS,
    RPC_MEMBER_RESULT,
    RPC_MEMBER_ERROR,
    RPC_MEMBER_FDS,
    RPC_MEMBER_TIMEOUT,
    RPC_MEMBER_PROGRESS,
    RPC_MEMBER_NONE,
};

/* The first problem is the one to tell. */
void rpc_message_invalid(struct rpc_message *message, const char *format, ...) _printf_(2, 3);
/* Which member comes; NONE: unknown, or for the second time, which makes the message invalid. */
enum rpc_member rpc_message_enter(struct rpc_message *message, const char *name, size_t length,
                                  unsigned *seen);
void rpc_message_end(struct rpc_message *message, unsigned seen);
/* The next message of the frame, empty and valid; NULL: beyond the bounds. */
struct rpc_message *rpc_frame_add(struct rpc_frame *frame, const struct rpc_bounds *bounds);

#endif
