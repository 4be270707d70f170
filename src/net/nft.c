#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "nft.h"

static uint16_t message_type(uint16_t type)
{
    return (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
}

static struct nlmsghdr *add(struct netlink_batch *batch, const char *what, uint8_t family,
                            uint16_t type, uint16_t flags)
{
    const struct nfgenmsg header = {.nfgen_family = family, .version = NFNETLINK_V0};

    return netlink_batch_add(batch, what, message_type(type), flags, &header, sizeof(header));
}

static void add_border(struct netlink_batch *batch, uint16_t type)
{
    const struct nfgenmsg header = {
        .nfgen_family = AF_UNSPEC,
        .version = NFNETLINK_V0,
        .res_id = htons(NFNL_SUBSYS_NFTABLES),
    };

    netlink_batch_add(batch, "change the rules", type, 0, &header, sizeof(header));
}

void nft_batch_begin(struct netlink_batch *batch)
{
    add_border(batch, NFNL_MSG_BATCH_BEGIN);
}

void nft_batch_end(struct netlink_batch *batch)
{
    struct nlmsghdr *last = (struct nlmsghdr *)(void *)(batch->data + batch->last);

    last->nlmsg_flags |= NLM_F_ACK;
    add_border(batch, NFNL_MSG_BATCH_END);
}

static void put_be32(struct nlmsghdr *message, uint16_t type, uint32_t value)
{
    mnl_attr_put_u32(message, type, htonl(value));
}

void nft_add_table(struct netlink_batch *batch, const struct nft_table *table)
{
    struct nlmsghdr *message =
        add(batch, "create the table", table->family, NFT_MSG_NEWTABLE, NLM_F_CREATE);

    mnl_attr_put_strz(message, NFTA_TABLE_NAME, table->name);
}

void nft_add_table_delete(struct netlink_batch *batch, const struct nft_table *table)
{
    struct nlmsghdr *message = add(batch, "delete the table", table->family, NFT_MSG_DELTABLE, 0);

    mnl_attr_put_strz(message, NFTA_TABLE_NAME, table->name);
}

void nft_add_chain_flush(struct netlink_batch *batch, const struct nft_table *table,
                         const char *chain)
{
    struct nlmsghdr *message = add(batch, "empty a chain", table->family, NFT_MSG_DELRULE, 0);

    mnl_attr_put_strz(message, NFTA_RULE_TABLE, table->name);
    mnl_attr_put_strz(message, NFTA_RULE_CHAIN, chain);
}

void nft_add_chain(struct netlink_batch *batch, const struct nft_table *table,
                   const struct nft_chain *chain)
{
    struct nlmsghdr *message =
        add(batch, "create a chain", table->family, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    struct nlattr *hook;

    mnl_attr_put_strz(message, NFTA_CHAIN_TABLE, table->name);
    mnl_attr_put_strz(message, NFTA_CHAIN_NAME, chain->name);
    if (!chain->type)
        return;
    hook = mnl_attr_nest_start(message, NFTA_CHAIN_HOOK);
    put_be32(message, NFTA_HOOK_HOOKNUM, chain->hook);
    put_be32(message, NFTA_HOOK_PRIORITY, (uint32_t)chain->priority);
    mnl_attr_nest_end(message, hook);
    put_be32(message, NFTA_CHAIN_POLICY, NF_ACCEPT);
    mnl_attr_put_strz(message, NFTA_CHAIN_TYPE, chain->type);
}

/* What the nft program needs to know for its listing: the bytes of a name stand in the machine's
 * order (libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER: type, length, nftables' BYTEORDER_HOST_ENDIAN).
 */
static void put_key_byte_order(struct nlmsghdr *message)
{
    static const struct __attribute__((packed)) {
        uint8_t type, length;
        uint32_t value;
    } note = {0, sizeof(uint32_t), 1};

    mnl_attr_put(message, NFTA_SET_USERDATA, sizeof(note), &note);
}

void nft_add_map(struct netlink_batch *batch, const struct nft_table *table,
                 const struct nft_map *map)
{
    struct nlmsghdr *message =
        add(batch, "create a map", table->family, NFT_MSG_NEWSET, NLM_F_CREATE);

    mnl_attr_put_strz(message, NFTA_SET_TABLE, table->name);
    mnl_attr_put_strz(message, NFTA_SET_NAME, map->name);
    put_be32(message, NFTA_SET_ID, map->id);
    put_be32(message, NFTA_SET_FLAGS,
             (map->data_type ? NFT_SET_MAP : 0) |
                 (map->timeout_ms ? NFT_SET_TIMEOUT | NFT_SET_EVAL : 0));
    put_be32(message, NFTA_SET_KEY_TYPE, map->key_type);
    put_be32(message, NFTA_SET_KEY_LEN, map->key_size);
    if (map->key_type == NFT_TYPE_LINK_NAME)
        put_key_byte_order(message);
    if (map->data_type) {
        put_be32(message, NFTA_SET_DATA_TYPE, map->data_type);
        put_be32(message, NFTA_SET_DATA_LEN, map->data_size);
    }
    if (map->timeout_ms) {
        struct nlattr *description = mnl_attr_nest_start(message, NFTA_SET_DESC);

        put_be32(message, NFTA_SET_DESC_SIZE, map->size);
        mnl_attr_nest_end(message, description);
        mnl_attr_put_u64(message, NFTA_SET_TIMEOUT, htobe64(map->timeout_ms));
    }
}

static void put_value(struct nlmsghdr *message, uint16_t type, const void *value, uint32_t size)
{
    struct nlattr *data = mnl_attr_nest_start(message, type);

    mnl_attr_put(message, NFTA_DATA_VALUE, size, value);
    mnl_attr_nest_end(message, data);
}

static void put_element(struct nlmsghdr *message, const struct nft_table *table,
                        const struct nft_element *element)
{
    struct nlattr *list, *item;

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table->name);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, element->map);
    list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    item = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
    put_value(message, NFTA_SET_ELEM_KEY, element->key, element->key_size);
    if (element->data)
        put_value(message, NFTA_SET_ELEM_DATA, element->data, element->data_size);
    mnl_attr_nest_end(message, item);
    mnl_attr_nest_end(message, list);
}

