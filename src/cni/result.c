#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "internal.h"

/* ADDRESS/PREFIX of either family. */
static int parse_address(const char *text, int *ret_family, void *ret, uint8_t *ret_prefix)
{
    const size_t length = strcspn(text, "/");
    _cleanup_free_ char *bare = xstrndup(text, length);
    uint64_t prefix = 0;

    *ret_family = strchr(bare, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(*ret_family, bare, ret) != 1 || !text[length] ||
        text_to_u64(text + length + 1, 1, *ret_family == AF_INET ? 32 : 128, &prefix) < 0)
        return -EBADMSG;
    *ret_prefix = (uint8_t)prefix;
    return 0;
}

/* A result of the old kind does not say whose the address is: the container's. */
static bool is_inside(const struct cni_result *result, const struct cni_ip *ip, const char *link)
{
    if (!ip->has_interface || ip->interface < 0)
        return true;
    if ((size_t)ip->interface >= result->interfaces_count)
        return false;
    const struct cni_interface *interface = result->interfaces[ip->interface];
    return !text_empty(interface->sandbox) && text_equal(interface->name, link);
}

static int take_ip(const struct cni_ip *ip, struct cni_addresses *ret, struct error *err)
{
    struct in6_addr bytes = {0};
    uint8_t prefix;
    int family;

    if (parse_address(ip->address, &family, &bytes, &prefix) < 0)
        return error_set(err, -EBADMSG, "'%.64s' is no address with a prefix", ip->address);
    if (family == AF_INET ? ret->prefix : ret->prefix6)
        return 0; /* a further one */
    if (family == AF_INET) {
        memcpy(&ret->address, &bytes, sizeof(ret->address));
        ret->prefix = prefix;
        if (!text_empty(ip->gateway) && inet_pton(AF_INET, ip->gateway, &ret->gateway) != 1)
            return error_set(err, -EBADMSG, "'%.64s' is no gateway's address", ip->gateway);
        return 0;
    }
    ret->address6 = bytes;
    ret->prefix6 = prefix;
    if (!text_empty(ip->gateway) && inet_pton(AF_INET6, ip->gateway, &ret->gateway6) != 1)
        return error_set(err, -EBADMSG, "'%.64s' is no gateway's address", ip->gateway);
    return 0;
}

static void take_mac(const char *text, uint8_t mac[static 6])
{
    unsigned bytes[6];
    char end;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
               &bytes[4], &bytes[5], &end) != 6)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(bytes); i++)
        mac[i] = (uint8_t)bytes[i];
}

static bool is_word(const char *text)
{
    return text[0] && !text[strcspn(text, " \t\r\n")];
}

/* They become lines of the container's resolv.conf. */
static int check_dns(const struct cni_dns *dns, struct error *err)
{
    struct in6_addr address;

    for (size_t i = 0; dns && i < dns->nameservers_count; i++) {
        if (inet_pton(AF_INET, dns->nameservers[i], &address) != 1 &&
            inet_pton(AF_INET6, dns->nameservers[i], &address) != 1)
            return error_set(err, -EBADMSG, "dns.nameservers[%zu]: '%.64s' is no address", i,
                             dns->nameservers[i]);
    }
    for (size_t i = 0; dns && i < dns->search_count; i++) {
        if (!is_word(dns->search[i]))
            return error_set(err, -EBADMSG, "dns.search[%zu]: not one word", i);
    }
    for (size_t i = 0; dns && i < dns->options_count; i++) {
        if (!is_word(dns->options[i]))
            return error_set(err, -EBADMSG, "dns.options[%zu]: not one word", i);
    }
    return 0;
}

static bool leads_out(const struct cni_result *result)
{
    for (size_t i = 0; i < result->routes_count; i++) {
        if (text_ends_with(result->routes[i]->dst, "/0"))
            return true;
    }
    return false;
}

int cni_result_read(const struct cni_result *result, const char *link, struct cni_addresses *ret,
                    struct error *err)
{
    struct cni_addresses found = {0};
    int r = check_dns(result->dns, err);

    for (size_t i = 0; r == 0 && i < result->ips_count; i++) {
        if (is_inside(result, result->ips[i], link))
            r = take_ip(result->ips[i], &found, err);
    }
    for (size_t i = 0; i < result->interfaces_count; i++) {
        const struct cni_interface *interface = result->interfaces[i];

        if (interface->mac && !text_empty(interface->sandbox) && text_equal(interface->name, link))
            take_mac(interface->mac, found.mac);
    }
    found.has_name_servers = result->dns && result->dns->nameservers_count > 0;
    found.leads_out = leads_out(result);
    if (r == 0)
        *ret = found;
    return r;
}
