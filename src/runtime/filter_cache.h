/*
 * Compiled filters, kept: libseccomp needs 20 ms for docker's default profile, more than everything
 * else that a start takes. A file "filter,HASH" in the runtime's state folder holds the profile's
 * JSON and the program; it is used only when that JSON, the version of libseccomp and the machine
 * are the same. The comma keeps it apart from containers, whose IDs have none.
 */
#ifndef RUNTIME_FILTER_CACHE_H
#define RUNTIME_FILTER_CACHE_H

#include "filter.h"

enum {
    FILTER_CACHE_FILES_MAX = 16,        /* further profiles are compiled each time */
    FILTER_CACHE_PROFILE_MAX = 1 << 20, /* bytes of JSON that are worth keeping */
};

/* As filter_compile(). root_fd: the folder with the state of all containers. A cache that cannot be
 * read or written is no failure. */
int filter_get(int root_fd, const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
               struct error *err);

#endif
