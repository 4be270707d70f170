#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

#include <base/alloc.h>

#include "conntrack.h"
#include "link.h"

enum { FLOWS_MAX = 4096 }; /* forgotten at once */

/* Which parts of the tuple a filter compares (Linux 5.8, which numbers them in nf_internals.h, not
 * in a header of the user-space interface). Older kernels list everything, so that we compare, too.
 */
enum { FILTER_PROTOCOL = 1 << 3, FILTER_DESTINATION_PORT = 1 << 5 };

struct flows {
    const struct net_publication *publication;
    struct in_addr *addresses; /* owned array: where a flow to this machine goes */
    size_t addresses_count;
    struct netlink_batch deletions;
};

static struct nlmsghdr *add_message(struct netlink_batch *batch, const char *what, uint16_t type,
                                    uint16_t flags)
{
    const struct nfgenmsg header = {.nfgen_family = AF_INET, .version = NFNETLINK_V0};

    return netlink_batch_add(batch, what, (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type), flags,
                             &header, sizeof(header));
}

static const struct nlattr *find(const struct nlattr *parent, uint16_t type)
{
    const struct nlattr *attribute;

    if (!parent)
        return NULL;
    netlink_for_each_nested(attribute, parent)
    {
        if (mnl_attr_get_type(attribute) == type)
            return attribute;
    }
    return NULL;
}

/* The flow's first packet went to this port, at *ret_destination. */
static bool is_to_port(const struct nlattr *tuple, const struct net_publication *publication,
                       struct in_addr *ret_destination)
{
    const struct nlattr *addresses = find(tuple, CTA_TUPLE_IP);
    const struct nlattr *transport = find(tuple, CTA_TUPLE_PROTO);
    const struct nlattr *destination = find(addresses, CTA_IP_V4_DST);
    const struct nlattr *protocol = find(transport, CTA_PROTO_NUM);
    const struct nlattr *flow_port = find(transport, CTA_PROTO_DST_PORT);

    if (!destination || !protocol || !flow_port ||
        mnl_attr_get_u8(protocol) != (uint8_t)publication->protocol ||
        ntohs(mnl_attr_get_u16(flow_port)) != publication->host_port)
        return false;
    ret_destination->s_addr = mnl_attr_get_u32(destination);
    return true;
}

static void add_address(const struct net_subnet *address, void *data)
{
    struct flows *flows = data;

    flows->addresses =
        xrealloc(flows->addresses, flows->addresses_count + 1, sizeof(*flows->addresses));
    flows->addresses[flows->addresses_count++] = address->gateway;
}

/* Flows of containers to such a port elsewhere (a name server's, say) are none of our business. */
static bool is_published_there(const struct flows *flows, struct in_addr destination)
{
    const struct net_ip *wanted = &flows->publication->host_address;

    if (!net_ip_is_any(wanted))
        return wanted->v4.s_addr == destination.s_addr;
    if (ntohl(destination.s_addr) >> 24 == IN_LOOPBACKNET)
        return true;
    for (size_t i = 0; i < flows->addresses_count; i++) {
        if (flows->addresses[i].s_addr == destination.s_addr)
            return true;
    }
    return false;
}

static void collect(const struct nlmsghdr *message, void *data)
{
    struct flows *flows = data;
    const struct nlattr *attribute, *tuple = NULL, *id = NULL;
    struct in_addr destination;

    netlink_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) == CTA_TUPLE_ORIG)
            tuple = attribute;
        if (mnl_attr_get_type(attribute) == CTA_ID)
            id = attribute;
    }
    if (!tuple || !id || flows->deletions.count == FLOWS_MAX ||
        !is_to_port(tuple, flows->publication, &destination) ||
        !is_published_there(flows, destination))
        return;

    struct nlmsghdr *deletion =
        add_message(&flows->deletions, "forget a flow", IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
    mnl_attr_put(deletion, CTA_TUPLE_ORIG | NLA_F_NESTED, mnl_attr_get_payload_len(tuple),
                 mnl_attr_get_payload(tuple));
    mnl_attr_put(deletion, CTA_ID, mnl_attr_get_payload_len(id), mnl_attr_get_payload(id));
}

static void list_flows(struct net *net, struct flows *flows)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct nlmsghdr *message = add_message(&batch, "list flows", IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    struct nlattr *tuple = mnl_attr_nest_start(message, CTA_TUPLE_ORIG);
    struct nlattr *transport = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);
    struct nlattr *filter;

    mnl_attr_put_u8(message, CTA_PROTO_NUM, (uint8_t)flows->publication->protocol);
    mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(flows->publication->host_port));
    mnl_attr_nest_end(message, transport);
    mnl_attr_nest_end(message, tuple);
    filter = mnl_attr_nest_start(message, CTA_FILTER);
    mnl_attr_put_u32(message, CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL | FILTER_DESTINATION_PORT);
    mnl_attr_put_u32(message, CTA_FILTER_REPLY_FLAGS, 0);
    mnl_attr_nest_end(message, filter);
    (void)netlink_query(&net->nft, &batch, collect, flows, NULL);
}

void conntrack_forget(struct net *net, const struct net_publication *publication)
{
    struct flows flows = {.publication = publication, .deletions = NETLINK_BATCH_INIT};

    if (publication->host_address.family != AF_INET)
        return; /* those of IPv6 end by themselves */
    if (link_each_address(&net->route, 0, add_address, &flows, NULL) == 0)
        list_flows(net, &flows);
    if (flows.deletions.count > 0)
        (void)netlink_run(&net->nft, &flows.deletions, NULL);
    netlink_batch_finish(&flows.deletions);
    free(flows.addresses);
}
