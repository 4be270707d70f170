/*
 * What a struct net is made of. Private to the module; each part is used by the file named.
 */
#ifndef NET_STATE_H
#define NET_STATE_H

#include <net/net.h>

#include "netlink.h"

/* A network namespace of our making, with lo up (namespace.c). */
struct namespace
{
    int fd;               /* owned; -1 when moved out */
    struct netlink route; /* rtnetlink inside of it; closed before it is given away, since it keeps
                           * the namespace like a descriptor does */
};

struct net_bridge {
    struct net_bridge_config config; /* its name is owned */
    unsigned index;                  /* 0 until it is set up */
};

/* Whether it is we who made the machine forward, and what it forwarded before: packets that came by
 * links with a switch of their own. */
struct net_forwarding {
    bool ipv4, ipv6;
    char **links, **links6; /* owned lists of names */
};

/* A port whose socket was closed here, while another process may still have it. */
struct net_released {
    enum net_protocol protocol;
    uint16_t family;
    uint16_t port;
    uint64_t at_ms;
};

enum { NET_RELEASED_MAX = 1024 };

struct net {
    char *nft_table;

    int own_netns;        /* where every call begins and ends (namespace.c) */
    struct netlink route; /* links, addresses, routes of the host (link.c) */
    struct netlink nft;   /* rules (ruleset.c), flows (conntrack.c) */
    struct netlink watch; /* notifications about rules (net.c) */
    bool rules_active;    /* between net_setup() and net_teardown(): the table has to exist */

    char *outside;    /* owned; the socket of net_outside_serve(); NULL: the machine is here */
    char *state_file; /* owned; NULL: what we switched on is not remembered */
    struct net_forwarding forwarding;

    struct net_bridge **bridges; /* owned array (bridge.c) */
    size_t bridges_count;

    struct namespace spare[NET_SPARE_NAMESPACES_MAX];
    unsigned spare_count;

    net_is_taken *is_taken; /* NULL: nobody else publishes */
    void *is_taken_data;
    struct net_publication *publications; /* owned array (publish.c) */
    int *holds;                           /* of each, its socket (hold.h), or -1 */
    size_t publications_count;
    size_t publications_capacity;
    struct net_released released[NET_RELEASED_MAX]; /* the last ones */
    size_t released_next;
    uint16_t next_port; /* where the search for a free host port goes on */
};

/* forwarding.c. _read: what an earlier net has remembered. _prepare: before the rules are made and
 * switches turned: which of them will be our doing. _give_back: when bridges and rules are gone. */
void forwarding_read(struct net *net);
int forwarding_prepare(struct net *net, struct error *err);
void forwarding_give_back(struct net *net);
void forwarding_finish(struct net_forwarding *forwarding);

/* publish.c: of the whole instance. */
void publications_forget(struct net *net);

/* bridge.c: makes link, addresses and switches what they must be. */
int bridge_set_up(struct net *net, struct net_bridge *bridge, struct error *err);
int bridge_delete(struct net *net, const char *name, struct error *err);
void bridge_free(struct net_bridge *bridge);

#endif
