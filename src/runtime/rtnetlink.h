/*
 * A few requests to rtnetlink(7), without a library: links and addresses of one network namespace.
 */
#ifndef RUNTIME_RTNETLINK_H
#define RUNTIME_RTNETLINK_H

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RTNETLINK_REQUEST_MAX = 512,
    RTNETLINK_ANSWER_SECONDS = 10,
    RTNETLINK_ADDRESSES_MAX = 1024, /* of one link; further ones are an error */
};

/* One message under construction. */
struct rtnetlink_request {
    struct nlmsghdr header;
    char body[RTNETLINK_REQUEST_MAX];
};

/* An address as the kernel described it: header and attributes. */
struct rtnetlink_address {
    struct ifaddrmsg header;
    size_t length; /* of attributes */
    char attributes[128];
};

/* In the caller's network namespace; the descriptor stays with that namespace. -errno. */
int rtnetlink_open(void);

void rtnetlink_begin(struct rtnetlink_request *request, uint16_t type, const void *header,
                     size_t size);

/* The request must have room: all attributes here are of bounded size. */
void rtnetlink_add(struct rtnetlink_request *request, uint16_t type, const void *data, size_t size);

/* Sends and waits for the acknowledgement. -errno, as the kernel says. */
int rtnetlink_send(int fd, struct rtnetlink_request *request);

/* The index of a link; -ENODEV. */
int rtnetlink_find(int fd, const char *name);

/* flags: IFF_UP to bring it up, 0 to take it down. */
int rtnetlink_set_up(int fd, int index, unsigned flags);

/* All addresses of a link; owned by the caller. */
int rtnetlink_addresses(int fd, int index, struct rtnetlink_address **ret, size_t *ret_count);

#endif
