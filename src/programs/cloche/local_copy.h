/*
 * The machine's side of a copy: cloche-image packs or unpacks with the rights of whoever calls, the
 * other end of its pipe being the daemon's.
 */
#ifndef CLOCHE_LOCAL_COPY_H
#define CLOCHE_LOCAL_COPY_H

#include <stdbool.h>

#include <base/error.h>
#include <image/worker.h>

/* A file or folder that is copied. */
struct local_source {
    int fd;     /* of itself when it is a folder, else of the folder it is in */
    char *path; /* owned; of it in fd */
    char *name; /* owned; what it is called: "." for FOLDER/. */
    bool folder;
};

/* follow: also a link at the end of path. -ENOENT and the like with a message. */
int local_source_open(const char *path, bool follow, struct local_source *ret, struct error *err);
void local_source_finish(struct local_source *source);

/* Where something is copied to: an open folder, and the name there. */
struct local_target {
    int fd;
    char *name; /* owned; NULL: what the source is called */
};

/* By docker's rules: into a folder that is there, over a file, or as something new. */
int local_target_open(const char *path, bool source_is_folder, struct local_target *ret,
                      struct error *err);
void local_target_finish(struct local_target *target);

/* Starts the worker; *ret_fd is the end of the pipe for the daemon, the caller's.
 * name: of the copy. keep_owner: entries belong to whom the files belong to, else to root. */
int local_pack(const struct local_source *source, const char *name, bool keep_owner,
               struct image_worker **ret, int *ret_fd, struct error *err);
/* keep_owner: files belong to whom the archive says (root only), else to the caller. */
int local_place(const struct local_target *target, bool keep_owner, struct image_worker **ret,
                int *ret_fd, struct error *err);

#endif
