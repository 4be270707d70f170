/*
 * What was asked to end has to end. A monitor that does not answer any more is killed, and its
 * container recovered as one whose monitor is gone; when the monitor is well and a process of the
 * container does not die, whoever waits for its end is told so.
 */
#ifndef ENGINE_WATCHDOG_H
#define ENGINE_WATCHDOG_H

#include "internal.h"

/* It was asked to end: SIGKILL comes (or has come) after timeout_ms, < 0: never. The soonest of
 * several counts. */
void watchdog_start(struct container *container, int32_t timeout_ms);
/* Whether SIGKILL has come. */
bool watchdog_has_killed(const struct container *container);
/* It has ended; or the daemon ends. */
void watchdog_stop(struct container *container);

/* Told of its end as engine_container_wait() tells, or that it does not end though it was killed.
 */
void waiters_add_killer(struct container *container, engine_done done, void *data);
void waiters_kill_failed(struct container *container, const struct error *err);

#endif
