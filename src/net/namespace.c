#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>

#include <base/alloc.h>

#include "link.h"
#include "namespace.h"
#include "sysctl.h"

int namespace_open_own(int *ret_fd, struct error *err)
{
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open the own network namespace");
    *ret_fd = fd;
    return 0;
}

void namespace_finish(struct namespace *namespace)
{
    netlink_finish(&namespace->route);
    close_fd(namespace->fd);
    namespace->fd = -1;
}

/* What has to be done by a thread that is inside; state on entry: a namespace as the kernel makes
 * it, lo down. */
static int set_up_inside(struct namespace *namespace, struct error *err)
{
    int r;

    r = namespace_open_own(&namespace->fd, err);
    if (r == 0)
        r = netlink_open(NETLINK_ROUTE, &namespace->route, err);
    if (r < 0)
        return r;
    return sysctl_disable_ipv6("default", err); /* lo exists already and keeps ::1 */
}

/*
 * unshare() and setns() change the calling thread only, and for the moment between them nothing
 * else runs in it: other threads and the children they start do not see it.
 */
static int create_empty(struct net *net, struct namespace *ret, struct error *err)
{
    struct namespace namespace = {.fd = -1};
    int r;

    if (unshare(CLONE_NEWNET) < 0)
        return error_errno(err, errno, "create a network namespace");
    r = set_up_inside(&namespace, err);
    namespace_leave(net);
    if (r < 0) {
        namespace_finish(&namespace);
        return r;
    }
    *ret = namespace;
    return 0;
}

/* Takes namespace over. */
static int bring_lo_up(struct namespace namespace, struct namespace *ret, struct error *err)
{
    _cleanup_netlink_batch_ struct netlink_batch batch = NETLINK_BATCH_INIT;
    int r;

    link_add_set_up(&batch, "bring lo up", LINK_LOOPBACK, 0);
    r = netlink_run(&namespace.route, &batch, err);
    if (r < 0) {
        namespace_finish(&namespace);
        return r;
    }
    *ret = namespace;
    return 0;
}

static int create(struct net *net, struct namespace *ret, struct error *err)
{
    struct namespace namespace;
    int r = create_empty(net, &namespace, err);

    return r < 0 ? r : bring_lo_up(namespace, ret, err);
}

int namespace_adopt(struct net *net, int fd, struct namespace *ret, struct error *err)
{
    struct namespace namespace = {.fd = -1};
    int r = namespace_enter(fd, err);

    if (r < 0)
        return r;
    r = set_up_inside(&namespace, err);
    namespace_leave(net);
    if (r < 0) {
        namespace_finish(&namespace);
        return r;
    }
    return bring_lo_up(namespace, ret, err);
}

int namespace_take(struct net *net, struct namespace *ret, struct error *err)
{
    if (net->spare_count == 0)
        return create(net, ret, err);
    *ret = net->spare[--net->spare_count];
    return 0;
}

int net_prepare_spare(struct net *net, unsigned wanted, struct error *err)
{
    if (wanted > NET_SPARE_NAMESPACES_MAX)
        wanted = NET_SPARE_NAMESPACES_MAX;
    if (net->spare_count < wanted) {
        int r = create(net, &net->spare[net->spare_count], err);

        if (r < 0)
            return r;
        net->spare_count++;
    }
    return net->spare_count < wanted;
}

/* --- working in one that exists --- */

void namespace_leave(const struct net *net)
{
    if (setns(net->own_netns, CLONE_NEWNET) < 0)
        abort(); /* whatever this thread did next would happen in the wrong namespace */
}

int namespace_enter(int fd, struct error *err)
{
    return setns(fd, CLONE_NEWNET) < 0 ? error_errno(err, errno, "enter a network namespace") : 0;
}

int namespace_open_netlink(struct net *net, int fd, int protocol, struct netlink *ret,
                           struct error *err)
{
    int r = namespace_enter(fd, err);

    if (r < 0)
        return r;
    r = netlink_open(protocol, ret, err);
    namespace_leave(net);
    return r;
}
