/*
 * Files: whole reads and writes, atomic replacement, and paths that are resolved by the kernel
 * inside a root (openat2, Linux 5.6) and therefore cannot leave it through links or "..".
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/buffer.h>
#include <base/error.h>

/* Opens path under the directory root_fd as if root_fd were "/" (RESOLVE_IN_ROOT,
 * RESOLVE_NO_MAGICLINKS). O_CLOEXEC is always added. Returns a descriptor or -errno. */
int file_open_in_root(int root_fd, const char *path, int flags, mode_t mode);

/* The same with further RESOLVE_* flags (RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV). */
int file_open_in_root_flags(int root_fd, const char *path, int flags, mode_t mode,
                            uint64_t resolve);

/* Creates path and its missing parents as directories inside root_fd. Returns an O_PATH
 * descriptor of the last one, or -errno. Symbolic links are followed inside the root, and their
 * targets made there when they are missing. */
int file_mkdir_in_root(int root_fd, const char *path, mode_t mode, struct error *err);

/* The parent directory of path inside root_fd, created where missing when mode is not 0, as an
 * O_PATH descriptor, and the last component (points into path). -EINVAL when path ends in "..",
 * "." or is the root itself. */
int file_open_parent_in_root(int root_fd, const char *path, mode_t mode, const char **ret_name,
                             struct error *err);

/* Creates the file path inside root_fd, and its missing parents with directory_mode. Where path
 * ends in a symbolic link to nothing, the link's target is created. -EEXIST when there is a file.
 * Returns a descriptor for writing. */
int file_create_in_root(int root_fd, const char *path, mode_t directory_mode, mode_t mode,
                        struct error *err);

/* Reads all of fd / of path (relative to dir_fd, AT_FDCWD allowed), at most limit bytes: more is
 * -EFBIG. The text is NUL-terminated; the length is also returned where ret_length is not NULL. */
int file_read_fd(int fd, size_t limit, char **ret_text, size_t *ret_length, struct error *err);
int file_read_at(int dir_fd, const char *path, size_t limit, char **ret_text, size_t *ret_length,
                 struct error *err);

/* The same for a file in a folder that may be somebody else's: a pipe or a device that neither the
 * caller nor root put there, which could hold the reader up for ever, is -EPERM. */
int file_read_foreign(const char *path, size_t limit, char **ret_text, size_t *ret_length,
                      struct error *err);

/* Writes all of it, through short writes and EINTR. */
int file_write_all(int fd, const void *data, size_t length);

/* Writes to an existing file without creating or truncating it (sysfs, procfs, cgroupfs), in one
 * write(2). */
int file_write_existing_at(int dir_fd, const char *path, const void *data, size_t length,
                           struct error *err);

/* Writes beside path and renames over it: readers see the old or the new file, never a part. No
 * fsync (see the store for durability). Nothing is left behind on failure. */
int file_replace_at(int dir_fd, const char *path, const void *data, size_t length, mode_t mode,
                    struct error *err);

/* renameat2(RENAME_NOREPLACE), which not every libc has; -EEXIST when there is something at `to`
 * already. _at: within one folder. */
int file_rename_free(int from_fd, const char *from, int to_fd, const char *to);
int file_rename_free_at(int dir_fd, const char *from, const char *to);

/* mkdir -p for a path of our own. */
int file_mkdir_parents(const char *path, mode_t mode, struct error *err);

enum { FILE_ARCHIVE_LOOK = 512 }; /* bytes of its start that tell a tar: its first header */

/* Whether something that begins so is a tar, plain or compressed (gzip, bzip2, xz, zstd), as far as
 * docker tells these from Dockerfiles. */
bool file_is_archive(const char *start, size_t length);

/* Removes a tree without following links and without crossing mounts (a mount point inside is an
 * error -EBUSY, not descended into), whatever chattr(1) made immutable or append-only in it, with a
 * limited number of descriptors however deep it is. A missing path is success. */
int file_remove_tree_at(int dir_fd, const char *path, struct error *err);

#endif
