/*
 * The container's root, step by step; all in the child.
 */
#ifndef RUNTIME_ROOTFS_H
#define RUNTIME_ROOTFS_H

#include "container.h"

/* Takes a new mount namespace out of the host's propagation and puts the root's mounts at a place
 * of their own. In the host's or in a joined namespace, which others live in, they are put over the
 * root's folder, and stay there when the container has ended. Sets root_fd. */
int rootfs_attach(struct container *container, struct error *err);

/* In the parent, before the child is made: which mount that will be in the host's namespace, for
 * rootfs_detach_shared. It takes away the mount of that number, with all that is mounted below it,
 * if it is still what lies on top of the folder: not one of the user's. 0: nothing to do. */
int rootfs_note_shared(struct container *container, struct error *err);
void rootfs_detach_shared(const char *rootfs, uint64_t mount);

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
