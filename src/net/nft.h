/*
 * The few nf_tables messages and expressions that our ruleset needs (linux/netfilter/nf_tables.h).
 * Everything is of family ip. Each add_ function composes one message of a batch between
 * nft_batch_begin() and nft_batch_end(): the kernel makes all of it true at once, or nothing.
 */
#ifndef NET_NFT_H
#define NET_NFT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "netlink.h"

void nft_batch_begin(struct netlink_batch *batch);
void nft_batch_end(struct netlink_batch *batch); /* the last message before it is acknowledged */

void nft_add_table(struct netlink_batch *batch, const char *table); /* may exist */
void nft_add_table_delete(struct netlink_batch *batch, const char *table);

struct nft_chain {
    const char *name;
    const char *type; /* "filter", "nat" */
    uint32_t hook;    /* NF_INET_PRE_ROUTING ... */
    int32_t priority;
};
void nft_add_chain(struct netlink_batch *batch, const char *table, const struct nft_chain *chain);

/* nft's names of types, for the `nft` program's listings: the kernel only keeps them. Several are
 * joined to one number, the first in the highest bits. */
enum nft_type {
    NFT_TYPE_IPV4_ADDRESS = 7,
    NFT_TYPE_PROTOCOL = 12,
    NFT_TYPE_SERVICE = 13,
    NFT_TYPE_BITS = 6,
};

enum { NFT_FIELD = 4 }; /* bytes: every part of a key or value fills 32-bit registers */

struct nft_map {
    const char *name;
    uint32_t id;       /* unique in the batch */
    uint32_t key_type; /* joined enum nft_type */
    uint32_t key_size; /* bytes */
    uint32_t data_type;
    uint32_t data_size;
};
void nft_add_map(struct netlink_batch *batch, const char *table, const struct nft_map *map);

struct nft_element {
    const char *map;
    const void *key;
    const void *data; /* NULL when deleting or asking */
    uint32_t key_size;
    uint32_t data_size;
};
void nft_add_element(struct netlink_batch *batch, const char *table,
                     const struct nft_element *element);
void nft_add_element_delete(struct netlink_batch *batch, const char *table,
                            const struct nft_element *element);

/* A rule: begin, expressions in the order they are to be evaluated, end. A comparison that does not
 * hold ends the rule's evaluation. Registers are NFT_REG32_00 and up, 4 bytes each. */
struct nft_rule {
    struct nlmsghdr *message;
    struct nlattr *expressions;
};
struct nft_rule nft_rule_begin(struct netlink_batch *batch, const char *table, const char *chain);
void nft_rule_end(struct nft_rule *rule);

void nft_meta(struct nft_rule *rule, uint32_t key, uint32_t to_register);
void nft_payload(struct nft_rule *rule, uint32_t base, uint32_t offset, uint32_t size,
                 uint32_t to_register);
void nft_conntrack_status(struct nft_rule *rule, uint32_t to_register);
void nft_fib_daddr_type(struct nft_rule *rule, uint32_t to_register);
/* mask: in the byte order that the register holds. */
void nft_mask(struct nft_rule *rule, uint32_t in_register, uint32_t mask);
void nft_compare(struct nft_rule *rule, uint32_t operation, uint32_t in_register, const void *value,
                 uint32_t size);
void nft_lookup(struct nft_rule *rule, const char *map, uint32_t key_register,
                uint32_t to_register);
void nft_drop(struct nft_rule *rule);
void nft_masquerade(struct nft_rule *rule);
void nft_dnat(struct nft_rule *rule, uint32_t address_register, uint32_t port_register);

/* Requests outside of batches. */
void nft_add_table_list(struct netlink_batch *batch);
void nft_add_element_get(struct netlink_batch *batch, const char *table,
                         const struct nft_element *element);
void nft_add_element_list(struct netlink_batch *batch, const char *table, const char *map);

/* What a message is about: the type without the subsystem (NFT_MSG_...), or -1 when it is none of
 * nf_tables; and the table of family ip it names, or NULL. */
int nft_message_type(const struct nlmsghdr *message);
const char *nft_message_table(const struct nlmsghdr *message);

/* Calls handle for the key of each element in an answer to a get or list request. */
typedef void nft_key_handler(const void *key, uint32_t size, void *data);
void nft_message_each_key(const struct nlmsghdr *message, nft_key_handler *handle, void *data);

#endif
