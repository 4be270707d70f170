#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>

#include <base/text.h>

#include "nft.h"
#include "ruleset.h"

/* Every instance's table begins like this (base/instance.h). */
#define TABLE_PREFIX "cloche"

#define MAP_ANYWHERE "published"
#define MAP_AT "published_at"

enum { MAP_ID_ANYWHERE = 1, MAP_ID_AT };

enum {
    IP_SOURCE = 12, /* offsets in the IPv4 header */
    IP_DESTINATION = 16,
    TRANSPORT_DESTINATION_PORT = 2, /* the same in TCP, UDP and SCTP */
};

enum { /* the registers we use, 4 bytes each; an interface name takes four of them */
       REGISTER_A = NFT_REG32_00,
       REGISTER_B = NFT_REG32_01,
       REGISTER_C = NFT_REG32_02,
};

static const struct nft_chain guard = {"guard", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW};
static const struct nft_chain inbound = {"inbound", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST};
static const struct nft_chain outbound = {"outbound", "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST};
static const struct nft_chain masquerade = {"masquerade", "nat", NF_INET_POST_ROUTING,
                                            NF_IP_PRI_NAT_SRC};

#define JOIN(a, b) ((uint32_t)(a) << NFT_TYPE_BITS | (uint32_t)(b))

static const struct nft_map map_anywhere = {
    .name = MAP_ANYWHERE,
    .id = MAP_ID_ANYWHERE,
    .key_type = JOIN(NFT_TYPE_PROTOCOL, NFT_TYPE_SERVICE),
    .key_size = 2 * NFT_FIELD,
    .data_type = JOIN(NFT_TYPE_IPV4_ADDRESS, NFT_TYPE_SERVICE),
    .data_size = 2 * NFT_FIELD,
};

static const struct nft_map map_at = {
    .name = MAP_AT,
    .id = MAP_ID_AT,
    .key_type = JOIN(JOIN(NFT_TYPE_IPV4_ADDRESS, NFT_TYPE_PROTOCOL), NFT_TYPE_SERVICE),
    .key_size = 3 * NFT_FIELD,
    .data_type = JOIN(NFT_TYPE_IPV4_ADDRESS, NFT_TYPE_SERVICE),
    .data_size = 2 * NFT_FIELD,
};

/* A map element: the fields as the registers of the rules hold them. */
struct entry {
    uint32_t address; /* host's; only in map_at's keys */
    uint8_t protocol;
    uint8_t protocol_padding[NFT_FIELD - 1];
    uint16_t port;
    uint16_t port_padding;
    uint32_t container_address;
    uint16_t container_port;
    uint16_t container_padding;
};
_Static_assert(sizeof(struct entry) == 5 * NFT_FIELD, "the fields are not packed like registers");

static struct entry entry_of(const struct net_publication *publication)
{
    return (struct entry){
        .address = publication->host_address.s_addr,
        .protocol = (uint8_t)publication->protocol,
        .port = htons(publication->host_port),
        .container_address = publication->container_address.s_addr,
        .container_port = htons(publication->container_port),
    };
}

static struct nft_element element_of(const struct entry *entry, bool with_data)
{
    const struct nft_map *map = entry->address == htonl(INADDR_ANY) ? &map_anywhere : &map_at;

    return (struct nft_element){
        .map = map->name,
        .key = map == &map_at ? (const void *)&entry->address : (const void *)&entry->protocol,
        .key_size = map->key_size,
        .data = with_data ? &entry->container_address : NULL,
        .data_size = map->data_size,
    };
}

/* --- parts of rules; each ends the rule when it does not hold --- */

static void match_link(struct nft_rule *rule, uint32_t key, uint32_t operation, const char *name)
{
    char padded[IFNAMSIZ] = {0};

    memcpy(padded, name, strnlen(name, sizeof(padded) - 1));
    nft_meta(rule, key, REGISTER_A);
    nft_compare(rule, operation, REGISTER_A, padded, sizeof(padded));
}

static void match_network(struct nft_rule *rule, uint32_t offset, struct in_addr network,
                          unsigned prefix)
{
    nft_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, offset, sizeof(network), REGISTER_A);
    nft_mask(rule, REGISTER_A, htonl(UINT32_MAX << (32 - prefix)));
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, &network, sizeof(network));
}

static void match_loopback(struct nft_rule *rule, uint32_t offset)
{
    match_network(rule, offset, (struct in_addr){htonl(0x7f000000)}, 8);
}

static void match_subnet(struct nft_rule *rule, uint32_t offset, const struct net_subnet *subnet)
{
    match_network(rule, offset, net_subnet_network(subnet), subnet->prefix);
}

static void match_local_destination(struct nft_rule *rule)
{
    const uint32_t local = RTN_LOCAL;

    nft_fib_daddr_type(rule, REGISTER_A);
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, &local, sizeof(local));
}

