/*
 * Device nodes in the root of a container that runs.
 *
 * The container is hostile: it may put anything in the way at any moment. Paths are resolved in the
 * root of its first process by the kernel (openat2), and what has been made is looked at before it
 * gets its owner and mode. The worst that a race brings is an error, or the loss of a file of the
 * container's own.
 */
#ifndef RUNTIME_DEVICE_NODES_H
#define RUNTIME_DEVICE_NODES_H

#include <sys/stat.h>

#include <schema/oci_config.h>

#include <base/error.h>

#include "state.h"

/* Makes the node. Where devices of the container's file system do not work (a user namespace of its
 * own, or "nodev"), one is made outside and bound over an empty file. config: the container's. A
 * node of this device that is there is success, anything else there -EEXIST. */
int device_node_add(const struct stored *stored, const struct oci_config *config,
                    const struct oci_device *device, struct error *err);

/* Removes it, if what is there is this device; a missing one is success. */
int device_node_remove(const struct stored *stored, const struct oci_config *config,
                       const struct oci_device *device, struct error *err);

/* 0 when what has this status is the node that is wanted, else -EEXIST. */
int device_node_compare(const char *path, const struct stat *status, mode_t type, dev_t number,
                        struct error *err);

/* Before a container with a user namespace of its own is made: the nodes of linux.devices that the
 * host does not have as they are asked for, into container->device_fds. Others are left to be bound
 * from the host. */
int device_nodes_prepare(struct container *container, struct error *err);
void device_nodes_finish(struct container *container);

/* Inside of a process that may do anything to its own mount namespace: makes the node on a tmpfs
 * that is in no other namespace and returns a detached mount of it, or -errno. */
int device_node_detached(const struct oci_config *config, const struct oci_device *device,
                         struct error *err);

#endif
