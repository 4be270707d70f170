/*
 * Mounting in the mount namespace of a running container, by a child of ours that can be killed:
 * paths there are looked up among what the container may have put there.
 */
#ifndef ENGINE_USB_PLACE_H
#define ENGINE_USB_PLACE_H

#include "internal.h"

/* The mount namespace of the container's first process, if it is still the monitor's child. *ret_fd
 * and the process's owner are as the daemon sees them. -ESRCH: it is not. Reads procfs. */
int usb_place_open(const struct container *container, int *ret_fd, uid_t *ret_uid, gid_t *ret_gid,
                   struct error *err);

/* err NULL: it is done. device: st_dev of what was mounted. */
typedef void (*usb_place_done)(const struct error *err, uint64_t device, void *data);

/* Mounts mount_fd at the folder `target` of the namespace. The descriptors stay the caller's. done
 * comes once, later; not when this fails. */
int usb_place_mount(struct engine *engine, int namespace_fd, int mount_fd, const char *target,
                    usb_place_done done, void *data, struct error *err);
/* Takes every mount of this device and source out of it, whatever still uses them. */
int usb_place_unmount(struct engine *engine, int namespace_fd, uint64_t device, const char *source,
                      usb_place_done done, void *data, struct error *err);

#endif
