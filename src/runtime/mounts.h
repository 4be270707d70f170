/*
 * The file systems of a container.
 *
 * Every place inside the root is resolved by the kernel below root_fd (openat2, RESOLVE_IN_ROOT)
 * and from then on held as a descriptor: the image's symbolic links cannot lead out, and nobody can
 * swap a component between check and mount (CVE-2021-30465).
 */
#ifndef RUNTIME_MOUNTS_H
#define RUNTIME_MOUNTS_H

#include "container.h"
#include "mount_options.h"

/* In the parent, for a container in a user namespace other than the caller's: opens the root and
 * the sources of bind mounts with the caller's rights. */
int mounts_open_sources(struct container *container, struct error *err);

/* In the child, from here on. Everything in "mounts", in order. Needs root_fd. */
int mounts_apply(struct container *container, struct error *err);

/* Attaches the cgroup mount of the configuration: v2 the container's cgroup, v1 a tmpfs with the
 * container's cgroup of each hierarchy. dest_fd is where. */
int mounts_cgroup(struct container *container, int dest_fd, const struct mount_options *options,
                  struct error *err);

/* A new file system, not attached. type may not be NULL; source may. mode_from: when >= 0 and no
 * mode= is given, the file system's root gets the mode of this directory (tmpfs). Returns a mount
 * descriptor. */
int mounts_new_filesystem(const char *type, const char *source, const struct mount_options *options,
                          int mode_from, struct error *err);

/* Applies attributes and propagation to a mount descriptor. */
int mounts_set_attributes(int mount_fd, const struct mount_options *options, struct error *err);

/* Copies what is in the directory from_fd into the directory to_fd (tmpcopyup). */
int mounts_copy_up(int from_fd, int to_fd, struct error *err);

#endif
