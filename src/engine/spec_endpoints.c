/* What a container wishes for its places on networks: whether it makes sense by itself. */
#include <arpa/inet.h>
#include <errno.h>

#include <base/text.h>
#include <net/net.h>

#include "spec.h"

enum { LINK_LOCAL = 0xa9fe }; /* 169.254.0.0/16, RFC 3927 */

int spec_link_local(const struct api_endpoint *wanted, struct net_interface *to, struct error *err)
{
    if (wanted->link_local_ips_count > NET_LINK_LOCAL_MAX)
        return error_set(err, -EINVAL, "more than %d link-local addresses", NET_LINK_LOCAL_MAX);
    for (size_t i = 0; i < wanted->link_local_ips_count; i++) {
        if (inet_pton(AF_INET, wanted->link_local_ips[i], &to->link_local[i]) != 1 ||
            ntohl(to->link_local[i].s_addr) >> 16 != LINK_LOCAL)
            return error_set(err, -EINVAL, "invalid link-local IP address: %.64s",
                             wanted->link_local_ips[i]);
    }
    to->link_local_count = wanted->link_local_ips_count;
    return 0;
}

int spec_check_endpoint(const struct api_endpoint *wanted, struct error *err)
{
    struct net_interface checked;
    struct in6_addr address;

    if (!text_empty(wanted->ipv4_address) &&
        inet_pton(AF_INET, wanted->ipv4_address, &address) != 1)
        return error_set(err, -EINVAL, "invalid IPv4 address: %.64s", wanted->ipv4_address);
    if (!text_empty(wanted->ipv6_address) &&
        inet_pton(AF_INET6, wanted->ipv6_address, &address) != 1)
        return error_set(err, -EINVAL, "invalid IPv6 address: %.64s", wanted->ipv6_address);
    if (!text_empty(wanted->mac_address) &&
        net_mac_parse(wanted->mac_address, checked.mac, err) < 0)
        return -EINVAL;
    return spec_link_local(wanted, &checked, err);
}

int spec_check_endpoints(const struct api_container_spec *spec, struct error *err)
{
    for (size_t i = 0; spec->networks && i < spec->networks->count; i++) {
        int r = spec_check_endpoint(spec->networks->values[i], err);

        if (r < 0)
            return r;
    }
    return 0;
}
