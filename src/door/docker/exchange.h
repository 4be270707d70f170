/*
 * A request and its answer, as handlers see them; and the connections beneath.
 *
 *     connection.c   bytes: requests in, answers out, bodies and streams through
 *     request.c      requests out of those bytes
 *     exchange.c     answers: documents, errors, chunks, streams
 *     call.c         calls of the management API, and what their errors are in HTTP
 *     routes.c       which handler is for which request
 *
 * A handler is called once per request, with the whole body in exchange->body, or with
 * ROUTE_STREAMS before it, and answers now or later. Nothing here frees an exchange while a handler
 * of it runs. When its client goes, `release` is called, and no callback any more.
 */
#ifndef DOOR_DOCKER_EXCHANGE_H
#define DOOR_DOCKER_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>
#include <base/detach_keys.h>
#include <base/error.h>
#include <door/docker.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <schema/json.h>

#include "body.h"
#include "frames.h"
#include "head.h"
#include "listing.h"
#include "target.h"

enum {
    DOCKER_BODY_MAX = 4 * 1024 * 1024, /* bytes of a document that a client sends */
    DOCKER_PAUSE = 128 * 1024,         /* bytes that wait in one direction; no more are read then */
    DOCKER_BUDGET = 64 * 1024 * 1024,  /* bytes that all clients together have here */
    DOCKER_HEAD_SECONDS = 30,          /* for a head to become whole */
    DOCKER_BODY_SECONDS = 120,         /* without another byte of a body */
    DOCKER_IDLE_SECONDS = 600,         /* between two requests */
    DOCKER_CLOSE_SECONDS = 10,         /* for the client's half of the end, after its last byte */
    ROUTE_WORDS_MAX = 2,
    LOOKS_MAX = 200,     /* at whether a head is read */
    LOOK_NS = 200 * 1000 /* between them */
};

struct connection;
struct exchange;

/* ---- routes (routes.c) ---- */

enum {
    ROUTE_STREAMS = 1 << 0, /* the handler takes the body as a stream, with exchange_take_body() */
    ROUTE_LONG = 1 << 1,    /* ends with its client: who says no more wants no more */
};

struct route {
    const char *method;  /* NULL: any */
    const char *pattern; /* "*" is a word without slashes, "**" one with */
    void (*handler)(struct exchange *exchange);
    unsigned flags;
};

/* The one for this request, whose words (owned) go to ret_words; NULL: there is none. */
const struct route *route_find(const char *method, const char *path,
                               char *ret_words[ROUTE_WORDS_MAX]);

/* ---- exchanges ---- */

struct call;

/* A stream in a WebSocket's frames. Docker's own, which the stream has without a terminal, are
 * taken off: both streams are one to such a client. */
struct websocket {
    struct frames frames;
    bool multiplexed;
    unsigned char head[8];
    size_t head_length;
    uint32_t left; /* bytes of the frame of docker's */
};

struct exchange {
    struct connection *connection;
    struct head head;
    struct target target;
    const struct route *route;
    char *words[ROUTE_WORDS_MAX]; /* owned; what stands for the stars of the pattern */
    struct buffer body;
    struct call *calls; /* in flight */
    bool begun;         /* the head of the answer is on its way */
    bool chunked;       /* and chunks follow */
    bool ended;         /* the answer is said to the end */
    void *state;        /* the handler's; */
    void (*release)(void *state);
    /* What the daemon tells without being asked. */
    void (*notified)(struct exchange *exchange, const char *method, size_t method_length,
                     const char *params, size_t length);
    /* Of exchange_pump(): what came, and that no more comes. */
    void (*pumped)(struct exchange *exchange, const char *data, size_t length);
    void (*dry)(struct exchange *exchange);
    /* Of a hijacked stream: what comes out of it is put into frames, as standard output; these keys
     * part its client from it, and have done so. */
    bool framed;
    struct websocket *websocket; /* owned; NULL: the stream is as it is */
    struct detach_keys detach_keys;
    bool detached;
    struct rpc_timer timer; /* the handler's */
};

/* Whether the client's version is at least 1.N. */
bool exchange_since(const struct exchange *exchange, unsigned minor);

/* Sets the handler's state, which is freed by release. */
void exchange_set_state(struct exchange *exchange, void *state, void (*release)(void *state));

/* The body as a document of this type. false: it was answered that it makes no sense, or is not
 * said to be JSON. An empty body
 * is an empty object. */
bool exchange_document(struct exchange *exchange, const struct json_type *type, void **ret);

/* ---- answers (exchange.c) ---- */

/* All of them end the exchange but answer_begin() to answer_hijack(). */
void answer_empty(struct exchange *exchange, unsigned status);
/* Takes what is in json. */
void answer_json(struct exchange *exchange, unsigned status, struct buffer *json);
void answer_text(struct exchange *exchange, unsigned status, const char *type, const char *text);
/* {"message": ...}; while an answer is being given: its end, for streams of JSON with a last line
 * that says so. */
void answer_fail(struct exchange *exchange, unsigned status, const char *format, ...)
    _printf_(3, 4);
void answer_error(struct exchange *exchange, unsigned status, const struct error *err);

/* A header of the answer that is to come. */
void answer_header(struct exchange *exchange, const char *name, const char *value);
/* The head, and flushes it; a body in pieces follows. */
void answer_begin(struct exchange *exchange, unsigned status, const char *type);
void answer_data(struct exchange *exchange, const void *data, size_t length);
/* One JSON document and a line's end, beginning the answer if need be. */
void answer_line(struct exchange *exchange, const struct buffer *json);
void answer_end(struct exchange *exchange);
/* What was begun cannot be ended: the connection is broken off, so that nobody takes it for whole.
 */
void answer_break(struct exchange *exchange);

