/*
 * The few nf_tables messages and expressions that our rulesets need (linux/netfilter/nf_tables.h).
 * Each add_ function composes one message of a batch between
 * nft_batch_begin() and nft_batch_end(): the kernel makes all of it true at once, or nothing.
 */
#ifndef NET_NFT_H
#define NET_NFT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "netlink.h"

/* A table and its family: NFPROTO_INET (rules for IPv4 and IPv6) or NFPROTO_IPV4. */
struct nft_table {
    uint8_t family;
    const char *name;
};

void nft_batch_begin(struct netlink_batch *batch);
void nft_batch_end(struct netlink_batch *batch); /* the last message before it is acknowledged */

void nft_add_table(struct netlink_batch *batch, const struct nft_table *table); /* may exist */
void nft_add_table_delete(struct netlink_batch *batch, const struct nft_table *table);

struct nft_chain {
    const char *name;
    const char *type; /* "filter", "nat"; NULL: no hook, jumped to */
    uint32_t hook;    /* NF_INET_PRE_ROUTING ... */
    int32_t priority;
};
/* Takes all rules out of it. */
void nft_add_chain_flush(struct netlink_batch *batch, const struct nft_table *table,
                         const char *chain);
void nft_add_chain(struct netlink_batch *batch, const struct nft_table *table,
                   const struct nft_chain *chain);

/* nft's names of types, for the `nft` program's listings: the kernel only keeps them. Several are
 * joined to one number, the first in the highest bits. */
enum nft_type {
    NFT_TYPE_IPV4_ADDRESS = 7,
    NFT_TYPE_IPV6_ADDRESS = 8,
    NFT_TYPE_PROTOCOL = 12,
    NFT_TYPE_SERVICE = 13,
    NFT_TYPE_LINK_NAME = 41,
    NFT_TYPE_BITS = 6,
};

enum { NFT_FIELD = 4 }; /* bytes: every part of a key or value fills 32-bit registers */

struct nft_map {
    const char *name;
    uint32_t id;        /* unique in the batch */
    uint32_t key_type;  /* joined enum nft_type */
    uint32_t key_size;  /* bytes */
    uint32_t data_type; /* 0: a set, without data */
    uint32_t data_size;
    uint32_t timeout_ms; /* not 0: rules add elements (nft_remember), which go after this time */
    uint32_t size;       /* elements at most; with a timeout only */
};
void nft_add_map(struct netlink_batch *batch, const struct nft_table *table,
                 const struct nft_map *map);

struct nft_element {
    const char *map;
    const void *key;
    const void *data; /* NULL when deleting or asking */
    uint32_t key_size;
    uint32_t data_size;
};
void nft_add_element(struct netlink_batch *batch, const struct nft_table *table,
                     const struct nft_element *element);
void nft_add_element_delete(struct netlink_batch *batch, const struct nft_table *table,
                            const struct nft_element *element);

/* A rule: begin, expressions in the order they are to be evaluated, end. A comparison that does not
 * hold ends the rule's evaluation. Registers are NFT_REG32_00 and up, 4 bytes each. */
struct nft_rule {
    struct nlmsghdr *message;
    struct nlattr *expressions;
};
struct nft_rule nft_rule_begin(struct netlink_batch *batch, const struct nft_table *table,
                               const char *chain);
void nft_rule_end(struct nft_rule *rule);

void nft_meta(struct nft_rule *rule, uint32_t key, uint32_t to_register);
void nft_payload(struct nft_rule *rule, uint32_t base, uint32_t offset, uint32_t size,
                 uint32_t to_register);
void nft_conntrack(struct nft_rule *rule, uint32_t key, uint32_t to_register); /* NFT_CT_... */
/* flag: NFTA_FIB_F_DADDR or NFTA_FIB_F_SADDR. */
void nft_fib_type(struct nft_rule *rule, uint32_t flag, uint32_t to_register);
/* Index of the link that answers to the source go by, if that is the one it came in by; else 0. */
void nft_fib_source_link(struct nft_rule *rule, uint32_t to_register);
/* mask: in the byte order that the register holds. */
void nft_mask(struct nft_rule *rule, uint32_t in_register, uint32_t mask);
void nft_compare(struct nft_rule *rule, uint32_t operation, uint32_t in_register, const void *value,
                 uint32_t size);
/* Puts a constant of at most 16 bytes into a register. */
void nft_load(struct nft_rule *rule, uint32_t to_register, const void *value, uint32_t size);
void nft_lookup(struct nft_rule *rule, const char *map, uint32_t key_register,
                uint32_t to_register);
/* Whether the key is in a set, or (inverted) is not. */
void nft_member(struct nft_rule *rule, const char *set, uint32_t key_register, bool inverted);
void nft_verdict(struct nft_rule *rule, uint32_t verdict); /* NF_ACCEPT, NF_DROP */
void nft_jump(struct nft_rule *rule, const char *chain);
void nft_masquerade(struct nft_rule *rule);
/* family: NFPROTO_IPV4 or NFPROTO_IPV6. */
void nft_dnat(struct nft_rule *rule, uint32_t family, uint32_t address_register,
              uint32_t port_register);

/* Requests outside of batches. */
void nft_add_table_list(struct netlink_batch *batch);
void nft_add_element_get(struct netlink_batch *batch, const struct nft_table *table,
                         const struct nft_element *element);
void nft_add_element_list(struct netlink_batch *batch, const struct nft_table *table,
                          const char *map);

/* What a message is about: the type without the subsystem (NFT_MSG_...), or -1 when it is none of
 * nf_tables; its family; and the table it names, or NULL. */
int nft_message_type(const struct nlmsghdr *message);
uint8_t nft_message_family(const struct nlmsghdr *message);
const char *nft_message_table(const struct nlmsghdr *message);

/* Calls handle for the key of each element in an answer to a get or list request. */
typedef void nft_key_handler(const void *key, uint32_t size, void *data);
void nft_message_each_key(const struct nlmsghdr *message, nft_key_handler *handle, void *data);

#endif
