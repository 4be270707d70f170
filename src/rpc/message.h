/*
 * A line of the protocol taken apart: which members the envelope has, and where params, result and
 * error stand in the text. Strict: unknown, repeated and mistyped members make a message invalid.
 */
#ifndef RPC_MESSAGE_H
#define RPC_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include <base/buffer.h>
#include <base/error.h>

enum { RPC_ID_MAX = 256 }; /* bytes of an id, as JSON */

/* A part of the line, not a copy; text NULL: absent. */
struct rpc_part {
    const char *text;
    size_t length;
};

struct rpc_message {
    bool valid;             /* false: problem says why; id is there if it was found */
    struct rpc_part id;     /* JSON text; absent: a notification */
    struct rpc_part method; /* the name itself; absent: an answer */
    struct rpc_part params;
    struct rpc_part result;
    struct rpc_part error;
    size_t fds;
    char *decoded;    /* owned; the method's name, if it was written with escapes */
    char problem[96]; /* set when not valid */
};

struct rpc_line {
    bool batch;
    struct rpc_message *messages; /* &single, or owned */
    size_t count;
    struct rpc_message single;
};

/* -EBADMSG: not JSON, nested too deep, or too many calls in a batch. text must outlive *ret, and
 * *ret stays where it is. */
int rpc_line_parse(const char *text, size_t length, struct rpc_line *ret, struct error *err);
void rpc_line_finish(struct rpc_line *line);

/* Append an answer as one object: rpc_write_result_begin(), the result, rpc_write_result_end(). */
void rpc_write_result_begin(struct buffer *out, struct rpc_part id);
void rpc_write_result_end(struct buffer *out, size_t fds_count);
/* id absent: null. */
void rpc_write_error(struct buffer *out, struct rpc_part id, int code, const char *message,
                     const char *where, const char *hint);

#endif
