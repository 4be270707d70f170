/*
 * The file of a container in its folder: what is known of it, and its configuration, as one JSON
 * object. One file, and written to in place, since a run takes longer for each file that is made
 * and removed where the folder is on a disk (ext4 looks for an inode that has not been removed
 * lately).
 */
#ifndef RUNTIME_RECORD_H
#define RUNTIME_RECORD_H

#include <stddef.h>

#include <base/buffer.h>
#include <base/error.h>

#define RECORD_FILE "status" /* crun's name: there are callers who wait for it */

enum {
    RECORD_CONFIG_MAX = 16 << 20,               /* bytes of a configuration */
    RECORD_MAX = RECORD_CONFIG_MAX + (1 << 20), /* and of the whole file */
};

/* The file's text, taken apart. All empty before it is read. */
struct record {
    char *text;         /* owned */
    const char *state;  /* in text; a JSON object of its own */
    const char *config; /* in text; as it was given */
    size_t config_length;
};

/* Makes the file. state: a JSON object in one line. ret_room: what record_update may need. */
int record_create(int directory_fd, const struct buffer *state, const char *config,
                  size_t config_length, size_t *ret_room, struct error *err);

/* Puts another state in the place of the first one, of the same length but for the numbers of
 * state.c's make_room. A process that is killed leaves one of them as a whole. */
int record_update(int directory_fd, const struct buffer *state, size_t room, const char *config,
                  size_t config_length, struct error *err);

/* -ENOENT when there is none, or not yet all of it. */
int record_read(int directory_fd, struct record *ret, struct error *err);
void record_finish(struct record *record);

#endif
