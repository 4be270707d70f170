/* A file system of FUSE without a place, for a volume that cloche-usb serves. */
#ifndef ENGINE_USB_FUSE_H
#define ENGINE_USB_FUSE_H

#include "usb_internal.h"

/* By what mounts of a stick are known; owned. */
char *usb_fuse_source(const struct stick *stick);
/* Owned by the machine's root, whoever the container's root is; all its users may use it as far as
 * modes say. The descriptors are the caller's. */
int usb_fuse_make(const struct api_usb_storage *storage, const char *source, int *ret_fuse_fd,
                  int *ret_mount_fd, struct error *err);
/* st_dev, without asking the file system, which may not answer (statx(2), AT_STATX_DONT_SYNC). 0:
 * unknown. */
uint64_t usb_fuse_device(int mount_fd);
/* How much of the mount the kernel keeps under way. */
void usb_fuse_set_cache(uint64_t device);

#endif
