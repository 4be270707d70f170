/*
 * Filling a volume so that it has all of it or nothing, whenever the daemon dies:
 *
 *     ROOT/volumes/NAME/_new-RANDOM    what is being copied; a daemon that starts deletes it
 *     ROOT/volumes/NAME/_ready         all of it; goes entry by entry to _data, by the next daemon
 * if need be
 *
 * No container sees either: they get _data. All of it blocks; paths are "NAME/_new-RANDOM", as
 * volume_fresh_path() made them, and folder is ROOT/volumes.
 */
#ifndef ENGINE_VOLUME_FRESH_H
#define ENGINE_VOLUME_FRESH_H

#include <stdbool.h>

#include <base/error.h>

char *volume_fresh_path(const char *name); /* owned by the caller */

/* Makes it, unless the volume has something already. */
int volume_fresh_begin(const char *folder, const char *path, bool *ret_wanted, struct error *err);
/* Gives what is in it to the volume, and its owner and mode; deletes it where the volume got
 * something else meanwhile. */
int volume_fresh_settle(const char *folder, const char *path, struct error *err);
void volume_fresh_discard(const char *folder, const char *path);

/* What an earlier daemon left of the volume NAME. folder_fd: ROOT/volumes. */
void volume_fresh_recover(int folder_fd, const char *name);

#endif
