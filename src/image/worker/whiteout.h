/*
 * Whiteouts: between the form of layers (names that begin with .wh., image specification layer.md)
 * and overlayfs' form.
 */
#ifndef IMAGE_WHITEOUT_H
#define IMAGE_WHITEOUT_H

#include <stdbool.h>
#include <sys/stat.h>

#include <base/error.h>

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

bool whiteout_is_name(const char *name); /* of an entry: begins with .wh. */

/* Carries out an entry with such a name in its folder. A file of the same layer is not hidden by
 * its layer's whiteouts: it stays, and a folder becomes opaque instead. */
int whiteout_apply(int folder_fd, const char *name, struct error *err);

/* Whether a file is an overlay whiteout. */
bool whiteout_is_device(const struct stat *status);
bool whiteout_is(int folder_fd, const char *name);

/* The folder hides what lower layers have in it. name NULL: folder_fd itself, which may be O_PATH.
 */
int whiteout_set_opaque(int folder_fd, const char *name, struct error *err);
bool whiteout_is_opaque(int folder_fd); /* not O_PATH */

#endif