static void match_published(struct nft_rule *rule)
{
    const uint32_t none = 0;

    nft_conntrack_status(rule, REGISTER_A);
    nft_mask(rule, REGISTER_A, IPS_DST_NAT);
    nft_compare(rule, NFT_CMP_NEQ, REGISTER_A, &none, sizeof(none));
}

/* --- the chains --- */

static void add_guard(struct netlink_batch *batch, const struct net *net)
{
    struct nft_rule rule;

    nft_add_chain(batch, net->nft_table, &guard);
    rule = nft_rule_begin(batch, net->nft_table, guard.name);
    match_link(&rule, NFT_META_IIFNAME, NFT_CMP_EQ, net->bridge);
    match_loopback(&rule, IP_SOURCE);
    nft_drop(&rule);
    nft_rule_end(&rule);

    rule = nft_rule_begin(batch, net->nft_table, guard.name);
    match_link(&rule, NFT_META_IIFNAME, NFT_CMP_EQ, net->bridge);
    match_loopback(&rule, IP_DESTINATION);
    nft_drop(&rule);
    nft_rule_end(&rule);

    rule = nft_rule_begin(batch, net->nft_table, guard.name);
    match_link(&rule, NFT_META_IIFNAME, NFT_CMP_NEQ, net->bridge);
    match_link(&rule, NFT_META_IIFNAME, NFT_CMP_NEQ, "lo");
    match_subnet(&rule, IP_DESTINATION, &net->subnet);
    nft_drop(&rule);
    nft_rule_end(&rule);
}

static void add_dnat(struct netlink_batch *batch, const struct net *net,
                     const struct nft_chain *chain)
{
    struct nft_rule rule;

    nft_add_chain(batch, net->nft_table, chain);
    rule = nft_rule_begin(batch, net->nft_table, chain->name);
    match_local_destination(&rule);
    nft_payload(&rule, NFT_PAYLOAD_NETWORK_HEADER, IP_DESTINATION, 4, REGISTER_A);
    nft_meta(&rule, NFT_META_L4PROTO, REGISTER_B);
    nft_payload(&rule, NFT_PAYLOAD_TRANSPORT_HEADER, TRANSPORT_DESTINATION_PORT, 2, REGISTER_C);
    nft_lookup(&rule, MAP_AT, REGISTER_A, REGISTER_A);
    nft_dnat(&rule, REGISTER_A, REGISTER_B);
    nft_rule_end(&rule);

    rule = nft_rule_begin(batch, net->nft_table, chain->name);
    match_local_destination(&rule);
    nft_meta(&rule, NFT_META_L4PROTO, REGISTER_A);
    nft_payload(&rule, NFT_PAYLOAD_TRANSPORT_HEADER, TRANSPORT_DESTINATION_PORT, 2, REGISTER_B);
    nft_lookup(&rule, MAP_ANYWHERE, REGISTER_A, REGISTER_A);
    nft_dnat(&rule, REGISTER_A, REGISTER_B);
    nft_rule_end(&rule);
}

static void add_masquerade(struct netlink_batch *batch, const struct net *net)
{
    struct nft_rule rule;

    nft_add_chain(batch, net->nft_table, &masquerade);
    rule = nft_rule_begin(batch, net->nft_table, masquerade.name);
    match_link(&rule, NFT_META_OIFNAME, NFT_CMP_EQ, net->bridge);
    match_loopback(&rule, IP_SOURCE);
    nft_masquerade(&rule);
    nft_rule_end(&rule);

    rule = nft_rule_begin(batch, net->nft_table, masquerade.name);
    match_link(&rule, NFT_META_OIFNAME, NFT_CMP_EQ, net->bridge);
    match_subnet(&rule, IP_SOURCE, &net->subnet);
    match_published(&rule);
    nft_masquerade(&rule);
    nft_rule_end(&rule);

    rule = nft_rule_begin(batch, net->nft_table, masquerade.name);
    match_link(&rule, NFT_META_OIFNAME, NFT_CMP_NEQ, net->bridge);
    match_link(&rule, NFT_META_OIFNAME, NFT_CMP_NEQ, "lo");
    match_subnet(&rule, IP_SOURCE, &net->subnet);
    nft_masquerade(&rule);
    nft_rule_end(&rule);
}

static void add_publication(struct netlink_batch *batch, const struct net *net,
                            const struct net_publication *publication)
{
    const struct entry entry = entry_of(publication);
    const struct nft_element element = element_of(&entry, true);

    nft_add_element(batch, net->nft_table, &element);
}

