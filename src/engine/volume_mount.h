/*
 * Volumes with options: what these say is mounted on the volume's _data, in the machine's mount
 * namespace, once however many containers that run have the volume. It stays when the daemon ends,
 * and is unmounted when the last of them has ended, or by the next daemon. A copy into a container
 * that does not run, or out of it, has its volumes as if it ran.
 *
 * A child of ours mounts (look.h), since a server may not answer; a thread of its own unmounts.
 * Both hold a lock on the volume's folder meanwhile, so that who starts while the last one ends
 * finds it mounted or mounts it again.
 */
#ifndef ENGINE_VOLUME_MOUNT_H
#define ENGINE_VOLUME_MOUNT_H

#include "internal.h"

struct volume;
struct volume_use;

/* How many containers that run have it; shared with threads. */
struct volume_use *volume_use_new(void);
void volume_use_unref(struct volume_use *use); /* NULL allowed */

/* Whether a mount of a container is such a volume. Pure. */
bool volume_has_options(const struct api_mount *mount);

/* The container has begun to run, or has ended: what nobody has any more is unmounted some time
 * soon. */
void volumes_use_changed(const struct container *container);
/* As if it ran, for a look at its files: look_for_volumes() mounts. Both times once. */
void volumes_hold(struct container *container, bool hold);
/* After the records were read: what an earlier daemon left. */
void volumes_use_settle(struct engine *engine);

/* Argument for the child, owned: what is mounted where. */
char *volume_mount_request(const struct engine *engine, const struct api_mount *mount);
/* In the child. -errno, with docker's words. */
int volume_mount_run(const char *request, struct error *err);

/* Unmounts; before the volume's files are removed. folder: ROOT/volumes/NAME. Blocks. */
void volume_unmount(const char *folder);

#endif
