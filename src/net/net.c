/*
 * The instance's network as a whole: opening it, making bridge and rules what they must be, and
 * taking them away.
 */
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/text.h>

#include "link.h"
#include "namespace.h"
#include "ruleset.h"
#include "state.h"
#include "sysctl.h"

enum {
    WATCH_BUFFER = 1024 * 1024,     /* bytes of notifications; more are lost and mean "look" */
    WATCH_MESSAGES_PER_CALL = 1024, /* so that a flood does not hold the event loop */
};

static int open_watch(struct netlink *watch, struct error *err)
{
    const int group = NFNLGRP_NFTABLES, buffer = WATCH_BUFFER;
    int r;

    r = netlink_open(NETLINK_NETFILTER, watch, err);
    if (r < 0)
        return r;
    const int fd = mnl_socket_get_fd(watch->socket);
    /* Beyond the limit is for the machine's root only. */
    if ((setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) < 0 &&
         setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)) < 0) ||
        mnl_socket_setsockopt(watch->socket, NETLINK_ADD_MEMBERSHIP, (void *)&group,
                              sizeof(group)) < 0)
        return error_errno(err, errno, "subscribe to changes of nftables rules");
    return 0;
}

void net_set_outside(struct net *net, const char *path)
{
    free(net->outside);
    net->outside = xstrdup(path);
}

int net_open(const char *nft_table, const char *state_file, struct net **ret, struct error *err)
{
    struct net *net;
    int r;

    if (text_empty(nft_table) || strlen(nft_table) > NET_TABLE_NAME_MAX)
        return error_set(err, -EINVAL, "'%s' cannot be a table's name", nft_table ? nft_table : "");
    net = xnew(struct net);
    net->nft_table = xstrdup(nft_table);
    net->state_file = state_file ? xstrdup(state_file) : NULL;
    forwarding_read(net);
    net->own_netns = -1;

    r = namespace_open_own(&net->own_netns, err);
    if (r == 0)
        r = netlink_open(NETLINK_ROUTE, &net->route, err);
    if (r == 0)
        r = netlink_open(NETLINK_NETFILTER, &net->nft, err);
    if (r == 0)
        r = open_watch(&net->watch, err);
    if (r < 0) {
        error_context(err, "network");
        net_close(net);
        return r;
    }
    *ret = net;
    return 0;
}

void net_close(struct net *net)
{
    if (!net)
        return;
    while (net->spare_count > 0)
        namespace_finish(&net->spare[--net->spare_count]);
    netlink_finish(&net->watch);
    netlink_finish(&net->nft);
    netlink_finish(&net->route);
    close_fd(net->own_netns);
    for (size_t i = 0; i < net->bridges_count; i++)
        bridge_free(net->bridges[i]);
    free(net->bridges);
    for (size_t i = 0; i < net->publications_count; i++)
        close_fd(net->holds[i]);
    free(net->holds);
    free(net->publications);
    free(net->nft_table);
    free(net->state_file);
    free(net->outside);
    forwarding_finish(&net->forwarding);
    free(net);
}

/* The rules come first: there is no moment at which a bridge is open to what they keep out. */
int net_setup(struct net *net, struct error *err)
{
    int failure = 0;
    int r;

    r = forwarding_prepare(net, err);
    if (r == 0)
        r = ruleset_replace(net, err);
    if (r < 0)
        return r;
    net->rules_active = true;
    for (size_t i = 0; i < net->bridges_count; i++) {
        r = bridge_set_up(net, net->bridges[i], failure ? NULL : err);
        if (failure == 0)
            failure = r;
    }
    r = failure;
    if (r == 0)
        r = sysctl_set(SYSCTL_FORWARD_IPV4, "1", err);
    return r;
}

int net_teardown(struct net *net, struct error *err)
{
    int r;

    net->rules_active = false;
    publications_forget(net);
    for (size_t i = 0; i < net->bridges_count; i++) {
        net->bridges[i]->index = 0;
        r = bridge_delete(net, net->bridges[i]->config.name, err);
        if (r < 0)
            return r;
    }
    forwarding_give_back(net);
    return ruleset_remove(net, err);
}

/* --- changes by others --- */

int net_poll_fd(const struct net *net)
{
    return mnl_socket_get_fd(net->watch.socket);
}

/* Whether one read's worth of notifications tells of damage. */
static bool tells_of_damage(const struct net *net, const char *data, ssize_t length)
{
    int left = (int)length;

    for (const struct nlmsghdr *message = (const void *)data; mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
        if (ruleset_is_damage(net, message))
            return true;
    }
    return false;
}

int net_dispatch(struct net *net, struct error *err)
{
    char data[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
    bool damaged = false;
    int r;

    for (int i = 0; i < WATCH_MESSAGES_PER_CALL; i++) {
        ssize_t length = recv(net_poll_fd(net), data, sizeof(data), MSG_DONTWAIT);

        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (length < 0 && errno != ENOBUFS)
            return error_errno(err, errno, "read changes of nftables rules");
        /* ENOBUFS: some were lost, any of which could have been it. */
        damaged = damaged || length < 0 || tells_of_damage(net, data, length);
    }
    if (!damaged || !net->rules_active)
        return 0;
    r = ruleset_replace(net, err);
    return r < 0 ? r : 1;
}
