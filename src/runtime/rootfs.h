/*
 * The container's root, step by step; all in the child.
 */
#ifndef RUNTIME_ROOTFS_H
#define RUNTIME_ROOTFS_H

#include "container.h"

/* Takes a new mount namespace out of the host's propagation and puts the root's mounts at a place
 * of their own. In the host's or in a joined namespace, which others live in, they are put over the
 * root's folder, and stay there when the container has ended, as with runc. Sets root_fd. */
int rootfs_attach(struct container *container, struct error *err);

/* linux.rootfsPropagation is a word that there is, and goes together with --no-pivot. */
int rootfs_check_propagation(const struct container *container, struct error *err);

/* /dev: the default devices, linux.devices, and the links. Left alone when /dev is a bind mount. */
int rootfs_devices(struct container *container, struct error *err);

/* The pty's slave over /dev/console. */
int rootfs_console(struct container *container, int slave_fd, struct error *err);

/* linux.maskedPaths and linux.readonlyPaths. */
int rootfs_mask_paths(struct container *container, struct error *err);
int rootfs_readonly_paths(struct container *container, struct error *err);

/* The working directory, made when it is missing. */
int rootfs_working_directory(struct container *container, struct error *err);

/* Makes it the process's root and drops the host's mounts. root.readonly and rootfsPropagation take
 * effect here. */
int rootfs_enter(struct container *container, struct error *err);

#endif
