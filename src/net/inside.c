/*
 * What is in the network namespace of a container.
 */
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "namespace.h"

struct listing {
    net_address_handler *handle;
    void *data;
};

static void handle_address(const struct nlmsghdr *message, void *data)
{
    const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
    const struct listing *listing = data;
    struct net_ip address = {.family = header->ifa_family};
    const struct nlattr *attribute;
    bool known = false;

    netlink_for_each(attribute, message, sizeof(*header))
    {
        uint16_t type = mnl_attr_get_type(attribute), length = mnl_attr_get_payload_len(attribute);

        if (header->ifa_family == AF_INET && type == IFA_LOCAL && length == sizeof(address.v4)) {
            memcpy(&address.v4, mnl_attr_get_payload(attribute), length);
            known = true;
        } else if (header->ifa_family == AF_INET6 && type == IFA_ADDRESS &&
                   length == sizeof(address.v6)) {
            memcpy(&address.v6, mnl_attr_get_payload(attribute), length);
            known = true;
        }
    }
    if (known)
        listing->handle(&address, listing->data);
}

int net_each_address(struct net *net, int netns_fd, net_address_handler *handle, void *data,
                     struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    _cleanup_(netlink_finish) struct netlink route = {0};
    const struct ifaddrmsg header = {.ifa_family = AF_UNSPEC};
    struct listing listing = {handle, data};
    int r = namespace_open_netlink(net, netns_fd, NETLINK_ROUTE, &route, err);

    if (r < 0)
        return r;
    netlink_batch_add(&batch, "list a container's addresses", RTM_GETADDR, NLM_F_DUMP, &header,
                      sizeof(header));
    return netlink_query(&route, &batch, handle_address, &listing, err);
}
