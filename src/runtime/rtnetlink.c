#include <errno.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "rtnetlink.h"

enum { ANSWER_SIZE = 32768 }; /* netlink(7): what the kernel puts into one datagram at most */

int rtnetlink_open(void)
{
    const struct timeval limit = {.tv_sec = RTNETLINK_ANSWER_SECONDS};
    _cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
        return -errno;
    return steal_fd(&fd);
}

void rtnetlink_begin(struct rtnetlink_request *request, uint16_t type, const void *header,
                     size_t size)
{
    *request = (struct rtnetlink_request){.header = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(size),
                                                     .nlmsg_type = type,
                                                     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
    memcpy(request->body, header, size);
}

void rtnetlink_add(struct rtnetlink_request *request, uint16_t type, const void *data, size_t size)
{
    size_t at = NLMSG_ALIGN(request->header.nlmsg_len);
    const struct rtattr attribute = {.rta_len = (unsigned short)RTA_LENGTH(size), .rta_type = type};

    if (at + RTA_SPACE(size) > sizeof(*request))
        abort();
    memcpy((char *)request + at, &attribute, sizeof(attribute));
    memcpy((char *)request + at + RTA_LENGTH(0), data, size);
    request->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(size));
}

/* What one datagram says: a handler's or the kernel's -errno, 1 when the answer is complete. */
typedef int message_handler(const struct nlmsghdr *message, void *data);

static int walk(const char *answer, size_t length, message_handler *handle, void *data)
{
    const struct nlmsghdr *message = (const void *)answer;
    unsigned left = (unsigned)length, step;

    for (; NLMSG_OK(message, left); message = (const void *)((const char *)message + step)) {
        if (message->nlmsg_type == NLMSG_DONE)
            return 1;
        if (message->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *failure = NLMSG_DATA(message);
            if (message->nlmsg_len < NLMSG_LENGTH(sizeof(*failure)))
                return -EPROTO;
            return failure->error ? failure->error : 1;
        }
        int r = handle ? handle(message, data) : 0;
        step = NLMSG_ALIGN(message->nlmsg_len);
        if (r < 0 || step >= left)
            return r;
        left -= step;
    }
    return 0;
}

static int converse(int fd, struct rtnetlink_request *request, message_handler *handle, void *data)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    _cleanup_free_ char *answer = xmalloc(ANSWER_SIZE);
    int r = 0;

    if (sendto(fd, request, request->header.nlmsg_len, 0, (const struct sockaddr *)&kernel,
               sizeof(kernel)) < 0)
        return -errno;
    while (r == 0) {
        struct sockaddr_nl from = {0};
        ssize_t n = recvfrom(fd, answer, ANSWER_SIZE, 0, (struct sockaddr *)&from,
                             &(socklen_t){sizeof(from)});
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        /* Who has CAP_NET_ADMIN in a joined namespace can send to us, too. */
        if (from.nl_pid != 0)
            continue;
        r = walk(answer, (size_t)n, handle, data);
    }
    return r < 0 ? r : 0;
}

int rtnetlink_send(int fd, struct rtnetlink_request *request)
{
    return converse(fd, request, NULL, NULL);
}

static int take_index(const struct nlmsghdr *message, void *data)
{
    const struct ifinfomsg *link = NLMSG_DATA(message);

    if (message->nlmsg_type == RTM_NEWLINK && message->nlmsg_len >= NLMSG_LENGTH(sizeof(*link)))
        *(int *)data = link->ifi_index;
    return 0;
}

int rtnetlink_find(int fd, const char *name)
{
    const struct ifinfomsg any = {.ifi_family = AF_UNSPEC};
    struct rtnetlink_request request;
    int index = -ENODEV;

    rtnetlink_begin(&request, RTM_GETLINK, &any, sizeof(any));
    rtnetlink_add(&request, IFLA_IFNAME, name, strlen(name) + 1);
    int r = converse(fd, &request, take_index, &index);
    return r < 0 ? r : index;
}

int rtnetlink_set_up(int fd, int index, unsigned flags)
{
    const struct ifinfomsg link = {.ifi_index = index, .ifi_flags = flags, .ifi_change = IFF_UP};
    struct rtnetlink_request request;

    rtnetlink_begin(&request, RTM_NEWLINK, &link, sizeof(link));
    return rtnetlink_send(fd, &request);
}

struct address_list {
    int index;
    struct rtnetlink_address *items;
    size_t count;
};

static int take_address(const struct nlmsghdr *message, void *data)
{
    struct address_list *list = data;
    const struct ifaddrmsg *address = NLMSG_DATA(message);
    size_t head = NLMSG_SPACE(sizeof(*address));

    if (message->nlmsg_type != RTM_NEWADDR || message->nlmsg_len < head ||
        (int)address->ifa_index != list->index)
        return 0;
    struct rtnetlink_address item = {.header = *address, .length = message->nlmsg_len - head};
    if (list->count >= RTNETLINK_ADDRESSES_MAX || item.length > sizeof(item.attributes))
        return -E2BIG;
    memcpy(item.attributes, (const char *)message + head, item.length);
    list->items = xrealloc(list->items, list->count + 1, sizeof(item));
    list->items[list->count++] = item;
    return 0;
}

int rtnetlink_addresses(int fd, int index, struct rtnetlink_address **ret, size_t *ret_count)
{
    const struct ifaddrmsg any = {.ifa_family = AF_UNSPEC};
    struct address_list list = {.index = index};
    struct rtnetlink_request request;

    rtnetlink_begin(&request, RTM_GETADDR, &any, sizeof(any));
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    int r = converse(fd, &request, take_address, &list);
    if (r < 0) {
        free(list.items);
        return r;
    }
    *ret = list.items;
    *ret_count = list.count;
    return 0;
}
