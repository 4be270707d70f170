/*
 * What stopping and restarting share.
 */
#ifndef ENGINE_STOP_H
#define ENGINE_STOP_H

#include <stdbool.h>

#include <base/error.h>
#include <monitor/protocol.h>
#include <schema/management.h>

struct container;
struct operation_kind;

/* What to tell the monitor. -EINVAL: no such signal. */
int stop_parse(const struct container *container, const struct api_container_stop *how,
               struct monitor_stop *ret, struct error *err);

/* Tells a monitor to end its container, which is active. A lost one is as good: container_ended()
 * comes in any case. */
void stop_send(struct container *container, const struct monitor_stop *how);

/* Whether it is an operation that ends the container: stop, restart. */
bool stop_is_kind(const struct operation_kind *kind);

/* What is submitted now would wait for the end of such an operation: it says at once how long it
 * would have waited itself, and the shortest time counts. */
void stop_ahead(struct container *container, const struct monitor_stop *how);

#endif
