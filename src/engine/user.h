/*
 * The user of a container's processes: "user[:group]", names or numbers, looked up in /etc/passwd
 * and /etc/group of its own root, as docker does.
 *
 * Those files are hostile. They are opened by the kernel's rules inside the root (openat2, no magic
 * links, not across a mount), must be regular files, and are read up to a limit; so a lookup
 * touches nothing but our own disk and cannot be made to wait. It is done on the engine's disk
 * thread all the same.
 */
#ifndef ENGINE_USER_H
#define ENGINE_USER_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum {
    USER_FILE_MAX = 1024 * 1024, /* bytes of passwd or group that are looked at */
    USER_GROUPS_MAX = 1024,      /* supplementary groups taken from it */
};

struct user {
    uint32_t uid;
    uint32_t gid;
    uint32_t *additional_gids; /* owned; gid first, then the groups that list the user */
    size_t additional_gids_count;
    char *home; /* owned; "/" when unknown */
};

/* What is looked up. Nothing is owned. */
struct user_question {
    const char *user;    /* NULL or "" is the user with uid 0 */
    char *const *groups; /* further ones, names or numbers; NULL: none */
};

/* root_fd: directory (O_PATH will do) of the container's root, or of its mount in a monitor's
 * namespace. Blocks for our own disk. -ENOENT: a name is in neither file. */
int user_resolve(int root_fd, const struct user_question *question, struct user *ret,
                 struct error *err);

/* The same over the text of the two files. Pure. */
int user_lookup(const char *passwd, const char *group, const struct user_question *question,
                struct user *ret, struct error *err);

void user_finish(struct user *user);

#endif