/* Bytes from fd (taken over, made non-blocking) until its end go to pumped() (NULL: they are the
 * answer's), then dry() (NULL: that is the answer's end). */
void exchange_pump(struct exchange *exchange, int fd);
/* The connection becomes the stream: bytes both ways between client and fd (taken over). */
void answer_hijack(struct exchange *exchange, int fd, bool tty);
/* The head of such a stream, whose bytes come by answer_data(). */
void answer_raw(struct exchange *exchange, bool tty);
/* The stream that follows is to be in a WebSocket, if the request is one's. false: it was answered
 * that it is none. */
bool exchange_want_websocket(struct exchange *exchange);
/* Bytes of the stream for its client, in the frames that it has. */
void relay_output(struct exchange *exchange, const char *data, size_t length);
/* Bytes of the client for the stream. */
void relay_input(struct exchange *exchange);
/* The end of such a stream, or of its WebSocket; for who has dry() set. */
void answer_hang_up(struct exchange *exchange);
/* The head of a frame of that many bytes of standard output. */
void answer_frame(struct exchange *exchange, size_t length);
/* A stream that has nothing but this line, on standard output, and ends. */
void answer_last_words(struct exchange *exchange, const char *text, bool tty);
/* The end of a pipe that the body of the request comes out of. -errno. */
int exchange_take_body(struct exchange *exchange, struct error *err);
/* The same of a socket, whose own bytes go to pumped() and dry(). */
int exchange_converse(struct exchange *exchange, struct error *err);
/* What has come of those by now; true: that was all. */
bool exchange_read_rest(struct exchange *exchange);
/* Nobody wants the body. */
void exchange_drop_body(struct exchange *exchange);

/* ---- calls (call.c) ---- */

/* outcome->result is of the method's result type, and freed afterwards. */
typedef void (*call_done)(struct exchange *exchange, const struct rpc_outcome *outcome);

struct call_options {
    const int *fds; /* stay the caller's */
    size_t fds_count;
    bool errors; /* done() is told of errors, too; else they are answered, and done is not called */
    bool raw;    /* the result is outcome->text, as it came */
    void (*progress)(struct exchange *exchange, const struct rpc_progress *progress);
};

/* A method of the management API, by name. options may be NULL. */
void call(struct exchange *exchange, const char *method, const void *params, call_done done,
          const struct call_options *options);
/* What an outcome with an error is in HTTP. */
unsigned call_status(const struct rpc_outcome *outcome);
void call_answer_error(struct exchange *exchange, const struct rpc_outcome *outcome);
/* Nothing of it is heard any more. */
void calls_cancel(struct exchange *exchange);

/* call_done for what is answered with 204. */
void call_done_empty(struct exchange *exchange, const struct rpc_outcome *outcome);
/* And with 200 without a body. */
void call_done_nothing(struct exchange *exchange, const struct rpc_outcome *outcome);

/* Nothing of them is heard any more, and they are of no effect once done() is called. */
void calls_revoke(struct exchange *exchange, call_done done);

/* ---- connections (connection.c, for those above) ---- */

enum connection_state {
    CONNECTION_HEAD,     /* a request is awaited */
    CONNECTION_BODY,     /* and its body, before the handler is called */
    CONNECTION_EXCHANGE, /* the handler is at work, or the answer on its way */
    CONNECTION_RELAY,    /* hijacked */
    CONNECTION_FAREWELL, /* the last answer goes out, and the client's end is awaited */
    CONNECTION_CLOSED,   /* about to be freed */
};

enum {
    STREAM_IN = 1 << 0,  /* from the client to the stream */
    STREAM_OUT = 1 << 1, /* from the stream to the client, or to pumped() */
};

struct connection {
    struct connection *next, **at;
    struct docker_server *server;
    const struct docker_client_ops *ops;
    void *data;
    enum connection_state state;
    struct rpc_watch client, stream; /* stream.fd -1: none */
    unsigned directions;             /* of the stream */
    struct rpc_task update;
    struct rpc_task read_file; /* of a stream that cannot be waited for */
    struct rpc_timer timer;
    uint64_t moved; /* last byte of the client, or to it, in loop time */
    struct buffer in, out;
    struct buffer to_stream;
    struct buffer headers;    /* of the next answer */
    struct buffer last_words; /* that go out once the head of a stream is read */
    struct body body;
    struct exchange *exchange; /* NULL: none */
    struct rpc_channel *channel;
    bool channel_ended;
    bool client_finished; /* has said its last: what is unread is all that comes */
    bool client_ended;    /* and all of it was read */
    bool keep;            /* another request may follow */
    bool swallow;         /* the rest of the body goes nowhere */
    bool cut_off;         /* so was the body: its stream is not to end yet */
    size_t searched;      /* bytes of `in` that have no end of a head */
    size_t counted;       /* bytes of the server's */
    unsigned looks;       /* that are left at whether the head of a stream is read; 0: no more */
    struct rpc_timer look;
};

/* Something has changed from outside: it is looked at soon. */
void connection_touch(struct connection *connection);
/* The connection to the daemon; NULL with the reason. */
struct rpc_channel *connection_channel(struct connection *connection, struct error *err);
void connection_close_stream(struct connection *connection);
struct rpc_loop *connection_loop(struct connection *connection);
struct listing *connection_listing(struct connection *connection);
/* Whether who is to be told more has not read what it was told before. */
bool connection_is_behind(const struct connection *connection);

/* ---- requests (request.c, for connection.c) ---- */

/* Heads and bodies out of `in`, as far as there are any. */
void request_advance(struct connection *connection);
/* Whether one is there whole, and not begun. */
bool request_waits(struct connection *connection);
/* The client says no more in the middle of a body. */
void request_cut_off(struct connection *connection);

#endif
