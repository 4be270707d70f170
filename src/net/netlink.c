#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <base/alloc.h>

#include "netlink.h"

/* Only a table with thousands of publications needs more than the usual 208 KiB. */
enum { SEND_BUFFER = 4 * 1024 * 1024 };

int netlink_open(int protocol, struct netlink *ret, struct error *err)
{
    const struct timeval limit = {.tv_sec = NETLINK_ANSWER_SECONDS};
    const int on = 1, send_buffer = SEND_BUFFER;
    struct mnl_socket *socket = mnl_socket_open2(protocol, SOCK_CLOEXEC);

    if (!socket)
        return error_errno(err, errno, "open a netlink socket");
    if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0 ||
        setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0) {
        int r = error_errno(err, errno, "set up a netlink socket");

        mnl_socket_close(socket);
        return r;
    }
    /* Both make answers better and are not needed for them: explanations of errors (Linux 4.12),
     * and answers without a copy of the request. */
    (void)mnl_socket_setsockopt(socket, NETLINK_EXT_ACK, (void *)&on, sizeof(on));
    (void)mnl_socket_setsockopt(socket, NETLINK_CAP_ACK, (void *)&on, sizeof(on));
    (void)setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer,
                     sizeof(send_buffer));
    *ret = (struct netlink){.socket = socket, .port = mnl_socket_get_portid(socket)};
    return 0;
}

void netlink_finish(struct netlink *netlink)
{
    if (netlink->socket)
        mnl_socket_close(netlink->socket);
    *netlink = (struct netlink){0};
}

void netlink_batch_finish(struct netlink_batch *batch)
{
    free(batch->data);
    free(batch->labels);
    *batch = (struct netlink_batch)NETLINK_BATCH_INIT;
}

static struct nlmsghdr *last_message(const struct netlink_batch *batch)
{
    return (struct nlmsghdr *)(void *)(batch->data + batch->last);
}

static size_t batch_length(const struct netlink_batch *batch)
{
    return batch->count == 0 ? 0 : batch->last + NLMSG_ALIGN(last_message(batch)->nlmsg_len);
}

struct nlmsghdr *netlink_batch_add(struct netlink_batch *batch, const char *what, uint16_t type,
                                   uint16_t flags, const void *header, size_t size)
{
    size_t length = batch_length(batch);

    if (batch->capacity - length < NETLINK_MESSAGE_MAX) {
        batch->capacity = 2 * batch->capacity + NETLINK_MESSAGE_MAX;
        batch->data = xrealloc(batch->data, batch->capacity, 1);
    }
    if (batch->count == batch->labels_capacity) {
        batch->labels_capacity = 2 * batch->labels_capacity + 16;
        batch->labels = xrealloc(batch->labels, batch->labels_capacity, sizeof(*batch->labels));
    }
    batch->labels[batch->count++] = what;
    batch->last = length;
    memset(batch->data + length, 0, NETLINK_MESSAGE_MAX);

    struct nlmsghdr *message = mnl_nlmsg_put_header(batch->data + length);
    message->nlmsg_type = type;
    message->nlmsg_flags = flags | NLM_F_REQUEST;
    memcpy(mnl_nlmsg_put_extra_header(message, size), header, size);
    return message;
}

/* Numbers the messages and sends them all. *ret_first: the first number, *ret_last_ack: that of the
 * last message that will be acknowledged. */
static int send_batch(struct netlink *netlink, struct netlink_batch *batch, uint32_t *ret_first,
                      uint32_t *ret_last_ack, struct error *err)
{
    size_t length = batch_length(batch);

    *ret_first = netlink->sequence + 1;
    *ret_last_ack = *ret_first;
    for (size_t offset = 0; offset < length;) {
        struct nlmsghdr *message = (struct nlmsghdr *)(void *)(batch->data + offset);

        message->nlmsg_seq = ++netlink->sequence;
        if (message->nlmsg_flags & NLM_F_ACK)
            *ret_last_ack = message->nlmsg_seq;
        offset += NLMSG_ALIGN(message->nlmsg_len);
    }
    if (mnl_socket_sendto(netlink->socket, batch->data, length) < 0)
        return error_errno(err, errno, "%s: send to the kernel", batch->labels[0]);
    return 0;
}

