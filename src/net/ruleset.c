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

enum { MAP_ID_FIRST = 1 }; /* their numbers in a batch */

enum {
    IP_SOURCE = 12, /* offsets in the IPv4 header */
    IP_DESTINATION = 16,
    IP6_DESTINATION = 24,
    TRANSPORT_DESTINATION_PORT = 2, /* the same in TCP, UDP and SCTP */
};

enum { /* the registers we use, 4 bytes each; an interface name takes four of them */
       REGISTER_A = NFT_REG32_00,
       REGISTER_B = NFT_REG32_01,
       REGISTER_C = NFT_REG32_02,
       REGISTER_D = NFT_REG32_03,
       REGISTER_E = NFT_REG32_04,
       REGISTER_F = NFT_REG32_05,
};

enum { STATE_ESTABLISHED = 2, STATE_RELATED = 4 }; /* NF_CT_STATE_BIT() */

static const struct nft_chain guard = {"guard", "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW};
static const struct nft_chain containers = {.name = "containers"};
static const struct nft_chain isolate = {"isolate", "filter", NF_INET_FORWARD, NF_IP_PRI_FILTER};
static const struct nft_chain strangers = {.name = "strangers"};
static const struct nft_chain inbound = {"inbound", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST};
static const struct nft_chain outbound = {"outbound", "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST};
static const struct nft_chain masquerade = {"masquerade", "nat", NF_INET_POST_ROUTING,
                                            NF_IP_PRI_NAT_SRC};

#define JOIN(a, b) ((uint32_t)(a) << NFT_TYPE_BITS | (uint32_t)(b))
#define PORT_KEY JOIN(NFT_TYPE_PROTOCOL, NFT_TYPE_SERVICE)
#define JOIN3(a, b, c) JOIN(JOIN(a, b), c)

enum map_index {
    SET_BRIDGES,
    SET_WITHIN,
    SET_INTERNAL,
    SET_MASQUERADED,
    SET_FORWARDED,
    SET_FORWARDED6,
    MAP_ANYWHERE,
    MAP_AT,
    MAP_ANYWHERE6,
    MAP_AT6,
};

static const struct nft_map maps[] = {
    [SET_BRIDGES] = {.name = "bridges", .key_type = NFT_TYPE_LINK_NAME, .key_size = IFNAMSIZ},
    [SET_WITHIN] = {.name = "within",
                    .key_type = JOIN(NFT_TYPE_LINK_NAME, NFT_TYPE_LINK_NAME),
                    .key_size = 2 * IFNAMSIZ},
    [SET_INTERNAL] = {.name = "internal", .key_type = NFT_TYPE_LINK_NAME, .key_size = IFNAMSIZ},
    [SET_MASQUERADED] = {.name = "masqueraded",
                         .key_type = NFT_TYPE_LINK_NAME,
                         .key_size = IFNAMSIZ},
    [SET_FORWARDED] = {.name = "forwarded", .key_type = NFT_TYPE_LINK_NAME, .key_size = IFNAMSIZ},
    [SET_FORWARDED6] = {.name = "forwarded6", .key_type = NFT_TYPE_LINK_NAME, .key_size = IFNAMSIZ},
    [MAP_ANYWHERE] = {.name = "published",
                      .key_type = PORT_KEY,
                      .key_size = 2 * NFT_FIELD,
                      .data_type = JOIN(NFT_TYPE_IPV4_ADDRESS, NFT_TYPE_SERVICE),
                      .data_size = 2 * NFT_FIELD},
    [MAP_AT] = {.name = "published_at",
                .key_type = JOIN3(NFT_TYPE_IPV4_ADDRESS, NFT_TYPE_PROTOCOL, NFT_TYPE_SERVICE),
                .key_size = 3 * NFT_FIELD,
                .data_type = JOIN(NFT_TYPE_IPV4_ADDRESS, NFT_TYPE_SERVICE),
                .data_size = 2 * NFT_FIELD},
    [MAP_ANYWHERE6] = {.name = "published6",
                       .key_type = PORT_KEY,
                       .key_size = 2 * NFT_FIELD,
                       .data_type = JOIN(NFT_TYPE_IPV6_ADDRESS, NFT_TYPE_SERVICE),
                       .data_size = 5 * NFT_FIELD},
    [MAP_AT6] = {.name = "published6_at",
                 .key_type = JOIN3(NFT_TYPE_IPV6_ADDRESS, NFT_TYPE_PROTOCOL, NFT_TYPE_SERVICE),
                 .key_size = 6 * NFT_FIELD,
                 .data_type = JOIN(NFT_TYPE_IPV6_ADDRESS, NFT_TYPE_SERVICE),
                 .data_size = 5 * NFT_FIELD},
};

static struct nft_table table_of(const struct net *net)
{
    return (struct nft_table){NFPROTO_INET, net->nft_table};
}

/* --- map elements ----------------------------------------------------------------------------- */

/* The fields as the registers of the rules hold them: the key's (address,) protocol and port, the
 * data's address and port. */
struct entry {
    uint8_t key[6 * NFT_FIELD];
    uint8_t data[5 * NFT_FIELD];
    struct nft_element element;
};

static void put_address(uint8_t **at, const struct net_ip *ip)
{
    size_t size = ip->family == AF_INET6 ? sizeof(ip->v6) : sizeof(ip->v4);

    memcpy(*at, &ip->v4, size);
    *at += size;
}

static void put_port(uint8_t **at, uint16_t port)
{
    const uint16_t wire = htons(port);

    memcpy(*at, &wire, sizeof(wire));
    *at += NFT_FIELD;
}

static void entry_init(struct entry *entry, const struct net_publication *publication,
                       bool with_data)
{
    const struct net_ip *host = &publication->host_address;
    const bool any = net_ip_is_any(host), v6 = host->family == AF_INET6;
    const struct nft_map *map =
        &maps[any ? (v6 ? MAP_ANYWHERE6 : MAP_ANYWHERE) : (v6 ? MAP_AT6 : MAP_AT)];
    uint8_t *at = entry->key;

    memset(entry, 0, sizeof(*entry));
    if (!any)
        put_address(&at, host);
    *at = (uint8_t)publication->protocol;
    at += NFT_FIELD;
    put_port(&at, publication->host_port);
    at = entry->data;
    put_address(&at, &publication->container_address);
    put_port(&at, publication->container_port);
    entry->element = (struct nft_element){
        .map = map->name,
        .key = entry->key,
        .key_size = map->key_size,
        .data = with_data ? entry->data : NULL,
        .data_size = map->data_size,
    };
}

static void add_link_name(struct netlink_batch *batch, const struct nft_table *table,
                          enum map_index set, const char *name)
{
    char key[2 * IFNAMSIZ] = {0};
    const struct nft_element element = {
        .map = maps[set].name, .key = key, .key_size = maps[set].key_size};

    memcpy(key, name, strnlen(name, IFNAMSIZ - 1));
    memcpy(key + IFNAMSIZ, name, strnlen(name, IFNAMSIZ - 1));
    nft_add_element(batch, table, &element);
}

static void add_bridge(struct netlink_batch *batch, const struct nft_table *table,
                       const struct net_bridge_config *config)
{
    add_link_name(batch, table, SET_BRIDGES, config->name);
    add_link_name(batch, table, SET_WITHIN, config->name);
    if (config->internal)
        add_link_name(batch, table, SET_INTERNAL, config->name);
    else if (!config->own_addresses)
        add_link_name(batch, table, SET_MASQUERADED, config->name);
}

static void add_links(struct netlink_batch *batch, const struct nft_table *table,
                      enum map_index set, char *const *links)
{
    for (; links && *links; links++)
        add_link_name(batch, table, set, *links);
}

static void add_publication(struct netlink_batch *batch, const struct nft_table *table,
                            const struct net_publication *publication)
{
    struct entry entry;

    if (net_is_loopback6(publication))
        return; /* which rules do not serve */
    entry_init(&entry, publication, true);
    nft_add_element(batch, table, &entry.element);
}

/* --- parts of rules; each ends the rule when it does not hold --- */

static void match_link(struct nft_rule *rule, uint32_t key, enum map_index set, bool inverted)
{
    nft_meta(rule, key, REGISTER_A);
    nft_member(rule, maps[set].name, REGISTER_A, inverted);
}

static void match_within(struct nft_rule *rule, bool inverted)
{
    nft_meta(rule, NFT_META_IIFNAME, REGISTER_A);
    nft_meta(rule, NFT_META_OIFNAME, REGISTER_E);
    nft_member(rule, maps[SET_WITHIN].name, REGISTER_A, inverted);
}

static void match_no_incoming_link(struct nft_rule *rule)
{
    const char nothing[IFNAMSIZ] = {0};

    nft_meta(rule, NFT_META_IIFNAME, REGISTER_A);
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, nothing, sizeof(nothing));
}

static void match_family(struct nft_rule *rule, uint8_t family)
{
    nft_meta(rule, NFT_META_NFPROTO, REGISTER_A);
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, &family, sizeof(family));
}

