#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "net_devices.h"
#include "rtnetlink.h"

enum { NET_DEVICES_MAX = 256 };

/* The two ends of the move. */
struct ends {
    int host_fd, container_fd; /* owned; rtnetlink */
    int namespace_fd;          /* owned; the container's */
};

static const char *new_name(const struct oci_net_devices *devices, size_t i)
{
    const char *name = devices->values[i]->name;

    return text_empty(name) ? devices->keys[i] : name;
}

/* dev_valid_name() of the kernel's net/core/dev.c. */
static bool is_valid(const char *name)
{
    if (text_empty(name) || strlen(name) >= IFNAMSIZ || text_equal(name, ".") ||
        text_equal(name, ".."))
        return false;
    for (const char *c = name; *c; c++) {
        if (*c == '/' || *c == ':' || isspace((unsigned char)*c))
            return false;
    }
    return true;
}

static int check_names(const struct oci_net_devices *devices, struct error *err)
{
    if (devices->count > NET_DEVICES_MAX)
        return error_set(err, -E2BIG, "linux.netDevices: more than %d", NET_DEVICES_MAX);
    for (size_t i = 0; i < devices->count; i++) {
        if (!is_valid(devices->keys[i]))
            return error_set(err, -EINVAL, "linux.netDevices: invalid network device name '%s'",
                             devices->keys[i]);
        if (!is_valid(new_name(devices, i)))
            return error_set(err, -EINVAL,
                             "linux.netDevices.%s.name: invalid network device name '%s'",
                             devices->keys[i], new_name(devices, i));
        for (size_t k = 0; k < i; k++) {
            if (text_equal(new_name(devices, k), new_name(devices, i)))
                return error_set(err, -EINVAL,
                                 "linux.netDevices.%s: another device is to be '%s' too",
                                 devices->keys[i], new_name(devices, i));
        }
    }
    return 0;
}

int net_devices_check(const struct container *container, struct error *err)
{
    if (!net_devices_wanted(container))
        return 0;
    if (!(container_own_namespaces(container) & CLONE_NEWNET))
        return error_set(
            err, -EINVAL,
            "linux.netDevices: unable to move network devices without a NET namespace");
    if (container->unprivileged)
        return error_set(err, -EPERM,
                         "linux.netDevices: network devices are not supported for rootless "
                         "containers");
    return check_names(container->config->linux->net_devices, err);
}

static void ends_finish(struct ends *ends)
{
    close_fd(ends->host_fd);
    close_fd(ends->container_fd);
    close_fd(ends->namespace_fd);
}

static bool same_file(int a, int b)
{
    struct stat first, second;

    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* A socket belongs to the network namespace it is made in: ours is changed for a moment. */
static int open_inside(int namespace_fd, int own_fd)
{
    if (setns(namespace_fd, CLONE_NEWNET) < 0)
        return -errno;
    int fd = rtnetlink_open();
    if (setns(own_fd, CLONE_NEWNET) < 0) {
        close_fd(fd);
        return -errno;
    }
    return fd;
}

/* A joined one may not have been entered by the process yet. */
static int open_namespace(const struct container *container)
{
    char path[32];

    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        int joined_fd = container->namespaces.fds[i];
        if (namespace_kinds[i].flag == CLONE_NEWNET && joined_fd >= 0)
            return fcntl(joined_fd, F_DUPFD_CLOEXEC, 0);
    }
    snprintf(path, sizeof(path), "%d/ns/net", container->pid);
    return openat(container->proc_fd, path, O_RDONLY | O_CLOEXEC);
}

static int open_ends(const struct container *container, struct ends *ends, struct error *err)
{
    _cleanup_close_ int own_fd = openat(container->proc_fd, "self/ns/net", O_RDONLY | O_CLOEXEC);

    ends->namespace_fd = open_namespace(container);
    if (own_fd < 0 || ends->namespace_fd < 0)
        return error_errno(err, errno, "linux.netDevices: open the container's network namespace");
    if (same_file(own_fd, ends->namespace_fd))
        return error_set(err, -EINVAL,
                         "linux.netDevices: the container's network namespace is the host's");
    ends->host_fd = rtnetlink_open();
    ends->container_fd = open_inside(ends->namespace_fd, own_fd);
    int r = ends->host_fd < 0 ? ends->host_fd : ends->container_fd;
    return r < 0 ? error_errno(err, -r, "linux.netDevices: open a netlink socket") : 0;
}

/* Those that are valid everywhere and that somebody has set: what the kernel or a daemon made of
 * the network the device was in means nothing in another. */
