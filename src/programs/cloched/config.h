/*
 * The configuration file of cloched: cloched.conf(5), runtime-spec/cloched.json.
 */
#ifndef CLOCHED_CONFIG_H
#define CLOCHED_CONFIG_H

#include <stddef.h>
#include <sys/types.h>

#include <base/error.h>
#include <base/instance.h>
#include <schema/cloched.h>

enum { CONFIG_BYTES_MAX = 1 << 20 };

/* Who is meant by a list of names and numbers. */
struct config_ids {
    unsigned *ids; /* owned */
    size_t count;
};

/* A listen section with its words understood. */
struct config_socket {
    const struct config_listen *section; /* of the file */
    char *path;                          /* owned, absolute */
    mode_t mode;
    uid_t owner;
    gid_t group;
    struct config_ids users, groups;
};

struct config {
    char *name; /* owned; of the file, for messages */
    struct config_file *file;
    struct config_socket *sockets; /* owned */
    size_t sockets_count;
};

/* given, else $CLOCHE_CONFIG, else the instance's own below /etc/cloche. A file that nobody has
 * named may be missing: there are no sections then. Anything that is not as it has to be is an
 * error with file and line. is_method: whether a pattern fits one. Blocks. */
int config_load(const char *given, const struct instance *instance,
                bool (*is_method)(const char *pattern), struct config **ret, struct error *err);
void config_free(struct config *config); /* NULL is nothing */

#endif