static void match_loopback(struct nft_rule *rule, uint32_t offset)
{
    const uint32_t network = htonl(0x7f000000);

    match_family(rule, NFPROTO_IPV4);
    nft_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, offset, sizeof(network), REGISTER_A);
    nft_mask(rule, REGISTER_A, htonl(0xff000000));
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, &network, sizeof(network));
}

static void match_local(struct nft_rule *rule, uint32_t flag, uint32_t operation)
{
    const uint32_t local = RTN_LOCAL;

    nft_fib_type(rule, flag, REGISTER_A);
    nft_compare(rule, operation, REGISTER_A, &local, sizeof(local));
}

static void match_conntrack(struct nft_rule *rule, uint32_t key, uint32_t bits)
{
    const uint32_t none = 0;

    nft_conntrack(rule, key, REGISTER_A);
    nft_mask(rule, REGISTER_A, bits);
    nft_compare(rule, NFT_CMP_NEQ, REGISTER_A, &none, sizeof(none));
}

static void finish_rule(struct nft_rule *rule, uint32_t verdict)
{
    nft_verdict(rule, verdict);
    nft_rule_end(rule);
}

static void finish_masquerade(struct nft_rule *rule)
{
    nft_masquerade(rule);
    nft_rule_end(rule);
}

/* A link without a kind, which a network card is, ends the rule. */
static void match_kind(struct nft_rule *rule, uint32_t key, const char *wanted)
{
    char kind[IFNAMSIZ] = {0};

    memccpy(kind, wanted, '\0', sizeof(kind) - 1);
    nft_meta(rule, key, REGISTER_A);
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, kind, sizeof(kind));
}

