/*
 * Starting the other programs: cloche-monitor for a container, cloche-runtime to clean up.
 */
#ifndef ENGINE_SPAWN_H
#define ENGINE_SPAWN_H

#include <base/process.h>

#include "internal.h"
#include "namespace.h"

enum { RUNTIME_DELETE_TIMEOUT_MS = 10000 }; /* then `runtime delete` is killed */

/* That this process is the container's monitor, in its record. */
void spawn_note_monitor(struct container *container, pid_t pid);

/* Starts the monitor of a container whose bundle is written, and connects it as container->link.
 * rootfs_fd, netns_fd and userns_fd (-1: none) stay the caller's. */
int spawn_monitor(struct container *container, const struct namespaces *namespaces, int rootfs_fd,
                  int netns_fd, int userns_fd, struct error *err);

/* Starts `cloche-runtime delete --force ID`; any thread. */
int spawn_delete_program(const struct engine *engine, const char *id, struct process *ret,
                         struct error *err);

/* The same on the loop's thread, killed after some seconds. ended gets the status. */
int spawn_runtime_delete(struct engine *engine, const char *id, void (*ended)(int, void *),
                         void *data, struct error *err);

#endif
