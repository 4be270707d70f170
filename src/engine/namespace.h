/*
 * Which namespaces a container gets, by pidMode, ipcMode, utsMode and cgroupnsMode.
 */
#ifndef ENGINE_NAMESPACE_H
#define ENGINE_NAMESPACE_H

#include "bundle.h"
#include "internal.h"

struct namespaces {
    struct namespace_choice {
        struct bundle_namespace place;
        char *path; /* owned; what place.path points to */
    } pid, ipc, uts, cgroup;
};

/* On the loop's thread. -EBUSY, -ENOENT: a container whose namespace is to be joined does not run,
 * or is not there. namespaces_finish() is needed in any case. */
int namespaces_find(const struct container *container, struct namespaces *ret, struct error *err);
void namespaces_finish(struct namespaces *namespaces);

#endif