static void match_destination6(struct nft_rule *rule, const struct in6_addr *address)
{
    match_family(rule, NFPROTO_IPV6);
    nft_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, IP6_DESTINATION, sizeof(*address), REGISTER_A);
    nft_compare(rule, NFT_CMP_EQ, REGISTER_A, address, sizeof(*address));
}

/* --- the chains --- */

static void add_guard(struct netlink_batch *batch, const struct nft_table *table)
{
    static const char loopback[IFNAMSIZ] = "lo";
    const uint32_t none = 0;

    nft_add_chain(batch, table, &containers);
    struct nft_rule rule = nft_rule_begin(batch, table, containers.name);
    match_loopback(&rule, IP_SOURCE);
    finish_rule(&rule, NF_DROP);
    rule = nft_rule_begin(batch, table, containers.name);
    nft_fib_source_link(&rule, REGISTER_A);
    nft_compare(&rule, NFT_CMP_EQ, REGISTER_A, &none, sizeof(none));
    finish_rule(&rule, NF_DROP);

    nft_add_chain(batch, table, &guard);
    rule = nft_rule_begin(batch, table, guard.name);
    match_link(&rule, NFT_META_IIFNAME, SET_BRIDGES, false);
    nft_jump(&rule, containers.name);
    nft_rule_end(&rule);
    rule = nft_rule_begin(batch, table, guard.name);
    nft_meta(&rule, NFT_META_IIFNAME, REGISTER_A);
    nft_compare(&rule, NFT_CMP_NEQ, REGISTER_A, loopback, sizeof(loopback));
    match_loopback(&rule, IP_DESTINATION);
    finish_rule(&rule, NF_DROP);
}

static void add_strangers_of(struct netlink_batch *batch, const struct nft_table *table,
                             uint8_t family, enum map_index forwarded)
{
    struct nft_rule rule = nft_rule_begin(batch, table, strangers.name);

    match_family(&rule, family);
    match_link(&rule, NFT_META_IIFNAME, forwarded, true);
    finish_rule(&rule, NF_DROP);
}

