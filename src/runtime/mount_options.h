/*
 * The options of one entry of "mounts", sorted into what the kernel wants to be told where.
 */
#ifndef RUNTIME_MOUNT_OPTIONS_H
#define RUNTIME_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>

struct mount_options {
    uint64_t set, clear;                     /* MOUNT_ATTR_* of this mount */
    uint64_t set_recursive, clear_recursive; /* and of the mounts below it (rro, rnosuid ...) */
    uint64_t propagation; /* MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE, or 0 */
    bool propagation_recursive;
    bool bind;
    bool bind_recursive; /* rbind; bind is then set too */
    bool copy_up;        /* tmpcopyup: start a tmpfs with the content it hides */
    char **super; /* owned: flags of the super block (sync, dirsync, mand, lazytime, silent) */
    char **data;  /* owned: everything else, "key" or "key=value", for the file system */
};

/* options: NULL-terminated or NULL. Unknown words are data: the file system judges them. Options
 * that exist but are not built are refused by name. */
int mount_options_parse(char *const *options, struct mount_options *ret, struct error *err);
void mount_options_finish(struct mount_options *options);

/* The value of "key=" in the data, or NULL. Points into options. */
const char *mount_options_value(const struct mount_options *options, const char *key);

#endif