static ssize_t receive(struct netlink *netlink, char *data, size_t size, const char *what,
                       struct error *err)
{
    for (;;) {
        ssize_t length = mnl_socket_recvfrom(netlink->socket, data, size);

        if (length >= 0)
            return length;
        if (errno == EAGAIN)
            return error_errno(err, ETIMEDOUT, "%s: wait for the kernel's answer", what);
        if (errno != EINTR)
            return error_errno(err, errno, "%s: read the kernel's answer", what);
    }
}

/* The kernel's explanation in an acknowledgement with NLM_F_ACK_TLVS, or NULL. With NETLINK_CAP_ACK
 * the header of the request is all of it that comes back. */
static const char *explanation(const struct nlmsghdr *message)
{
    const size_t fixed = sizeof(struct nlmsgerr);
    const struct nlattr *attribute;

    if (!(message->nlmsg_flags & NLM_F_ACK_TLVS) || !(message->nlmsg_flags & NLM_F_CAPPED))
        return NULL;
    netlink_for_each(attribute, message, fixed)
    {
        if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG &&
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0)
            return mnl_attr_get_str(attribute);
    }
    return NULL;
}

/* 0 for an acknowledgement, -errno with err for a refusal. */
static int read_acknowledgement(const struct nlmsghdr *message, const char *what, struct error *err)
{
    const struct nlmsgerr *answer = mnl_nlmsg_get_payload(message);

    if (message->nlmsg_len < mnl_nlmsg_size(sizeof(*answer)))
        return error_set(err, -EBADMSG, "%s: the kernel's answer is too short", what);
    if (answer->error == 0)
        return 0;
    const char *why = explanation(message);
    if (why)
        return error_set(err, answer->error, "%s: %s (%s)", what, strerror(-answer->error), why);
    return error_errno(err, -answer->error, "%s", what);
}

int netlink_run(struct netlink *netlink, struct netlink_batch *batch, struct error *err)
{
    uint32_t first, last_ack;
    int failure = 0;
    int r;

    r = send_batch(netlink, batch, &first, &last_ack, err);
    if (r < 0)
        return r;
    for (;;) {
        char data[16384] __attribute__((aligned(NLMSG_ALIGNTO)));
        ssize_t received = receive(netlink, data, sizeof(data), batch->labels[0], err);

        if (received < 0)
            return failure < 0 ? failure : (int)received;
        int left = (int)received;
        for (const struct nlmsghdr *message = (const void *)data; mnl_nlmsg_ok(message, left);
             message = mnl_nlmsg_next(message, &left)) {
            uint32_t index = message->nlmsg_seq - first;

            if (message->nlmsg_type != NLMSG_ERROR || index >= batch->count)
                continue; /* left over from a call that timed out */
            r = read_acknowledgement(message, batch->labels[index], failure ? NULL : err);
            if (r < 0 && failure == 0)
                failure = r;
            /* nfnetlink refuses a whole batch in the name of its first message. */
            if (message->nlmsg_seq == last_ack || (r < 0 && index == 0 && batch->count > 1))
                return failure;
        }
    }
}

int netlink_query(struct netlink *netlink, struct netlink_batch *batch, netlink_handler *handle,
                  void *data, struct error *err)
{
    uint32_t sequence, last_ack;
    int r;

    r = send_batch(netlink, batch, &sequence, &last_ack, err);
    if (r < 0)
        return r;
    for (;;) {
        char answer[32768] __attribute__((aligned(NLMSG_ALIGNTO))); /* the kernel's dump size */
        ssize_t received = receive(netlink, answer, sizeof(answer), batch->labels[0], err);

        if (received < 0)
            return (int)received;
        int left = (int)received;
        for (const struct nlmsghdr *message = (const void *)answer; mnl_nlmsg_ok(message, left);
             message = mnl_nlmsg_next(message, &left)) {
            if (message->nlmsg_seq != sequence)
                continue;
            if (message->nlmsg_type == NLMSG_DONE)
                return 0;
            if (message->nlmsg_type == NLMSG_ERROR)
                return read_acknowledgement(message, batch->labels[0], err);
            handle(message, data);
            if (!(message->nlmsg_flags & NLM_F_MULTI))
                return 0;
        }
    }
}