/* What would pass through a machine that forwards for our sake only. */
static void add_strangers(struct netlink_batch *batch, const struct nft_table *table,
                          const struct net_forwarding *ours)
{
    static const uint32_t kinds[] = {NFT_META_IIFKIND, NFT_META_OIFKIND};
    struct nft_rule rule;

    nft_add_chain(batch, table, &strangers);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        rule = nft_rule_begin(batch, table, strangers.name);
        match_kind(&rule, kinds[i], "bridge");
        finish_rule(&rule, NF_ACCEPT);
    }
    if (ours->ipv4)
        add_strangers_of(batch, table, NFPROTO_IPV4, SET_FORWARDED);
    if (ours->ipv6)
        add_strangers_of(batch, table, NFPROTO_IPV6, SET_FORWARDED6);
}

/* Before what goes on is accepted: nothing goes on there. But between its containers, whose packets
 * come here by br_netfilter. */
static void add_internal(struct netlink_batch *batch, const struct nft_table *table)
{
    static const uint32_t keys[] = {NFT_META_IIFNAME, NFT_META_OIFNAME};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        struct nft_rule rule = nft_rule_begin(batch, table, isolate.name);

        match_link(&rule, keys[i], SET_INTERNAL, false);
        match_within(&rule, true);
        finish_rule(&rule, NF_DROP);
    }
}

static void add_isolate(struct netlink_batch *batch, const struct nft_table *table,
                        const struct net_forwarding *ours, bool has_internal)
{
    struct nft_rule rule;

    if (ours->ipv4 || ours->ipv6)
        add_strangers(batch, table, ours);
    nft_add_chain(batch, table, &isolate);
    if (has_internal)
        add_internal(batch, table);
    rule = nft_rule_begin(batch, table, isolate.name);
    match_conntrack(&rule, NFT_CT_STATE, STATE_ESTABLISHED | STATE_RELATED);
    finish_rule(&rule, NF_ACCEPT);
    rule = nft_rule_begin(batch, table, isolate.name);
    match_within(&rule, false);
    finish_rule(&rule, NF_ACCEPT);
    if (ours->ipv4 || ours->ipv6) {
        rule = nft_rule_begin(batch, table, isolate.name);
        match_link(&rule, NFT_META_OIFNAME, SET_BRIDGES, true);
        nft_jump(&rule, strangers.name);
        nft_rule_end(&rule);
    }
    rule = nft_rule_begin(batch, table, isolate.name);
    match_link(&rule, NFT_META_OIFNAME, SET_BRIDGES, true);
    finish_rule(&rule, NF_ACCEPT);
    rule = nft_rule_begin(batch, table, isolate.name);
    match_conntrack(&rule, NFT_CT_STATUS, IPS_DST_NAT);
    finish_rule(&rule, NF_ACCEPT);
    rule = nft_rule_begin(batch, table, isolate.name);
    finish_rule(&rule, NF_DROP);
}

/* The address and the port that a lookup left in the first registers. */
static void finish_dnat(struct nft_rule *rule, uint8_t family)
{
    nft_dnat(rule, family, REGISTER_A, family == NFPROTO_IPV6 ? REGISTER_E : REGISTER_B);
    nft_rule_end(rule);
}

static struct nft_rule begin_dnat(struct netlink_batch *batch, const struct nft_table *table,
                                  const char *chain, uint8_t family)
{
    struct nft_rule rule = nft_rule_begin(batch, table, chain);

    match_family(&rule, family);
    return rule;
}

static void add_dnat_of(struct netlink_batch *batch, const struct nft_table *table,
                        const char *chain, uint8_t family)
{
    const bool v6 = family == NFPROTO_IPV6;
    struct nft_rule rule = begin_dnat(batch, table, chain, family);

    nft_payload(&rule, NFT_PAYLOAD_NETWORK_HEADER, v6 ? IP6_DESTINATION : IP_DESTINATION,
                v6 ? 16 : 4, REGISTER_A);
    nft_meta(&rule, NFT_META_L4PROTO, v6 ? REGISTER_E : REGISTER_B);
    nft_payload(&rule, NFT_PAYLOAD_TRANSPORT_HEADER, TRANSPORT_DESTINATION_PORT, 2,
                v6 ? REGISTER_F : REGISTER_C);
    nft_lookup(&rule, maps[v6 ? MAP_AT6 : MAP_AT].name, REGISTER_A, REGISTER_A);
    finish_dnat(&rule, family);

    rule = begin_dnat(batch, table, chain, family);
    nft_meta(&rule, NFT_META_L4PROTO, REGISTER_A);
    nft_payload(&rule, NFT_PAYLOAD_TRANSPORT_HEADER, TRANSPORT_DESTINATION_PORT, 2, REGISTER_B);
    nft_lookup(&rule, maps[v6 ? MAP_ANYWHERE6 : MAP_ANYWHERE].name, REGISTER_A, REGISTER_A);
    finish_dnat(&rule, family);
}

