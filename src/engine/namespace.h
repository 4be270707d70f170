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

/* A container that shares the network of another one has its hosts, hostname and resolv.conf, too:
 * paths of bundle_files (owned list; NULL: it has files of its own), and its name as hostname of
 * container->effective. On the loop's thread. */
int namespaces_share_files(struct container *container, char ***ret_files, struct error *err);
void namespaces_finish(struct namespaces *namespaces);

#endif
