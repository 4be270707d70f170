/*
 * The machine's name servers, for an ordinary user's engine: one at the machine's loopback address
 * (systemd-resolved, dnsmasq) is somewhere else inside.
 */
#ifndef CLOCHED_ROOTLESS_NAMES_H
#define CLOCHED_ROOTLESS_NAMES_H

#include <base/instance.h>

/* What pasta is to send on to the machine's name server. */
#define ROOTLESS_NAME_SERVER "169.254.1.1"

/* Outside: a file for the place of /etc/resolv.conf inside; NULL: it can stay as it is. Owned by
 * the caller. */
char *rootless_names_write(const struct instance *instance);

#endif
