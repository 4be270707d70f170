/*
 * What checkpoint and restore have to agree on: how the parts of a container that are not saved are
 * called in the images. The names are runc's, so that either can restore what the other saved.
 */
#ifndef RUNTIME_CHECKPOINT_H
#define RUNTIME_CHECKPOINT_H

#include <schema/oci_config.h>

#include <base/buffer.h>

#include "cgroup.h"

#define CHECKPOINT_DESCRIPTORS "descriptors.json" /* beside the images */
#define CHECKPOINT_NETWORK_KEY "extRootNetNS"
#define CHECKPOINT_PID_KEY "extRootPidNS"

enum { CHECKPOINT_DESCRIPTORS_MAX = 1 << 16 }; /* bytes of that file */

bool checkpoint_is_bind(const struct oci_mount *mount);

/* The path of a mount's place below the root, without links. Owned by the caller. */
char *checkpoint_mount_place(int root_fd, const char *destination);

/* Cgroups are mounted from the host's trees: their places, or, when they come back, these. */
void checkpoint_add_cgroups(struct buffer *out, const struct oci_config *config,
                            const struct cgroup *cgroup, bool back);

/* Nodes of /dev may be mounts of the host's. */
void checkpoint_add_devices(struct buffer *out, const struct oci_config *config);

#endif
