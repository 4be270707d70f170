/*
 * Forwarding, the one switch of the whole machine that containers need. Where it was off, rules
 * keep the machine from becoming a router for others by it (ruleset.h), for as long as it stays on:
 * that is remembered in a file, as long-lived as the switch itself, since daemons come and go.
 */
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "link.h"
#include "state.h"
#include "sysctl.h"

enum { STATE_MAX = 16 }; /* bytes: "4", "6" or "46" */

void forwarding_read(struct net *net)
{
    _cleanup_free_ char *text = NULL;

    if (!net->state_file ||
        file_read_at(AT_FDCWD, net->state_file, STATE_MAX, &text, NULL, NULL) < 0)
        return;
    /* Whoever switched it off and on again since wants it on. */
    net->forwarding.ipv4 = strchr(text, '4') && sysctl_is_on(SYSCTL_FORWARD_IPV4);
    net->forwarding.ipv6 = strchr(text, '6') && sysctl_is_on(SYSCTL_FORWARD_IPV6);
}

static int write_state(const struct net *net, struct error *err)
{
    char text[STATE_MAX];

    if (!net->state_file)
        return 0;
    int length = snprintf(text, sizeof(text), "%s%s\n", net->forwarding.ipv4 ? "4" : "",
                          net->forwarding.ipv6 ? "6" : "");
    return file_replace_at(AT_FDCWD, net->state_file, text, (size_t)length, 0600, err);
}

static bool wants_ipv6(const struct net *net)
{
    for (size_t i = 0; i < net->bridges_count; i++) {
        const struct net_bridge_config *config = &net->bridges[i]->config;

        if (config->subnet6.prefix > 0 && !config->internal)
            return true;
    }
    return false;
}

int forwarding_prepare(struct net *net, struct error *err)
{
    struct net_forwarding *ours = &net->forwarding;
    const struct net_forwarding before = *ours;

    if (!sysctl_is_on(SYSCTL_FORWARD_IPV4))
        ours->ipv4 = true;
    if (wants_ipv6(net) && !sysctl_is_on(SYSCTL_FORWARD_IPV6))
        ours->ipv6 = true;
    if (ours->ipv4 == before.ipv4 && ours->ipv6 == before.ipv6)
        return 0;
    return write_state(net, err);
}

/* Other programs for containers and virtual machines need the switch, too, and find it on. */
static bool has_other_bridges(struct net *net)
{
    struct if_nameindex *links = if_nameindex();
    bool found = false;

    for (const struct if_nameindex *each = links; each && each->if_name && !found; each++) {
        struct link link;

        found = link_get(&net->route, each->if_name, &link, NULL) == 0 && link.is_bridge;
    }
    if_freenameindex(links);
    return found;
}

void forwarding_give_back(struct net *net)
{
    if ((net->forwarding.ipv4 || net->forwarding.ipv6) && !has_other_bridges(net)) {
        if (net->forwarding.ipv4)
            (void)sysctl_set(SYSCTL_FORWARD_IPV4, "0", NULL);
        if (net->forwarding.ipv6)
            (void)sysctl_set(SYSCTL_FORWARD_IPV6, "0", NULL);
    }
    net->forwarding = (struct net_forwarding){0};
    if (net->state_file)
        (void)unlink(net->state_file);
}
