/*
 * Forwarding, the one switch of the whole machine that containers need. Where it was off, rules
 * keep the machine from becoming a router for others by it (ruleset.h), for as long as it stays on:
 * that is remembered in a file, as long-lived as the switch itself, since daemons come and go.
 *
 * Where the switch of the machine is off, IPv4 packets are forwarded that came by a link whose own
 * switch is on (conf.LINK.forwarding); IPv6 packets by one that is told to by force_forwarding
 * (Linux 6.17). With ours all links' are on, and nobody can tell any more which were: they are
 * remembered, too.
 */
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>

#include "link.h"
#include "state.h"
#include "sysctl.h"

enum { STATE_MAX = 1024 * 1024 }; /* bytes */

#define LINK_SWITCHES_IPV4 "/proc/sys/net/ipv4/conf", "forwarding"
#define LINK_SWITCHES_IPV6 "/proc/sys/net/ipv6/conf", "force_forwarding"

/* "46", and a line for each link: "4 LINK" or "6 LINK". */
static void parse(struct net_forwarding *forwarding, char *const *lines)
{
    forwarding->ipv4 = strchr(lines[0], '4') && sysctl_is_on(SYSCTL_FORWARD_IPV4);
    forwarding->ipv6 = strchr(lines[0], '6') && sysctl_is_on(SYSCTL_FORWARD_IPV6);
    for (size_t i = 1; lines[i]; i++) {
        const char *line = lines[i];

        if (strlen(line) < 3 || strlen(line + 2) >= IFNAMSIZ)
            continue;
        if (line[0] == '4' && forwarding->ipv4)
            strv_append(&forwarding->links, line + 2);
        if (line[0] == '6' && forwarding->ipv6)
            strv_append(&forwarding->links6, line + 2);
    }
}

/* Whoever switched it off and on again since wants it on. */
void forwarding_read(struct net *net)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_strv_ char **lines = NULL;

    if (!net->state_file ||
        file_read_at(AT_FDCWD, net->state_file, STATE_MAX, &text, NULL, NULL) < 0)
        return;
    lines = strv_split(text, '\n');
    if (lines)
        parse(&net->forwarding, lines);
}

static void append_links(struct buffer *text, char family, char *const *links)
{
    for (; links && *links; links++)
        buffer_printf(text, "%c %s\n", family, *links);
}

static int write_state(const struct net *net, struct error *err)
{
    const struct net_forwarding *ours = &net->forwarding;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!net->state_file)
        return 0;
    buffer_printf(&text, "%s%s\n", ours->ipv4 ? "4" : "", ours->ipv6 ? "6" : "");
    append_links(&text, '4', ours->links);
    append_links(&text, '6', ours->links6);
    return file_replace_at(AT_FDCWD, net->state_file, buffer_text(&text), text.length, 0600, err);
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
    bool changed = false;

    if (!sysctl_is_on(SYSCTL_FORWARD_IPV4)) {
        ours->ipv4 = changed = true;
        strv_free(ours->links);
        ours->links = sysctl_links_on(LINK_SWITCHES_IPV4);
    }
    if (wants_ipv6(net) && !sysctl_is_on(SYSCTL_FORWARD_IPV6)) {
        ours->ipv6 = changed = true;
        strv_free(ours->links6);
        ours->links6 = sysctl_links_on(LINK_SWITCHES_IPV6);
    }
    return changed ? write_state(net, err) : 0;
}

/* The switch of the machine has turned them, too. */
static void switch_links_on(char *const *links)
{
    for (; links && *links; links++)
        (void)sysctl_set_for_link("ipv4", *links, "forwarding", "1", NULL);
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

void forwarding_finish(struct net_forwarding *forwarding)
{
    strv_free(forwarding->links);
    strv_free(forwarding->links6);
    *forwarding = (struct net_forwarding){0};
}

void forwarding_give_back(struct net *net)
{
    if ((net->forwarding.ipv4 || net->forwarding.ipv6) && !has_other_bridges(net)) {
        if (net->forwarding.ipv4 && sysctl_set(SYSCTL_FORWARD_IPV4, "0", NULL) == 0)
            switch_links_on(net->forwarding.links);
        if (net->forwarding.ipv6)
            (void)sysctl_set(SYSCTL_FORWARD_IPV6, "0", NULL);
    }
    forwarding_finish(&net->forwarding);
    if (net->state_file)
        (void)unlink(net->state_file);
}