static void add_dnat(struct netlink_batch *batch, const struct nft_table *table,
                     const struct nft_chain *chain)
{
    nft_add_chain(batch, table, chain);
    if (chain == &outbound) {
        struct nft_rule rule = nft_rule_begin(batch, table, chain->name);

        match_destination6(&rule, &in6addr_loopback);
        finish_rule(&rule, (uint32_t)NFT_RETURN);
    }
    struct nft_rule rule = nft_rule_begin(batch, table, chain->name);
    match_local(&rule, NFTA_FIB_F_DADDR, NFT_CMP_NEQ);
    finish_rule(&rule, (uint32_t)NFT_RETURN);
    add_dnat_of(batch, table, chain->name, NFPROTO_IPV4);
    add_dnat_of(batch, table, chain->name, NFPROTO_IPV6);
}

static void add_masquerade(struct netlink_batch *batch, const struct nft_table *table)
{
    struct nft_rule rule;

    nft_add_chain(batch, table, &masquerade);
    rule = nft_rule_begin(batch, table, masquerade.name);
    match_link(&rule, NFT_META_OIFNAME, SET_BRIDGES, false);
    match_loopback(&rule, IP_SOURCE);
    finish_masquerade(&rule);

    rule = nft_rule_begin(batch, table, masquerade.name);
    match_within(&rule, false);
    match_conntrack(&rule, NFT_CT_STATUS, IPS_DST_NAT);
    finish_masquerade(&rule);

    rule = nft_rule_begin(batch, table, masquerade.name);
    match_no_incoming_link(&rule);
    match_link(&rule, NFT_META_OIFNAME, SET_BRIDGES, false);
    match_conntrack(&rule, NFT_CT_STATUS, IPS_DST_NAT);
    match_local(&rule, NFTA_FIB_F_SADDR, NFT_CMP_NEQ);
    finish_masquerade(&rule);

    rule = nft_rule_begin(batch, table, masquerade.name);
    match_link(&rule, NFT_META_IIFNAME, SET_MASQUERADED, false);
    match_within(&rule, true);
    finish_masquerade(&rule);
}

static void add_maps(struct netlink_batch *batch, const struct net *net,
                     const struct nft_table *table)
{
    for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
        struct nft_map map = maps[i];

        map.id = MAP_ID_FIRST + (uint32_t)i;
        nft_add_map(batch, table, &map);
    }
    for (size_t i = 0; i < net->bridges_count; i++)
        add_bridge(batch, table, &net->bridges[i]->config);
    add_links(batch, table, SET_FORWARDED, net->forwarding.links);
    add_links(batch, table, SET_FORWARDED6, net->forwarding.links6);
    for (size_t i = 0; i < net->publications_count; i++)
        add_publication(batch, table, &net->publications[i]);
}

static bool has_internal(const struct net *net)
{
    for (size_t i = 0; i < net->bridges_count; i++) {
        if (net->bridges[i]->config.internal)
            return true;
    }
    return false;
}

static void add_removal(struct netlink_batch *batch, const struct nft_table *table)
{
    nft_add_table(batch, table); /* so that deleting it succeeds */
    nft_add_table_delete(batch, table);
}

