/*
 * The sockets of the name server inside a container's network.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "namespace.h"
#include "nft.h"

enum { PORT_DNS = 53, BACKLOG = 16, IP_DESTINATION = 16, TRANSPORT_DESTINATION_PORT = 2 };

static const struct nft_table table = {NFPROTO_IPV4, "cloche_names"};
static const struct nft_chain chain = {"output", "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST};

static int open_socket(int type, int *ret_fd, uint16_t *ret_port, struct error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof(address);
    _cleanup_close_ int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    inet_pton(AF_INET, NET_NAMES_ADDRESS, &address.sin_addr);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0 ||
        (type == SOCK_STREAM && listen(fd, BACKLOG) < 0))
        return error_errno(err, errno, "open a socket at %s", NET_NAMES_ADDRESS);
    *ret_port = ntohs(address.sin_port);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static void add_redirection(struct netlink_batch *batch, uint8_t protocol, uint16_t port)
{
    const uint16_t dns = htons(PORT_DNS), wire = htons(port);
    struct nft_rule rule = nft_rule_begin(batch, &table, chain.name);
    struct in_addr address;

    inet_pton(AF_INET, NET_NAMES_ADDRESS, &address);
    nft_payload(&rule, NFT_PAYLOAD_NETWORK_HEADER, IP_DESTINATION, 4, NFT_REG32_00);
    nft_compare(&rule, NFT_CMP_EQ, NFT_REG32_00, &address, sizeof(address));
    nft_meta(&rule, NFT_META_L4PROTO, NFT_REG32_00);
    nft_compare(&rule, NFT_CMP_EQ, NFT_REG32_00, &protocol, sizeof(protocol));
    nft_payload(&rule, NFT_PAYLOAD_TRANSPORT_HEADER, TRANSPORT_DESTINATION_PORT, 2, NFT_REG32_00);
    nft_compare(&rule, NFT_CMP_EQ, NFT_REG32_00, &dns, sizeof(dns));
    nft_load(&rule, NFT_REG32_00, &address, sizeof(address));
    nft_load(&rule, NFT_REG32_01, &wire, sizeof(wire));
    nft_dnat(&rule, NFPROTO_IPV4, NFT_REG32_00, NFT_REG32_01);
    nft_rule_end(&rule);
}

static int redirect(struct netlink *nft, bool again, uint16_t udp_port, uint16_t tcp_port,
                    struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;

    nft_batch_begin(&batch);
    nft_add_table(&batch, &table);
    nft_add_chain(&batch, &table, &chain);
    if (again) /* not the table, for the end of whose hook the kernel waits */
        nft_add_chain_flush(&batch, &table, chain.name);
    add_redirection(&batch, IPPROTO_UDP, udp_port);
    add_redirection(&batch, IPPROTO_TCP, tcp_port);
    nft_batch_end(&batch);
    return netlink_run(nft, &batch, err);
}

/* State on entry: the thread is inside. */
static int open_inside(struct netlink *nft, bool again, struct net_names_sockets *ret,
                       struct error *err)
{
    _cleanup_close_ int udp_fd = -1, tcp_fd = -1;
    uint16_t udp_port, tcp_port;
    int r;

    r = open_socket(SOCK_DGRAM, &udp_fd, &udp_port, err);
    if (r == 0)
        r = open_socket(SOCK_STREAM, &tcp_fd, &tcp_port, err);
    if (r == 0)
        r = netlink_open(NETLINK_NETFILTER, nft, err);
    if (r == 0)
        r = redirect(nft, again, udp_port, tcp_port, err);
    if (r < 0)
        return r;
    *ret = (struct net_names_sockets){steal_fd(&udp_fd), steal_fd(&tcp_fd)};
    return 0;
}

static void *close_socket(void *socket)
{
    mnl_socket_close(socket);
    return NULL;
}

/* Where rules were taken out, the end of a socket waits until the kernel has let go of them: 10 ms
 * and more (nft_rcv_nl_event()). Signals are the caller's. */
static void close_elsewhere(struct netlink *nft)
{
    pthread_t thread;
    sigset_t all, old;

    if (!nft->socket)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, NULL, close_socket, nft->socket) == 0) {
        pthread_detach(thread);
        nft->socket = NULL;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int net_names_open(struct net *net, int netns_fd, bool again, struct net_names_sockets *ret,
                   struct error *err)
{
    _cleanup_(netlink_finish) struct netlink nft = {0};
    int r = namespace_enter(netns_fd, err);

    if (r < 0)
        return r;
    r = open_inside(&nft, again, ret, err);
    namespace_leave(net);
    if (again)
        close_elsewhere(&nft);
    return r;
}
