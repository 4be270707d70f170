/*
 * What stopping and restarting share.
 */
#ifndef ENGINE_STOP_H
#define ENGINE_STOP_H

#include <base/error.h>
#include <monitor/protocol.h>
#include <schema/management.h>

struct container;

/* What to tell the monitor. -EINVAL: no such signal. */
int stop_parse(const struct container *container, const struct api_container_stop *how,
               struct monitor_stop *ret, struct error *err);

/* Tells a monitor to end its container, which is active. A lost one is as good: container_ended()
 * comes in any case. */
void stop_send(struct container *container, const struct monitor_stop *how);

#endif
