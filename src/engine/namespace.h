/*
 * Which namespaces a container gets, by networkMode, pidMode, ipcMode, utsMode and cgroupnsMode.
 * Those of other containers are found by the monitor, anew for each run, and mounted in the bundle.
 */
#ifndef ENGINE_NAMESPACE_H
#define ENGINE_NAMESPACE_H

#include "bundle.h"
#include "internal.h"

#include <monitor/monitor.h>

struct namespaces {
    struct namespace_choice {
        struct bundle_namespace place;
        char *path; /* owned; what place.path points to */
    } network, pid, ipc, uts, cgroup;
    char *joined[MONITOR_JOINED_COUNT]; /* owned: bundles of the others; NULL: none */
    char *shm; /* owned: folder that is /dev/shm; NULL: none but its own or the machine's */
};

/* Whether there are the containers whose namespaces this one shall join. -EINVAL: one is not there.
 */
int namespaces_check(struct engine *engine, const struct api_container_spec *spec,
                     struct error *err);

/* On the loop's thread. -EBUSY, -ENOENT: a container whose namespace is to be joined does not run,
 * or is not there; -EINVAL: it does not share its IPC. namespaces_finish() is needed in any case.
 */
int namespaces_find(struct container *container, struct namespaces *ret, struct error *err);

/* A container that shares the network of another one has its hosts, hostname and resolv.conf, too:
 * paths of bundle_files (owned list; NULL: it has files of its own), and its name as hostname of
 * container->effective. On the loop's thread. */
int namespaces_share_files(struct container *container, char ***ret_files, struct error *err);
void namespaces_finish(struct namespaces *namespaces);

#endif