void nft_add_element(struct netlink_batch *batch, const struct nft_table *table,
                     const struct nft_element *element)
{
    put_element(add(batch, "add a map element", table->family, NFT_MSG_NEWSETELEM, NLM_F_CREATE),
                table, element);
}

void nft_add_element_delete(struct netlink_batch *batch, const struct nft_table *table,
                            const struct nft_element *element)
{
    put_element(add(batch, "remove a map element", table->family, NFT_MSG_DELSETELEM, 0), table,
                element);
}

struct nft_rule nft_rule_begin(struct netlink_batch *batch, const struct nft_table *table,
                               const char *chain)
{
    struct nft_rule rule;

    rule.message =
        add(batch, "create a rule", table->family, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    mnl_attr_put_strz(rule.message, NFTA_RULE_TABLE, table->name);
    mnl_attr_put_strz(rule.message, NFTA_RULE_CHAIN, chain);
    rule.expressions = mnl_attr_nest_start(rule.message, NFTA_RULE_EXPRESSIONS);
    return rule;
}

void nft_rule_end(struct nft_rule *rule)
{
    mnl_attr_nest_end(rule->message, rule->expressions);
}

struct expression {
    struct nlattr *item;
    struct nlattr *data;
};

static struct expression expression_begin(struct nft_rule *rule, const char *name)
{
    struct expression expression;

    expression.item = mnl_attr_nest_start(rule->message, NFTA_LIST_ELEM);
    mnl_attr_put_strz(rule->message, NFTA_EXPR_NAME, name);
    expression.data = mnl_attr_nest_start(rule->message, NFTA_EXPR_DATA);
    return expression;
}

static void expression_end(struct nft_rule *rule, struct expression *expression)
{
    mnl_attr_nest_end(rule->message, expression->data);
    mnl_attr_nest_end(rule->message, expression->item);
}

void nft_meta(struct nft_rule *rule, uint32_t key, uint32_t to_register)
{
    struct expression expression = expression_begin(rule, "meta");

    put_be32(rule->message, NFTA_META_KEY, key);
    put_be32(rule->message, NFTA_META_DREG, to_register);
    expression_end(rule, &expression);
}

void nft_payload(struct nft_rule *rule, uint32_t base, uint32_t offset, uint32_t size,
                 uint32_t to_register)
{
    struct expression expression = expression_begin(rule, "payload");

    put_be32(rule->message, NFTA_PAYLOAD_DREG, to_register);
    put_be32(rule->message, NFTA_PAYLOAD_BASE, base);
    put_be32(rule->message, NFTA_PAYLOAD_OFFSET, offset);
    put_be32(rule->message, NFTA_PAYLOAD_LEN, size);
    expression_end(rule, &expression);
}

void nft_conntrack(struct nft_rule *rule, uint32_t key, uint32_t to_register)
{
    struct expression expression = expression_begin(rule, "ct");

    put_be32(rule->message, NFTA_CT_KEY, key);
    put_be32(rule->message, NFTA_CT_DREG, to_register);
    expression_end(rule, &expression);
}

void nft_fib_type(struct nft_rule *rule, uint32_t flag, uint32_t to_register)
{
    struct expression expression = expression_begin(rule, "fib");

    put_be32(rule->message, NFTA_FIB_DREG, to_register);
    put_be32(rule->message, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    put_be32(rule->message, NFTA_FIB_FLAGS, flag);
    expression_end(rule, &expression);
}

void nft_fib_source_link(struct nft_rule *rule, uint32_t to_register)
{
    struct expression expression = expression_begin(rule, "fib");

    put_be32(rule->message, NFTA_FIB_DREG, to_register);
    put_be32(rule->message, NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF);
    put_be32(rule->message, NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF);
    expression_end(rule, &expression);
}

void nft_mask(struct nft_rule *rule, uint32_t in_register, uint32_t mask)
{
    const uint32_t nothing = 0;
    struct expression expression = expression_begin(rule, "bitwise");

    put_be32(rule->message, NFTA_BITWISE_SREG, in_register);
    put_be32(rule->message, NFTA_BITWISE_DREG, in_register);
    put_be32(rule->message, NFTA_BITWISE_LEN, sizeof(mask));
    put_value(rule->message, NFTA_BITWISE_MASK, &mask, sizeof(mask));
    put_value(rule->message, NFTA_BITWISE_XOR, &nothing, sizeof(nothing));
    expression_end(rule, &expression);
}

void nft_compare(struct nft_rule *rule, uint32_t operation, uint32_t in_register, const void *value,
                 uint32_t size)
{
    struct expression expression = expression_begin(rule, "cmp");

    put_be32(rule->message, NFTA_CMP_SREG, in_register);
    put_be32(rule->message, NFTA_CMP_OP, operation);
    put_value(rule->message, NFTA_CMP_DATA, value, size);
    expression_end(rule, &expression);
}

void nft_load(struct nft_rule *rule, uint32_t to_register, const void *value, uint32_t size)
{
    struct expression expression = expression_begin(rule, "immediate");

    put_be32(rule->message, NFTA_IMMEDIATE_DREG, to_register);
    put_value(rule->message, NFTA_IMMEDIATE_DATA, value, size);
    expression_end(rule, &expression);
}

void nft_lookup(struct nft_rule *rule, const char *map, uint32_t key_register, uint32_t to_register)
{
    struct expression expression = expression_begin(rule, "lookup");

    mnl_attr_put_strz(rule->message, NFTA_LOOKUP_SET, map);
    put_be32(rule->message, NFTA_LOOKUP_SREG, key_register);
    put_be32(rule->message, NFTA_LOOKUP_DREG, to_register);
    expression_end(rule, &expression);
}

void nft_member(struct nft_rule *rule, const char *set, uint32_t key_register, bool inverted)
{
    struct expression expression = expression_begin(rule, "lookup");

    mnl_attr_put_strz(rule->message, NFTA_LOOKUP_SET, set);
    put_be32(rule->message, NFTA_LOOKUP_SREG, key_register);
    put_be32(rule->message, NFTA_LOOKUP_FLAGS, inverted ? NFT_LOOKUP_F_INV : 0);
    expression_end(rule, &expression);
}

static void put_verdict(struct nft_rule *rule, uint32_t code, const char *chain)
{
    struct expression expression = expression_begin(rule, "immediate");
    struct nlattr *data, *verdict;

    put_be32(rule->message, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    data = mnl_attr_nest_start(rule->message, NFTA_IMMEDIATE_DATA);
    verdict = mnl_attr_nest_start(rule->message, NFTA_DATA_VERDICT);
    put_be32(rule->message, NFTA_VERDICT_CODE, code);
    if (chain)
        mnl_attr_put_strz(rule->message, NFTA_VERDICT_CHAIN, chain);
    mnl_attr_nest_end(rule->message, verdict);
    mnl_attr_nest_end(rule->message, data);
    expression_end(rule, &expression);
}

void nft_verdict(struct nft_rule *rule, uint32_t verdict)
{
    put_verdict(rule, verdict, NULL);
}

void nft_jump(struct nft_rule *rule, const char *chain)
{
    put_verdict(rule, (uint32_t)NFT_JUMP, chain);
}

void nft_masquerade(struct nft_rule *rule)
{
    struct expression expression = expression_begin(rule, "masq");

    expression_end(rule, &expression);
}

void nft_dnat(struct nft_rule *rule, uint32_t family, uint32_t address_register,
              uint32_t port_register)
{
    struct expression expression = expression_begin(rule, "nat");

    put_be32(rule->message, NFTA_NAT_TYPE, NFT_NAT_DNAT);
    put_be32(rule->message, NFTA_NAT_FAMILY, family);
    put_be32(rule->message, NFTA_NAT_REG_ADDR_MIN, address_register);
    put_be32(rule->message, NFTA_NAT_REG_PROTO_MIN, port_register);
    expression_end(rule, &expression);
}

void nft_add_table_list(struct netlink_batch *batch)
{
    add(batch, "list the tables", NFPROTO_UNSPEC, NFT_MSG_GETTABLE, NLM_F_DUMP);
}

void nft_add_element_get(struct netlink_batch *batch, const struct nft_table *table,
                         const struct nft_element *element)
{
    put_element(add(batch, "look a map element up", table->family, NFT_MSG_GETSETELEM, 0), table,
                element);
}

void nft_add_element_list(struct netlink_batch *batch, const struct nft_table *table,
                          const char *map)
{
    struct nlmsghdr *message =
        add(batch, "list a map's elements", table->family, NFT_MSG_GETSETELEM, NLM_F_DUMP);

    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table->name);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, map);
}

int nft_message_type(const struct nlmsghdr *message)
{
    if (message->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES ||
        mnl_nlmsg_get_payload_len(message) < sizeof(struct nfgenmsg))
        return -1;
    return message->nlmsg_type & 0xff;
}

/* Attribute 1 is the table's name in the messages of every kind of object. */
_Static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 &&
                   NFTA_SET_TABLE == 1 && NFTA_SET_ELEM_LIST_TABLE == 1,
               "the attribute of the table differs");

uint8_t nft_message_family(const struct nlmsghdr *message)
{
    const struct nfgenmsg *header = mnl_nlmsg_get_payload(message);

    return header->nfgen_family;
}

const char *nft_message_table(const struct nlmsghdr *message)
{
    const struct nlattr *attribute;

    netlink_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) == NFTA_TABLE_NAME &&
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0)
            return mnl_attr_get_str(attribute);
    }
    return NULL;
}

static const struct nlattr *find_nested(const struct nlattr *parent, uint16_t type)
{
    const struct nlattr *attribute;

    netlink_for_each_nested(attribute, parent)
    {
        if (mnl_attr_get_type(attribute) == type)
            return attribute;
    }
    return NULL;
}

void nft_message_each_key(const struct nlmsghdr *message, nft_key_handler *handle, void *data)
{
    const struct nlattr *attribute, *element;

    netlink_for_each(attribute, message, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        netlink_for_each_nested(element, attribute)
        {
            const struct nlattr *key = find_nested(element, NFTA_SET_ELEM_KEY);
            const struct nlattr *value = key ? find_nested(key, NFTA_DATA_VALUE) : NULL;

            if (value)
                handle(mnl_attr_get_payload(value), mnl_attr_get_payload_len(value), data);
        }
    }
}
