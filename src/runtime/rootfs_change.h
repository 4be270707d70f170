/*
 * The last step into the root: the process's own "/" becomes root_fd.
 */
#ifndef RUNTIME_ROOTFS_CHANGE_H
#define RUNTIME_ROOTFS_CHANGE_H

#include "container.h"

/* pivot_root(2), and the host's mounts are gone. On an initramfs, which cannot be pivoted, the
 * hardened chroot. */
int rootfs_pivot(struct container *container, struct error *err);

/* For --no-pivot: the root lies on top of "/", so that there is nothing to climb to. The host's
 * mounts stay in the namespace, unreachable by any path. Its procfs and sysfs are unmounted all the
 * same: as long as a whole one is there, the kernel lets a user namespace mount new ones without
 * the masks of ours (mount_too_revealing() in fs/namespace.c). */
int rootfs_chroot_hardened(struct container *container, struct error *err);

/* In a mount namespace that others live in: a pivot would change their root as well. */
int rootfs_chroot(struct container *container, struct error *err);

#endif
