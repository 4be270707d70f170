/*
 * RUN/containers and RUN/runtime hold what is true only while containers run. /run is in memory on
 * most machines. Where it is a folder on a disk, each of the dozen files that a start writes and an
 * end deletes would go through that file system, and survive a restart of the machine that nothing
 * of it may survive: there they are file systems in memory of their own.
 */
#ifndef ENGINE_FOLDERS_H
#define ENGINE_FOLDERS_H

#include <base/instance.h>

/* Mounts them, where they are on a disk and empty: an earlier engine may have put containers there
 * that run. Without the right to mount they stay as they are. The caller is the only daemon of the
 * instance; both folders exist. */
void folders_hold(const struct instance *instance);

/* Unmounts them again unless there are containers. */
void folders_release(const struct instance *instance);

/* Unmounts them whatever is in them. */
void folders_remove(const struct instance *instance);

#endif
