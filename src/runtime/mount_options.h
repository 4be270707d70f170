/*
 * The options of one entry of "mounts", sorted into what the kernel wants to be told where.
 *
 * The words of fstab are kept as mount(2) has them, MS_*, what was set and what was cleared: their
 * meaning together is not that of each alone (mount(2) lets strictatime win over noatime whatever
 * comes last), and what a bind mount inherits depends on what was said at all. The same words with
 * "r" in front are for the whole tree and go to mount_setattr(2) as they are.
 */
#ifndef RUNTIME_MOUNT_OPTIONS_H
#define RUNTIME_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum {
    MOUNT_PROPAGATIONS_MAX = 8,
    MOUNT_OPTION_NAMES_MAX = 96,
};

struct mount_options {
    unsigned long set, cleared;              /* MS_* that were named; the last word wins */
    uint64_t set_recursive, clear_recursive; /* MOUNT_ATTR_* of the tree (rro, rnosuid ...) */
    unsigned long propagation[MOUNT_PROPAGATIONS_MAX]; /* MS_SHARED ..., maybe MS_REC; in order */
    unsigned propagation_count;
    bool bind;
    bool bind_recursive; /* rbind; bind is then set too */
    bool remount;        /* change what is mounted there */
    bool copy_up;        /* tmpcopyup: start a tmpfs with the content it hides */
    bool id_map;         /* idmap or ridmap */
    bool id_map_recursive;
    bool copy_symlink;    /* a source that is a link is made again at the destination */
    bool source_nofollow; /* a source that is a link is mounted itself */
    bool destination_nofollow;
    char *id_map_ranges; /* owned; the text after "idmap=", else NULL */
    char **data;         /* owned; everything else, "key" or "key=value", for the file system */
};

/* options: NULL-terminated or NULL. Unknown words are data: the file system judges them. */
int mount_options_parse(char *const *options, struct mount_options *ret, struct error *err);
void mount_options_finish(struct mount_options *options);

/* The value of "key=" in the data, or NULL. Points into options. */
const char *mount_options_value(const struct mount_options *options, const char *key);

/* MOUNT_ATTR_* of a mount that is made with these options: what is not named is off, access times
 * are relative (mount(2)). */
uint64_t mount_options_attributes(unsigned long set);

/* All words that mean something here, sorted, for the features document. Returns their number;
 * the strings are not owned. */
size_t mount_options_names(const char *ret[MOUNT_OPTION_NAMES_MAX]);

#endif