int ruleset_replace(struct net *net, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    const struct nft_table table = table_of(net);
    const struct nft_table of_older_versions = {NFPROTO_IPV4, net->nft_table};

    nft_batch_begin(&batch);
    if (!net->rules_active)
        add_removal(&batch, &of_older_versions);
    add_removal(&batch, &table);
    nft_add_table(&batch, &table);
    add_maps(&batch, net, &table);
    add_guard(&batch, &table);
    add_isolate(&batch, &table, &net->forwarding, has_internal(net));
    add_dnat(&batch, &table, &inbound);
    add_dnat(&batch, &table, &outbound);
    add_masquerade(&batch, &table);
    nft_batch_end(&batch);
    int r = netlink_run(&net->nft, &batch, err);
    if (r < 0)
        error_context(err, "nftables table '%s'", net->nft_table);
    return r;
}

int ruleset_remove(struct net *net, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    const struct nft_table table = table_of(net);

    nft_batch_begin(&batch);
    add_removal(&batch, &table);
    nft_batch_end(&batch);
    return netlink_run(&net->nft, &batch, err);
}

int ruleset_publish(struct net *net, const struct net_publication *publication, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    const struct nft_table table = table_of(net);

    if (net_is_loopback6(publication))
        return 0;
    nft_batch_begin(&batch);
    add_publication(&batch, &table, publication);
    nft_batch_end(&batch);
    return netlink_run(&net->nft, &batch, err);
}

int ruleset_unpublish(struct net *net, const struct net_publication *publication, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    _cleanup_error_ struct error why = ERROR_INIT;
    const struct nft_table table = table_of(net);
    struct entry entry;
    int r;

    if (net_is_loopback6(publication))
        return 0;
    entry_init(&entry, publication, false);
    nft_batch_begin(&batch);
    nft_add_element_delete(&batch, &table, &entry.element);
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

    if (name && nft_message_family(message) == NFPROTO_INET &&
        text_starts_with(name, TABLE_PREFIX) && !text_equal(name, tables->own))
        strv_append(&tables->names, name);
}

struct key_search {
    const struct net_publication *wanted;
    bool found;
};

static void compare_key(const void *key, uint32_t size, void *data)
{
    struct key_search *search = data;
    struct net_publication here = *search->wanted;
    struct entry wanted;
    const uint8_t *bytes = key;
    size_t address = here.host_address.family == AF_INET6 ? 16 : 4;

    if (size != address + 2 * NFT_FIELD)
        return;
    if (net_ip_is_any(&here.host_address)) /* any address it may stand at counts */
        memcpy(&here.host_address.v4, bytes, address);
    if (net_ip_is_any(&here.host_address))
        return;
    entry_init(&wanted, &here, false);
    if (memcmp(bytes, wanted.key, size) == 0)
        search->found = true;
}

static void compare_keys(const struct nlmsghdr *message, void *data)
{
    nft_message_each_key(message, compare_key, data);
}

static void ignore_answer(const struct nlmsghdr *message, void *data)
{
}

static bool find_anywhere(struct net *net, const struct nft_table *table,
                          const struct net_publication *wanted)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct net_publication anywhere = *wanted;
    struct entry entry;

    memset(&anywhere.host_address.v6, 0, sizeof(anywhere.host_address.v6));
    entry_init(&entry, &anywhere, false);
    nft_add_element_get(&batch, table, &entry.element);
    return netlink_query(&net->nft, &batch, ignore_answer, NULL, NULL) == 0;
}

static bool find_at(struct net *net, const struct nft_table *table,
                    const struct net_publication *wanted)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct key_search search = {.wanted = wanted};
    const bool v6 = wanted->host_address.family == AF_INET6;

    nft_add_element_list(&batch, table, maps[v6 ? MAP_AT6 : MAP_AT].name);
    (void)netlink_query(&net->nft, &batch, compare_keys, &search, NULL);
    return search.found;
}

int ruleset_published_elsewhere(struct net *net, const struct net_publication *publication,
                                struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    struct other_tables tables = {.own = net->nft_table};
    int r;

    nft_add_table_list(&batch);
    r = netlink_query(&net->nft, &batch, collect_table, &tables, err);
    /* A table of this name without our maps is not an instance's: no answer is a no. */
    for (char **name = tables.names; r == 0 && name && *name; name++) {
        const struct nft_table table = {NFPROTO_INET, *name};

        r = find_anywhere(net, &table, publication) || find_at(net, &table, publication);
    }
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
        return message->nlmsg_pid != net->nft.port && nft_message_family(message) == NFPROTO_INET &&
               text_equal(nft_message_table(message), net->nft_table);
    default:
        return false;
    }
}
