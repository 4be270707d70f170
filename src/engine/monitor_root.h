/*
 * The root of a container whose monitor lives: mounted in the monitor's mount namespace, before its
 * first run, between two, and after its process has gone.
 */
#ifndef ENGINE_MONITOR_ROOT_H
#define ENGINE_MONITOR_ROOT_H

#include "internal.h"

/* A detached mount of the same file system, without what the container mounts in it. Blocks for a
 * thread of its own. -EAGAIN: the monitor is gone. */
int monitor_root_open(pid_t monitor, const struct container *container, int *ret_fd,
                      struct error *err);

#endif