int ruleset_replace(struct net *net, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;

    nft_batch_begin(&batch);
    nft_add_table(&batch, net->nft_table); /* so that deleting it succeeds */
    nft_add_table_delete(&batch, net->nft_table);
    nft_add_table(&batch, net->nft_table);
    nft_add_map(&batch, net->nft_table, &map_anywhere);
    nft_add_map(&batch, net->nft_table, &map_at);
    for (size_t i = 0; i < net->publications_count; i++)
        add_publication(&batch, net, &net->publications[i]);
    add_guard(&batch, net);
    add_dnat(&batch, net, &inbound);
    add_dnat(&batch, net, &outbound);
    add_masquerade(&batch, net);
    nft_batch_end(&batch);
    int r = netlink_run(&net->nft, &batch, err);
    if (r < 0)
        error_context(err, "nftables table '%s'", net->nft_table);
    return r;
}

int ruleset_remove(struct net *net, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;

    nft_batch_begin(&batch);
    nft_add_table(&batch, net->nft_table);
    nft_add_table_delete(&batch, net->nft_table);
    nft_batch_end(&batch);
    return netlink_run(&net->nft, &batch, err);
}

int ruleset_publish(struct net *net, const struct net_publication *publication, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;

    nft_batch_begin(&batch);
    add_publication(&batch, net, publication);
    nft_batch_end(&batch);
    return netlink_run(&net->nft, &batch, err);
}

int ruleset_unpublish(struct net *net, const struct net_publication *publication, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    _cleanup_error_ struct error why = ERROR_INIT;
    const struct entry entry = entry_of(publication);
    const struct nft_element element = element_of(&entry, false);
    int r;

    nft_batch_begin(&batch);
    nft_add_element_delete(&batch, net->nft_table, &element);
    nft_batch_end(&batch);
    r = netlink_run(&net->nft, &batch, &why);
    if (r == -ENOENT)
        return 0;
    return r < 0 ? error_move(err, &why) : 0;
}

/* --- other instances --- */

struct other_tables {
    const char *own;
    char **names; /* owned list */
};

static void collect_table(const struct nlmsghdr *message, void *data)
{
    struct other_tables *tables = data;
    const char *name = nft_message_table(message);

    if (name && text_starts_with(name, TABLE_PREFIX) && !text_equal(name, tables->own))
        strv_append(&tables->names, name);
}

struct key_search {
    const struct entry *wanted;
    bool found;
};

static void compare_key(const void *key, uint32_t size, void *data)
{
    struct key_search *search = data;
    const struct entry *wanted = search->wanted;
    const uint8_t *bytes = key;

    if (size != map_at.key_size)
        return;
    if (wanted->address != htonl(INADDR_ANY) && memcmp(bytes, &wanted->address, NFT_FIELD) != 0)
        return;
    if (memcmp(bytes + NFT_FIELD, &wanted->protocol, 2 * NFT_FIELD) == 0)
        search->found = true;
}

static void compare_keys(const struct nlmsghdr *message, void *data)
{
    nft_message_each_key(message, compare_key, data);
}

static void ignore_answer(const struct nlmsghdr *message, void *data)
{
}

static int find_anywhere(struct net *net, const char *table, const struct entry *wanted)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct entry anywhere = *wanted;
    int r;

    anywhere.address = htonl(INADDR_ANY);
    const struct nft_element element = element_of(&anywhere, false);
    nft_add_element_get(&batch, table, &element);
    r = netlink_query(&net->nft, &batch, ignore_answer, NULL, NULL);
    return r == 0;
}

static int find_at(struct net *net, const char *table, const struct entry *wanted)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct key_search search = {.wanted = wanted};

    nft_add_element_list(&batch, table, MAP_AT);
    (void)netlink_query(&net->nft, &batch, compare_keys, &search, NULL);
    return search.found;
}

int ruleset_published_elsewhere(struct net *net, const struct net_publication *publication,
                                struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct other_tables tables = {.own = net->nft_table};
    const struct entry wanted = entry_of(publication);
    int r;

    nft_add_table_list(&batch);
    r = netlink_query(&net->nft, &batch, collect_table, &tables, err);
    /* A table of this name without our maps is not an instance's: no answer is a no. */
    for (char **name = tables.names; r == 0 && name && *name; name++)
        r = find_anywhere(net, *name, &wanted) || find_at(net, *name, &wanted);
    strv_free(tables.names);
    return r;
}

bool ruleset_is_damage(const struct net *net, const struct nlmsghdr *message)
{
    switch (nft_message_type(message)) {
    case NFT_MSG_DELTABLE:
    case NFT_MSG_DELCHAIN:
    case NFT_MSG_DELRULE:
    case NFT_MSG_DELSET:
    case NFT_MSG_DELSETELEM:
        return message->nlmsg_pid != net->nft.port &&
               text_equal(nft_message_table(message), net->nft_table);
    default:
        return false;
    }
}
