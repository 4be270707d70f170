/*
 * The daemon's end of the conversation with one monitor (<monitor/protocol.h>): requests by number,
 * answers, events. Owns the socket. All on the loop's thread; nothing blocks.
 */
#ifndef ENGINE_LINK_H
#define ENGINE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include <base/error.h>
#include <monitor/protocol.h>

struct link;

/* A message from the monitor, as it came; type 0: the connection is gone and nothing will come. */
struct link_message {
    uint16_t type;
    const void *payload; /* length bytes, valid during the call; aligned for the structs */
    size_t length;
};

typedef void (*link_reply)(const struct link_message *message, void *data);

struct link_handlers {
    void (*exited)(const struct monitor_exited *event, void *data);
    void (*started)(const struct monitor_pid *event, void *data); /* a restart */
    void (*restarting)(const struct monitor_restarting *event, void *data);
    void (*health)(const struct monitor_health *event, void *data);
    void (*exec_exited)(const struct monitor_exec_exited *event, void *data);
    void (*exec_running)(const struct monitor_exec_running *event, void *data);
    void (*detached)(const struct monitor_detached *event, void *data);
    /* The other end is gone, or did not keep to the protocol. Called once, after all open requests
     * were answered with type 0; link_destroy() is then the owner's to call. */
    void (*closed)(void *data);
};

/* Takes fd (SOCK_SEQPACKET, connected) over, also on failure. */
int link_create(uv_loop_t *loop, int fd, const struct link_handlers *handlers, void *data,
                struct link **ret, struct error *err);

/* The protocol's version that requests are sent with; MONITOR_PROTOCOL_VERSION at first. One below
 * it for a monitor that answered HELLO with -EPROTONOSUPPORT. */
unsigned link_version(const struct link *link);
void link_set_version(struct link *link, unsigned version);

/* Closes the socket. Open requests are answered with type 0 before it returns; no handler is called
 * any more. NULL allowed. May be called from inside a handler. */
void link_destroy(struct link *link);

/* Sends a request; reply is called once (NULL: nobody cares). fds are the caller's still. When it
 * cannot be sent, the answer with type 0 comes before the call returns. */
void link_request(struct link *link, enum monitor_type type, const void *payload, size_t length,
                  const int *fds, size_t fds_count, link_reply reply, void *data);

/* The payload as a struct of this size, or NULL when the message is not of this type or too short.
 */
const void *link_payload(const struct link_message *message, enum monitor_type type, size_t size);

/* The status in an answer to HELLO or STATUS, also of a monitor of version 1; false: there is none.
 */
bool link_status(const struct link_message *message, struct monitor_status *ret);

/* Turns an answer that is not the wanted one into an error: the monitor's text and code, or that
 * the connection is gone. Positive codes (125, 126, 127) are kept as they are in err->code. */
int link_error(const struct link_message *message, struct error *err);

#endif
