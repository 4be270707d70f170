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
    bool valid; /* false: problem says why; id is there if it was found */
    char problem[96];
    char id[RPC_ID_MAX]; /* JSON text; "": absent (a notification) */
    char *method;        /* owned; NULL: absent (an answer) */
    struct rpc_part params;
    struct rpc_part result;
    struct rpc_part error;
    size_t fds;
};

struct rpc_line {
    bool batch;
    struct rpc_message *messages; /* owned */
    size_t count;
};

/* -EBADMSG: not JSON, nested too deep, or too many calls in a batch. text must outlive *ret. */
int rpc_line_parse(const char *text, size_t length, struct rpc_line *ret, struct error *err);
void rpc_line_finish(struct rpc_line *line);

/* Append an answer as one object. id "": null. */
void rpc_write_result(struct buffer *out, const char *id, const char *result, size_t fds_count);
void rpc_write_error(struct buffer *out, const char *id, int code, const char *message,
                     const char *where, const char *hint);

#endif
