/*
 * Messages of the management socket in WebSocket frames (RFC 6455), a message each: text for JSON,
 * binary for CBOR once the daemon has agreed to it (rpc.hello).
 *
 * Towards the daemon a text message becomes a line (line ends in it, which JSON has only between
 * its parts, become blanks), a binary one gets its length in front. Towards the client a message
 * that is longer than what is at hand goes out in fragments, so that no message is ever held whole.
 *
 * Extensions are not agreed on; frames that use one, that are not masked, or that are wrong in any
 * other way end the WebSocket with the code of RFC 6455, 7.4.1.
 */
#ifndef DOOR_WEBSOCKET_H
#define DOOR_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow.h"

struct websocket;

enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_UNSUPPORTED = 1003,
    WEBSOCKET_POLICY = 1008,
    WEBSOCKET_TOO_BIG = 1009,
    WEBSOCKET_TRY_LATER = 1013,
};

enum { WEBSOCKET_FRAGMENT = 16 * 1024 }; /* bytes at hand that are sent without a message's end */

/* flow: the connection's, must outlive it. message_max: bytes of a message from the client. */
struct websocket *websocket_create(struct flow *flow, size_t message_max);
void websocket_destroy(struct websocket *websocket); /* NULL is nothing */

/* Bytes from the client: whole messages go to flow->in, answers to pings and closes to flow->out.
 * After the end they are dropped. */
void websocket_receive(struct websocket *websocket, const void *data, size_t length);

/* Bytes from the daemon: takes what it can from `from`, and leaves the rest there for the next
 * call. false: they are no messages. */
bool websocket_forward(struct websocket *websocket, struct buffer *from);

void websocket_ping(struct websocket *websocket);
/* Says farewell, once. Nothing is sent or taken after it. reason: one line, or NULL. */
void websocket_close(struct websocket *websocket, enum websocket_code code, const char *reason);

/* Messages that have come whole, and whether there is a part of another. */
uint64_t websocket_whole(const struct websocket *websocket);
bool websocket_has_begun(const struct websocket *websocket);
/* A farewell was said, by us or in answer to theirs. */
bool websocket_is_closed(const struct websocket *websocket);

#endif
