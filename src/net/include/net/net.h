/*
 * The networks of an instance: bridges with an IPv4 and perhaps an IPv6 subnet, containers on them
 * by veth pairs, masquerade towards the outside, isolation between bridges, and published ports by
 * DNAT from nftables maps. Everything is done by netlink; no program is executed and no process
 * stands between a client and a container, so that all of it works while no daemon lives.
 *
 * One struct net belongs to one thread. Calls block only for the kernel's synchronous answer
 * (microseconds to about one millisecond; each says how long), never for another process. They
 * need CAP_NET_ADMIN, and CAP_SYS_ADMIN for new network namespaces.
 *
 * What a daemon does, in order:
 *     net_open()
 *     net_choose_subnet()                  for a network whose subnet is not on record
 *     net_bridge_add() ...                 for each network
 *     net_restore_publication() ...        for each port of each container that runs on (adoption)
 *     net_setup()                          bridges and rules as they must be
 *     net_poll_fd() into the event loop -> net_dispatch()
 *     net_endpoint_create(), net_publish() for each container that starts
 *     net_unpublish() when it has ended
 *     net_close(), or net_teardown() and net_close() when the instance goes
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <net/address.h>

enum {
    NET_PUBLICATIONS_MAX = 8192, /* published ports of an instance */
    NET_BRIDGES_MAX = 1024,      /* networks of an instance */
    NET_INTERFACES_MAX = 64,     /* of one container */
    NET_LINK_LOCAL_MAX = 4,      /* addresses of one interface */
    NET_LINK_LOCAL_PREFIX = 16,
    NET_SPARE_NAMESPACES_MAX = 16,
    NET_TABLE_NAME_MAX = 31, /* bytes */
    NET_MTU_DEFAULT = 1500,
};

struct net;
struct net_bridge; /* owned by its net; valid until net_bridge_remove() or net_close() */

/*
 * The subnet for a network. When a bridge of this name exists and has an IPv4 address, that one,
 * so that containers of an earlier daemon keep theirs. Else one of the /20 of 172.20.0.0 -
 * 172.31.255.255 and 192.168.0.0/16, by the hash of the bridge's name (which derives from the
 * instance's), skipping what overlaps an address or a route of this machine other than the default
 * route, or one of net's bridges (NULL: none). The gateway is its first address. -EADDRNOTAVAIL
 * when everything overlaps. Blocks for three netlink dumps (0.1 ms with a usual number of routes).
 */
int net_choose_subnet(const struct net *net, const char *bridge, struct net_subnet *ret,
                      struct error *err);

/* Opens the netlink sockets, in the caller's network namespace, and subscribes to changes of the
 * rules. Changes nothing. nft_table: name of our table of family inet; copied. state_file: where it
 * is remembered what was switched on, on a file system that does not outlive the kernel; NULL:
 * nowhere. -EINVAL: the name is out of its limits. */
int net_open(const char *nft_table, const char *state_file, struct net **ret, struct error *err);

/*
 * The machine is not in this network namespace but outside, where nobody comes by our rules: the
 * sockets that keep a port are of net_outside_serve() at this path, and serve: TCP ones listen.
 * Whoever has them (net_hold()) leads who comes by them to the container. Before anything is
 * published.
 */
void net_set_outside(struct net *net, const char *path);

#define NET_OUTSIDE_SOCKET "outside.sock" /* in the run folder */

/* Opens ports for an engine in namespaces of its own, as whoever calls it may, until until_fd is
 * readable. Who can connect to listen_fd (SOCK_SEQPACKET) can ask. */
void net_outside_serve(int listen_fd, int until_fd);

/* Closes the sockets and drops the spare namespaces. Bridges, rules and containers stay and work.
 * NULL allowed. */
void net_close(struct net *net);

/*
 * Makes bridges, forwarding and rules what they must be, whatever was there before: creates the
 * bridges or repairs their addresses, flags and settings, and replaces our table as a whole, in one
 * transaction, with one that holds exactly the publications known to net (connections that exist go
 * on). Idempotent; call it again at any time. Nothing outside of our bridges and our table is
 * touched, but /proc/sys/net/ipv4/ip_forward is set to 1, and with IPv6 its counterpart (links that
 * listen to routers are told to go on with it); where they were off, our rules keep what neither
 * comes from nor goes to a bridge from being forwarded. 1 to 30 ms.
 *
 * -EEXIST: a link of a bridge's name exists and is no bridge.
 */
int net_setup(struct net *net, struct error *err);

/* Removes the table and the bridges (instance removal; containers must be gone). What is not there
 * is no error. Forwarding, where we switched it on, goes off, unless there is another bridge, whose
 * owner may rely on it by now. Publications are forgotten. 20 to 30 ms a bridge. */
