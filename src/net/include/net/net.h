/*
 * The network of an instance: a bridge with an IPv4 subnet, containers on it by veth pairs,
 * masquerade towards the outside, and published ports by DNAT from nftables maps. Everything is
 * done by netlink; no program is executed and no process stands between a client and a container,
 * so that all of it works while no daemon lives.
 *
 * One struct net belongs to one thread. Calls block only for the kernel's synchronous answer
 * (microseconds to about one millisecond; each says how long), never for another process. They
 * need CAP_NET_ADMIN, and CAP_SYS_ADMIN for new network namespaces.
 *
 * What a daemon does, in order:
 *     net_choose_subnet()                  unless the subnet is on record
 *     net_open()
 *     net_restore_publication() ...        for each port of each container that runs on (adoption)
 *     net_setup()                          bridge and rules as they must be
 *     net_poll_fd() into the event loop -> net_dispatch()
 *     net_endpoint_create(), net_publish() for each container that starts
 *     net_unpublish() when it has ended
 *     net_close(), or net_teardown() and net_close() when the instance goes
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <net/address.h>

enum {
    NET_PUBLICATIONS_MAX = 8192, /* published ports of an instance */
    NET_SPARE_NAMESPACES_MAX = 16,
    NET_TABLE_NAME_MAX = 31, /* bytes */
    NET_MTU_DEFAULT = 1500,
};

struct net;

struct net_config {
    const char *bridge;       /* name of the bridge, below IFNAMSIZ bytes; copied */
    const char *nft_table;    /* name of our table of family ip; copied */
    struct net_subnet subnet; /* see net_choose_subnet() */
    uint32_t mtu;             /* of bridge and containers, bytes; 0: NET_MTU_DEFAULT */
};

/*
 * The subnet for an instance. When a bridge of this name exists and has an IPv4 address, that one,
 * so that containers of an earlier daemon keep theirs. Else one of the /20 of 172.20.0.0 -
 * 172.31.255.255 and 192.168.0.0/16, by the hash of the bridge's name (which derives from the
 * instance's), skipping what overlaps an address or a route of this machine other than the default
 * route. The gateway is its first address. -EADDRNOTAVAIL when everything overlaps.
 * Blocks for three netlink dumps (0.1 ms with a usual number of routes).
 */
int net_choose_subnet(const char *bridge, struct net_subnet *ret, struct error *err);

/* Opens the netlink sockets, in the caller's network namespace, and subscribes to changes of the
 * rules. Changes nothing. -EINVAL: a name or the prefix is out of its limits. */
int net_open(const struct net_config *config, struct net **ret, struct error *err);

/* Closes the sockets and drops the spare namespaces. Bridge, rules and containers stay and work.
 * NULL allowed. */
void net_close(struct net *net);

/*
 * Makes bridge, forwarding and rules what they must be, whatever was there before: creates the
 * bridge or repairs its address, flags and settings, and replaces our table as a whole, in one
 * transaction, with one that holds exactly the publications known to net (connections that exist go
 * on). Idempotent; call it again at any time. Nothing outside of our bridge and our table is
 * touched, but /proc/sys/net/ipv4/ip_forward is set to 1. 1 to 30 ms.
 *
 * -EEXIST: a link of the bridge's name exists and is no bridge.
 */
int net_setup(struct net *net, struct error *err);

/* Removes the table and the bridge (instance removal; containers must be gone). What is not there
 * is no error. Forwarding stays on, since others may rely on it by now. Publications are forgotten.
 * 20 to 30 ms. */
int net_teardown(struct net *net, struct error *err);

/* Readable when somebody changed the machine's rules. Owned by net; poll for POLLIN, level
 * triggered. */
int net_poll_fd(const struct net *net);

/* Reads what happened; when somebody removed parts of our table (`nft flush ruleset`), builds it
 * again with all publications. Returns 1 when it did, 0 when nothing was to be done, -errno when
 * the table could not be built (call net_setup() later). Never waits for messages. */
int net_dispatch(struct net *net, struct error *err);

/* --- a container's own network ---------------------------------------------------------------- */

struct net_endpoint {
    struct in_addr address; /* from the subnet; also decides the MAC address (net_address_mac) */
    const char *link_name;  /* wanted name of the host's end, below IFNAMSIZ bytes, e.g. "v" and 8
                             * digits of the container's ID; another one is taken when it exists */
};

/*
 * A new network namespace with lo and eth0 (the address, default route by the gateway), whose other
 * end is a port of the bridge. *ret_netns_fd (close-on-exec) is the caller's: the namespace lives
 * as long as somebody holds it (a descriptor, a bind mount, a process in it), and everything goes
 * with it: nothing has to be deleted, and nothing should be (RTM_DELLINK blocks 20-30 ms).
 * About 1 ms; half of it with a spare namespace. net_setup() must have succeeded.
 */
int net_endpoint_create(struct net *net, const struct net_endpoint *endpoint, int *ret_netns_fd,
                        struct error *err);

/* The same with lo only (--network none). */
int net_endpoint_create_none(struct net *net, int *ret_netns_fd, struct error *err);

/* Makes one spare namespace for later endpoints when there are fewer than `wanted` (at most
 * NET_SPARE_NAMESPACES_MAX): 0.5 ms, for an idle moment of the event loop. Returns 1 when there is
 * more to make, 0 when there are enough, -errno. */
int net_prepare_spare(struct net *net, unsigned wanted, struct error *err);

/* --- published ports -------------------------------------------------------------------------- */

enum net_protocol {
    NET_TCP = IPPROTO_TCP,
    NET_UDP = IPPROTO_UDP,
    NET_SCTP = IPPROTO_SCTP,
};

struct net_publication {
    enum net_protocol protocol;
    struct in_addr host_address; /* INADDR_ANY: every address of the host, 127.0.0.1 too */
    uint16_t host_port;          /* host byte order; 0 in net_publish(): choose one */
    struct in_addr container_address;
    uint16_t container_port; /* host byte order */
};

/*
 * Makes the port reachable: from outside, from containers, from the host by its addresses and by
 * 127.0.0.1. A host_port of 0 is replaced in *publication by a free one of the machine's ephemeral
 * range (net.ipv4.ip_local_port_range). About 20 us; UDP up to
 * 1 ms more, since flows to the port that began before are made to reach the container.
 *
 * -EADDRINUSE: the port is published already, by this or another instance ("port is already
 * allocated"), or a process on the host is bound to it ("address already in use"). The latter is
 * tried by binding to it for a moment; the port is not held afterwards, and a process that binds to
 * it later is not reached from outside: the publication wins.
 * -EADDRNOTAVAIL: host_address is no address of this host. -EINVAL: no container port or address.
 */
int net_publish(struct net *net, struct net_publication *publication, struct error *err);

/* Records a publication that a container has since before this net was opened. Nothing is asked and
 * nothing is written until the next net_setup(). -EADDRINUSE when it contradicts another one. */
int net_restore_publication(struct net *net, const struct net_publication *publication,
                            struct error *err);

/* Takes it back; the same values as given to net_publish(), with the port it returned. Connections
 * that exist end with the container. What is not published is no error. About 10 us. */
int net_unpublish(struct net *net, const struct net_publication *publication, struct error *err);

#endif
