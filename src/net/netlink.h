/*
 * Netlink requests in batches: any number of messages in one sendmsg(), each with a label that says
 * in an error what was being done. The kernel answers before sendmsg() returns (rtnetlink and
 * nfnetlink work in the sender's context), so that waiting is a formality with a limit.
 */
#ifndef NET_NETLINK_H
#define NET_NETLINK_H

#include <libmnl/libmnl.h>
#include <stdint.h>

#include <base/error.h>

enum {
    NETLINK_MESSAGE_MAX = 4096, /* the longest message we compose; a batch holds many */
    NETLINK_ANSWER_SECONDS = 5, /* an answer that takes longer is -ETIMEDOUT */
};

struct netlink {
    struct mnl_socket *socket; /* owned */
    uint32_t port;             /* our address: notifications about our own changes carry it */
    uint32_t sequence;         /* of the last message sent */
};

/* protocol: NETLINK_ROUTE or NETLINK_NETFILTER. The socket belongs to the network namespace that
 * the calling thread is in. */
int netlink_open(int protocol, struct netlink *ret, struct error *err);
void netlink_finish(struct netlink *netlink); /* a zeroed one is nothing */

struct netlink_batch {
    char *data; /* owned */
    size_t capacity;
    size_t last;         /* offset of the message being composed, valid when count > 0 */
    const char **labels; /* owned array of static strings, one a message */
    size_t count;
    size_t labels_capacity;
};

#define NETLINK_BATCH_INIT                                                                         \
    {                                                                                              \
        0                                                                                          \
    }
void netlink_batch_finish(struct netlink_batch *batch);
#define _cleanup_netlink_batch_ _cleanup_(netlink_batch_finish)

/* Begins the next message; header (size bytes, after struct nlmsghdr) is copied in. The result is
 * valid until the next call and may grow to NETLINK_MESSAGE_MAX. NLM_F_REQUEST is added. what: a
 * static string, an infinitive clause without subject ("bring lo up"). */
struct nlmsghdr *netlink_batch_add(struct netlink_batch *batch, const char *what, uint16_t type,
                                   uint16_t flags, const void *header, size_t size);

/* Sends the batch and waits for the answers to the messages with NLM_F_ACK, of which there must be
 * one. The first message that failed decides the error; 0 when none did. */
int netlink_run(struct netlink *netlink, struct netlink_batch *batch, struct error *err);

/* Sends one request (a dump with NLM_F_DUMP in its flags, or one answered by one message) and gives
 * every message of the answer to handle. The batch holds that one message. */
typedef void netlink_handler(const struct nlmsghdr *message, void *data);
int netlink_query(struct netlink *netlink, struct netlink_batch *batch, netlink_handler *handle,
                  void *data, struct error *err);

/* libmnl's loops over attributes, without their implicit narrowing. size: of the header before the
 * first attribute. */
#define netlink_for_each(attribute, message, size)                                                 \
    for ((attribute) = mnl_nlmsg_get_payload_offset((message), (size));                            \
         mnl_attr_ok((attribute), (int)((const char *)mnl_nlmsg_get_payload_tail(message) -        \
                                        (const char *)(attribute)));                               \
         (attribute) = mnl_attr_next(attribute))
#define netlink_for_each_nested(attribute, parent)                                                 \
    for ((attribute) = mnl_attr_get_payload(parent); mnl_attr_ok(                                  \
             (attribute), (int)((const char *)mnl_attr_get_payload(parent) +                       \
                                mnl_attr_get_payload_len(parent) - (const char *)(attribute)));    \
         (attribute) = mnl_attr_next(attribute))

#endif