int net_teardown(struct net *net, struct error *err);

/* Readable when somebody changed the machine's rules. Owned by net; poll for POLLIN, level
 * triggered. */
int net_poll_fd(const struct net *net);

/* Reads what happened; when somebody removed parts of our table (`nft flush ruleset`), builds it
 * again with all publications. Returns 1 when it did, 0 when nothing was to be done, -errno when
 * the table could not be built (call net_setup() later). Never waits for messages. */
int net_dispatch(struct net *net, struct error *err);

/* --- bridges ---------------------------------------------------------------------------------- */

struct net_bridge_config {
    const char *name;           /* below IFNAMSIZ bytes; copied */
    struct net_subnet subnet;   /* see net_choose_subnet() */
    struct net_subnet6 subnet6; /* prefix 0: no IPv6 */
    uint32_t mtu;               /* of bridge and containers, bytes; 0: NET_MTU_DEFAULT */
    bool internal;              /* nothing goes from here to anywhere but the host, nor back */
    bool separate;              /* its containers do not reach each other */
    bool own_addresses;         /* what goes out keeps the containers' addresses: no masquerade */
};

/* Makes a bridge known; after net_setup() it is made at once (1 ms, and the table is replaced).
 * -EINVAL: a name or a prefix is out of its limits; -EEXIST: the name is that of another one. */
int net_bridge_add(struct net *net, const struct net_bridge_config *config, struct net_bridge **ret,
                   struct error *err);

/* Forgets the bridge, and takes it out of the rules; publications must be gone. The link is still
 * there: net_link_delete(). */
int net_bridge_remove(struct net *net, struct net_bridge *bridge, struct error *err);

/* Deletes a link of the caller's network namespace: blocks for 20 to 30 ms, and may be called on
 * any thread. What is not there is no error. */
int net_link_delete(const char *name, struct error *err);
int net_link_delete_index(unsigned index, struct error *err);

/* Whether the bridge is there and can have containers. */
bool net_bridge_is_up(const struct net_bridge *bridge);

/* --- a container's own network ---------------------------------------------------------------- */

struct net_interface {
    struct net_bridge *bridge;
    char name[IFNAMSIZ];      /* inside: "eth0" */
    char host_name[IFNAMSIZ]; /* wanted name of the host's end, e.g. "v" and 8 digits of the
                               * container's ID; replaced by another one when it exists. Deleting
                               * that end (net_link_delete) removes the interface at run time */
    struct in_addr address;   /* from the bridge's subnet */
    struct in6_addr address6; /* from its IPv6 subnet; ignored when it has none */
    struct in_addr link_local[NET_LINK_LOCAL_MAX]; /* further ones, of 169.254.0.0/16 */
    size_t link_local_count;
    uint8_t mac[6];     /* all zero: by the address (net_address_mac) */
    bool default_route; /* by this bridge's gateway */
};

/*
 * A new network namespace with lo and these interfaces, whose other ends are ports of their
 * bridges. *ret_netns_fd (close-on-exec) is the caller's: the namespace lives as long as somebody
 * holds it (a descriptor, a bind mount, a process in it), and everything goes with it: nothing has
 * to be deleted, and nothing should be (RTM_DELLINK blocks 20-30 ms). About 1 ms with one
 * interface; half of it with a spare namespace. made_fd: an empty namespace that is taken for it,
 * as one that belongs to a user namespace has to be made by others; stays the caller's; -1: a new
 * one. None (count 0): with lo only. net_setup() must have succeeded when there are some.
 */
int net_endpoint_create(struct net *net, int made_fd, struct net_interface *interfaces,
                        size_t count, int *ret_netns_fd, struct error *err);

/* One interface more in a namespace that is in use: 0.6 ms. */
int net_interface_add(struct net *net, int netns_fd, struct net_interface *interface,
                      struct error *err);

/* The default routes there go by the gateways of this interface's bridge from now on. */
int net_interface_route(struct net *net, int netns_fd, const struct net_interface *interface,
                        struct error *err);

/* Each address of the links in a namespace, IPv4 and IPv6: 0.1 ms. */
typedef void net_address_handler(const struct net_ip *address, void *data);
int net_each_address(struct net *net, int netns_fd, net_address_handler *handle, void *data,
                     struct error *err);

/* Makes one spare namespace for later endpoints when there are fewer than `wanted` (at most
 * NET_SPARE_NAMESPACES_MAX): 0.5 ms, for an idle moment of the event loop. Returns 1 when there is
 * more to make, 0 when there are enough, -errno. */
int net_prepare_spare(struct net *net, unsigned wanted, struct error *err);

