/*
 * The container's root, step by step; all in the child.
 */
#ifndef RUNTIME_ROOTFS_H
#define RUNTIME_ROOTFS_H

#include "container.h"

/* Takes the new mount namespace out of the host's propagation and puts the root's mounts at a place
 * of their own. Sets root_fd. */
int rootfs_attach(struct container *container, struct error *err);

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
int rootfs_pivot(struct container *container, struct error *err);

#endif