static bool is_kept(const struct rtnetlink_address *address)
{
    return address->header.ifa_scope == RT_SCOPE_UNIVERSE &&
           (address->header.ifa_flags & IFA_F_PERMANENT);
}

static int add_address(int fd, int index, const struct rtnetlink_address *address)
{
    static const unsigned short copied[] = {IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST};
    const struct ifaddrmsg header = {
        .ifa_family = address->header.ifa_family,
        .ifa_prefixlen = address->header.ifa_prefixlen,
        .ifa_flags = address->header.ifa_flags & IFA_F_NODAD,
        .ifa_scope = address->header.ifa_scope,
        .ifa_index = (uint32_t)index,
    };
    struct rtnetlink_request request;

    rtnetlink_begin(&request, RTM_NEWADDR, &header, sizeof(header));
    request.header.nlmsg_flags |= NLM_F_CREATE | NLM_F_EXCL;
    const struct rtattr *attribute = (const void *)address->attributes;
    for (unsigned left = (unsigned)address->length; RTA_OK(attribute, left);
         attribute = RTA_NEXT(attribute, left)) {
        for (size_t i = 0; i < ARRAY_SIZE(copied); i++) {
            if (attribute->rta_type == copied[i])
                rtnetlink_add(&request, copied[i], RTA_DATA(attribute), RTA_PAYLOAD(attribute));
        }
    }
    int r = rtnetlink_send(fd, &request);
    return r == -EEXIST ? 0 : r;
}

static int add_addresses(int fd, int index, const struct rtnetlink_address *addresses, size_t count)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = is_kept(&addresses[i]) ? add_address(fd, index, &addresses[i]) : 0;
    return r;
}

/* Name and namespace in one request: the name need not be free here. */
static int change_namespace(const struct ends *ends, int index, const char *name)
{
    const struct ifinfomsg link = {.ifi_index = index};
    const uint32_t namespace_fd = (uint32_t)ends->namespace_fd;
    struct rtnetlink_request request;

    rtnetlink_begin(&request, RTM_NEWLINK, &link, sizeof(link));
    rtnetlink_add(&request, IFLA_NET_NS_FD, &namespace_fd, sizeof(namespace_fd));
    rtnetlink_add(&request, IFLA_IFNAME, name, strlen(name) + 1);
    return rtnetlink_send(ends->host_fd, &request);
}

static int move_one(const struct ends *ends, const char *name, const char *inside,
                    struct error *err)
{
    _cleanup_free_ struct rtnetlink_address *addresses = NULL;
    size_t count = 0;
    int index = rtnetlink_find(ends->host_fd, name);

    /* Before it is taken down: some addresses go with that. */
    int r = index < 0 ? index : rtnetlink_addresses(ends->host_fd, index, &addresses, &count);
    if (r == 0)
        r = rtnetlink_set_up(ends->host_fd, index, 0);
    if (r < 0)
        return error_errno(err, -r, "linux.netDevices.%s: take it down", name);
    r = change_namespace(ends, index, inside);
    if (r < 0)
        return error_errno(err, -r, "linux.netDevices.%s: move it to the container as '%s'", name,
                           inside);
    r = index = rtnetlink_find(ends->container_fd, inside);
    if (r >= 0)
        r = add_addresses(ends->container_fd, index, addresses, count);
    if (r == 0)
        r = rtnetlink_set_up(ends->container_fd, index, IFF_UP);
    return r < 0 ? error_errno(err, -r, "linux.netDevices.%s: set it up in the container", name)
                 : 0;
}

static int move_all(const struct ends *ends, const struct oci_net_devices *devices,
                    struct error *err)
{
    int r = 0;

    for (size_t i = 0; i < devices->count; i++) {
        r = rtnetlink_find(ends->host_fd, devices->keys[i]);
        if (r < 0)
            return error_errno(err, -r, "linux.netDevices.%s: find it on the host",
                               devices->keys[i]);
        if (rtnetlink_find(ends->container_fd, new_name(devices, i)) >= 0)
            return error_set(err, -EEXIST,
                             "linux.netDevices.%s: the container's network namespace has a '%s' "
                             "already",
                             devices->keys[i], new_name(devices, i));
    }
    r = 0;
    for (size_t i = 0; r == 0 && i < devices->count; i++)
        r = move_one(ends, devices->keys[i], new_name(devices, i), err);
    return r;
}

int net_devices_move(const struct container *container, struct error *err)
{
    struct ends ends = {-1, -1, -1};
    int r = open_ends(container, &ends, err);

    if (r == 0)
        r = move_all(&ends, container->config->linux->net_devices, err);
    ends_finish(&ends);
    return r;
}