/* --- the name server's sockets in a container's network --------------------------------------- */

#define NET_NAMES_ADDRESS "127.0.0.11" /* as docker's: programs know it */

struct net_names_sockets {
    int udp_fd; /* bound to NET_NAMES_ADDRESS and a port of the kernel's choice */
    int tcp_fd; /* the same, listening */
};

/*
 * Opens sockets for a name server inside the namespace and makes its port 53 lead there by rules of
 * a table of its own ("cloche_names"), so that programs in the container can have 0.0.0.0:53 to
 * themselves. again: there may be a table from an earlier call, whose rules are
 * replaced. Both sockets are the caller's, close-on-exec and non-blocking; each keeps the namespace
 * alive. 0.3 ms.
 */
int net_names_open(struct net *net, int netns_fd, bool again, struct net_names_sockets *ret,
                   struct error *err);

/* --- published ports -------------------------------------------------------------------------- */

enum net_protocol {
    NET_TCP = IPPROTO_TCP,
    NET_UDP = IPPROTO_UDP,
    NET_SCTP = IPPROTO_SCTP,
};

struct net_publication {
    enum net_protocol protocol;
    struct net_ip host_address; /* 0.0.0.0 or ::, every address of the host of that family;
                                 * 127.0.0.1 too. [::1] cannot be reached by rules, see
                                 * net_open_loopback() */
    uint16_t host_port;         /* host byte order; 0 in net_publish(): choose one */
    uint16_t host_port_last;    /* with a host_port: any free one up to this; 0: only that one */
    struct net_ip container_address; /* of the same family; of either with [::1] */
    uint16_t container_port;         /* host byte order */
};

/*
 * Makes the port reachable: from outside, from containers, from the host by its addresses and by
 * 127.0.0.1. A host_port of 0 is replaced in *publication by a free one of the machine's ephemeral
 * range (net.ipv4.ip_local_port_range). About 30 us; UDP up to
 * 1 ms more, since flows to the port that began before are made to reach the container.
 *
 * From then on a socket of ours is bound to the port, which serves nobody: no other program can
 * bind to it, which would not be reached. It is closed by net_unpublish() and net_close().
 *
 * -EADDRINUSE: the port is published already, by this or another instance ("port is already
 * allocated"), or a process on the host is bound to it ("address already in use"), whatever it
 * shares (SO_REUSEADDR, SO_REUSEPORT). -EADDRNOTAVAIL: host_address is no address of this host.
 * -EINVAL: no container port or address.
 */
int net_publish(struct net *net, struct net_publication *publication, struct error *err);

/* Who else has ports of the machine that no socket shows: asked by net_publish() for each port that
 * it could take, and said to be published already. */
typedef bool net_is_taken(void *data, const struct net_publication *publication);
void net_ask_for_ports(struct net *net, net_is_taken *is_taken, void *data);

/* Records a publication that a container has since before this net was opened. Nothing is asked and
 * nothing is written until the next net_setup(). -EADDRINUSE when it contradicts another one. */
int net_restore_publication(struct net *net, const struct net_publication *publication,
                            struct error *err);

/*
 * The socket that keeps other programs from a published port, for a process that keeps it when we
 * die, or, when the machine is outside, for who serves it; borrowed. It is made where there is none
 * yet, as for a publication that was restored; then -EADDRINUSE: an earlier daemon's lives on
 * somewhere (net_take_hold()), or a program was faster.
 */
int net_hold(struct net *net, const struct net_publication *publication);
/* Takes fd, a second descriptor of that of an earlier daemon. */
void net_take_hold(struct net *net, const struct net_publication *publication, int fd);

/* A TCP (listening) or UDP socket for who serves a port at [::1], the caller's: where the port is
 * published at [::], beside its hold; where it is published at [::1] it takes the place of a hold.
 * -EADDRINUSE: another process has it. */
int net_open_loopback(struct net *net, enum net_protocol protocol, uint16_t port);
/* Closes it in a way that another process's descriptor of it is no obstacle to the next one. */
void net_release_loopback(int fd);
/* Whether it is at [::1] alone: there is no rule for it and no hold. */
bool net_is_loopback6(const struct net_publication *publication);

/* Ends what came by a port that is published no more: a client's next packet finds nobody (IPv4;
 * flows of IPv6 end by themselves). Up to 1 ms. */
void net_forget_flows(struct net *net, const struct net_publication *publication);

/* Takes it back; the same values as given to net_publish(), with the port it returned. Connections
 * that exist end with the container, or by net_forget_flows(). What is not published is no error.
 * About 10 us. */
int net_unpublish(struct net *net, const struct net_publication *publication, struct error *err);

#endif
