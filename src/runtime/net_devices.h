/*
 * linux.netDevices: network devices of the host that become the container's (config-linux.md,
 * "Network Devices"). A device keeps its hardware address, MTU and the addresses that somebody has
 * configured for everywhere; it is up in the end. It goes back, or away, when its new namespace
 * does: that is the kernel's matter, and for a namespace that was joined its owner's.
 */
#ifndef RUNTIME_NET_DEVICES_H
#define RUNTIME_NET_DEVICES_H

#include "container.h"

/* In the parent: refuses by name what cannot be. Cheap without the field. */
int net_devices_check(const struct container *container, struct error *err);

/* In the parent, while the process waits in its network namespace (SYNC_DEVICES_MOVED). A device
 * that does not exist is found before any is moved. */
int net_devices_move(const struct container *container, struct error *err);

static inline bool net_devices_wanted(const struct container *container)
{
    const struct oci_linux *linux = container->config->linux;

    return linux && linux->net_devices && linux->net_devices->count;
}

#endif
