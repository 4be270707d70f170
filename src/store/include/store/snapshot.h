/*
 * Roots of containers: an overlay of an image's layers (read-only) and an upper folder of the
 * container's own. Mounts are detached (fsopen + fsmount): nothing shows in any mount table until
 * the monitor attaches the descriptor in its own namespace.
 *
 * Thread-safe and blocking as all of the store.
 */
#ifndef STORE_SNAPSHOT_H
#define STORE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <store/store.h>

/* Files are on disk with the IDs that the container sees, whatever user namespace it has: a
 * container with one gets its root by a mapped mount (Linux 5.19: idmapped layers of overlayfs).
 * Layers are shared by all mappings so, and what reads an upper folder never meets IDs of the
 * host. */
struct store_users {
    int namespace_fd;  /* a user namespace with the container's mapping */
    uint32_t root_uid; /* what its user 0 is on the host */
    uint32_t root_gid;
};

/* Records that container (a lowercase hex ID) uses image_id, and makes
 * ROOT/containers/ID/{upper,work}. The image's layers live at least as long as the snapshot.
 * mapping: by which it will be mounted, as the record names it; NULL: none.
 * -EEXIST when the container has one. Joins the transaction that the calling thread has open, so
 * that the engine's record and this one cost one commit; when that is rolled back the folders are
 * garbage that store_snapshot_remove() deletes. */
int store_snapshot_prepare(struct store *store, const char *image_id, const char *container,
                           const char *mapping, struct error *err);

/* What the container writes may take at most so many bytes, those of the file system that keeps
 * them included: a file of that size with an ext4 in it, made by mkfs.ext4 at the first mount, on a
 * loop device. Before the first mount; -EINVAL below STORE_DISK_MIN. */
enum { STORE_DISK_MIN = 4 * 1024 * 1024 };
int store_snapshot_limit(struct store *store, const char *container, uint64_t bytes,
                         struct error *err);

/* A detached overlay mount of it; *ret_fd is the caller's. Each call makes a new mount: at most one
 * may live at a time (the kernel's overlay wants upper and work for itself: -EBUSY).
 *
 * users: files show with the owners that they have on the host for a container in that namespace;
 * NULL: with those on disk, which are the container's own. -EOPNOTSUPP: the kernel or the store's
 * file system cannot do it, which the message says.
 *
 * passing: the container is removed when it has ended (--rm), so that nobody will read its files
 * after a power cut: mounted "volatile" (Linux 5.10), fsync does nothing and unmounting does not
 * wait for the whole file system's writes (0.1 instead of 30 ms and more on a busy disk). */
int store_snapshot_mount(struct store *store, const char *container, bool passing,
                         const struct store_users *users, int *ret_fd, struct error *err);

/* As passing, of what is no container: without the layer that the engine adds to those of an image
 * for /.dockerenv, /etc/mtab and the files that it mounts in /etc. */
int store_snapshot_mount_image(struct store *store, const char *container, int *ret_fd,
                               struct error *err);

/* The upper folder, opened for reading, for a commit; the caller's. Of a limited one the file
 * system stays mounted below ROOT/containers/ID until the snapshot is mounted again or goes. */
int store_snapshot_open_upper(struct store *store, const char *container, int *ret_fd,
                              struct error *err);

enum store_change_kind { STORE_CHANGE_MODIFIED, STORE_CHANGE_ADDED, STORE_CHANGE_DELETED };
struct store_change {
    char *path; /* absolute, in the container */
    enum store_change_kind kind;
};

/* What differs from the image, by path: reads the upper folder, and of the layers only what it has,
 * too. Of a folder that took the place of another one, the files that went with that are not told.
 * The list is the caller's (store_changes_free). */
int store_snapshot_changes(struct store *store, const char *container, struct store_change **ret,
                           size_t *ret_count, struct error *err);
void store_changes_free(struct store_change *changes, size_t count);

/* Bytes of the regular files in the upper folder (docker's SizeRw). Walks it. */
int store_snapshot_usage(struct store *store, const char *container, uint64_t *ret,
                         struct error *err);

/* Deletes ROOT/containers/ID (with the engine's files in it) and the record, and what only it kept
 * alive. The mount must be gone. A missing snapshot is success. */
int store_snapshot_remove(struct store *store, const char *container, struct error *err);

/* The same in two steps, for a removal that is over before its files are gone: the record, in the
 * caller's transaction if there is one, and what it leaves. last: nothing else kept the image. What
 * is not cleared is found at the next opening. */
int store_snapshot_forget(struct store *store, const char *container, bool *ret_last,
                          struct error *err);
int store_snapshot_clear(struct store *store, const char *container, bool last, struct error *err);

/* IDs of all containers with a snapshot (owned list): the engine removes those it has no record of.
 */
int store_snapshot_list(struct store *store, char ***ret, struct error *err);

#endif
