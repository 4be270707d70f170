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

/* One entry of "mounts", as far as it is done. */
struct mount_entry {
    const struct oci_mount *mount;
    struct mount_options options;
    const char *destination; /* in the root; points into mount */
    char *source;            /* owned; of a bind: absolute, or below the root if source_in_root */
    bool bind, bind_recursive;
    bool source_in_root; /* what earlier entries have mounted counts */
    int source_fd;       /* a detached copy of the source, opened in the parent; -1 */
    int user_fd;         /* the user namespace with the mapping; -1: none, or the container's */
    int late_fd;         /* mounted, read-only as soon as the root is complete; -1 */
    int attached_fd;     /* of a running container: what was mounted; -1 */
};

/* Sorts the entries into container->mounts and refuses by name what is wrong with them. Needs
 * config, bundle and rootfs. */
int mounts_parse(struct container *container, struct error *err);
void mounts_finish(struct container *container);

/* Opens the root and the sources of bind mounts with the caller's rights, for a container in a user
 * namespace other than the caller's. */
int mounts_open_sources(struct container *container, struct error *err);

/* In the parent, before the child is made: mounts_open_sources where that has to be out here, and
 * the user namespaces of idmapped mounts. */
int mounts_prepare(struct container *container, struct error *err);

/* In the parent, when the container's user namespace has its maps and the child waits: idmapped
 * mounts that take their mapping from it. */
int mounts_map_users(struct container *container, struct error *err);

/* In the parent, while the child mounts: maps what only the child can open and only the parent can
 * map, and returns when the child has all of them. */
int mounts_serve(struct container *container, struct error *err);

/* In the child, from here on. Everything in "mounts", in order. Needs root_fd. */
int mounts_apply(struct container *container, struct error *err);

/* One of them. */
int mounts_apply_entry(struct container *container, struct mount_entry *entry, struct error *err);

/* Whether the descriptor is of the container's root itself. */
bool mounts_is_root(const struct container *container, int fd);

/* For a container that is running, in a process that still sees the host's mounts: opens and maps
 * the sources. */
int mounts_prepare_running(struct container *container, struct error *err);

/* When nothing is to be made in the root any more: what is read-only becomes so; /proc is verified
 * to be what it should be. */
int mounts_complete(struct container *container, struct error *err);

/* The steps of mounts_apply for one kind each. */
int mounts_bind(struct container *container, struct mount_entry *entry, struct error *err);
int mounts_filesystem(struct container *container, struct mount_entry *entry, struct error *err);
int mounts_remount(struct container *container, struct mount_entry *entry, struct error *err);

/* Attaches the cgroup mount of the configuration: v2 the cgroup file system, v1 a tmpfs with the
 * container's cgroup of each hierarchy. dest_fd is where. */
int mounts_cgroup(struct container *container, struct mount_entry *entry, int dest_fd,
                  struct error *err);

/* The place to mount on, made when it is missing: a directory, or a file. *ret_made: it was
 * missing; may be NULL. Returns an O_PATH descriptor. */
int mounts_open_destination(struct container *container, const struct mount_entry *entry,
                            bool directory, bool *ret_made, struct error *err);

/* Puts the detached mount at the place. On the root itself, the root is what was mounted. */
int mounts_attach(struct container *container, int mount_fd, int dest_fd, struct error *err);

/* A new file system, not attached. type may not be NULL; source may. mode_from: when >= 0 and no
 * mode= is given, the file system's root gets the mode of this directory (tmpfs). Returns a mount
 * descriptor. */
int mounts_new_filesystem(const char *type, const char *source, const struct mount_options *options,
                          int mode_from, struct error *err);

/* The options of a bind mount or a remount. As mount(8) --bind has it: options that are named are
 * all there are, without any the source's stay; access times stay unless one of them is named.
 * emulate_locks: behave as if the flags of the source were locked (mount_namespaces(7)), since the
 * copy was made where they are not. */
int mounts_set_bind_flags(int mount_fd, const struct mount_options *options, bool emulate_locks,
                          struct error *err);

/* Flags in addition to those that the mount has (MS_*; of the access times, in place of them); with
 * those below it. 0 or -errno. */
int mounts_add_flags(int mount_fd, unsigned long flags, bool recursive);

/* Options of the whole tree and propagation. */
int mounts_set_tree(int mount_fd, const struct mount_options *options, struct error *err);

/* A new user namespace that stands for the mapping of the entry, as a descriptor. */
int mounts_new_mapping(struct container *container, const struct mount_entry *entry,
                       struct error *err);

/* The user namespace of the entry's mapping as far as it is there: its own or one that the
 * container joins. Borrowed; -1. */
int mounts_mapping_of(const struct container *container, const struct mount_entry *entry);

/* Maps the detached mount by the user namespace. */
int mounts_set_mapping(int mount_fd, const struct mount_entry *entry, int user_fd,
                       struct error *err);

/* In the child: has the parent map it (mounts_serve). */
int mounts_ask_mapping(struct container *container, const struct mount_entry *entry, int mount_fd,
                       struct error *err);

/* Whether mounts_ask_mapping is needed for the entry. */
bool mounts_needs_mapping_by_parent(const struct container *container,
                                    const struct mount_entry *entry);

/* Copies what is in the directory from_fd into the directory to_fd (tmpcopyup). proc_fd: the host's
 * /proc. */
int mounts_copy_up(int from_fd, int to_fd, int proc_fd, struct error *err);

#endif
