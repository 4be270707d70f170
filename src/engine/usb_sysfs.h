/*
 * The kernel's side of USB devices: /sys/bus/usb. Everything here blocks (a device that does not
 * answer can hold its folder's files): other threads than the loop's, but usb_sysfs_open().
 */
#ifndef ENGINE_USB_SYSFS_H
#define ENGINE_USB_SYSFS_H

#include "usb_identity.h"

enum { USB_DEVICES_MAX = 1024 }; /* of a machine; others are not seen */

/* /sys/bus/usb/devices; -ENOENT: this kernel has no USB. */
int usb_sysfs_open(struct error *err);

/* All of it, from the device's folder. Blocks as sysfs does. -ENOENT: it is gone. */
int usb_identity_read(int devices_fd, const char *port, struct usb_identity *ret,
                      struct error *err);

/* All devices, hubs too but for the buses themselves. Those that cannot be read are left out, with
 * a word in the log. ret: owned. */
void usb_sysfs_scan(int devices_fd, struct usb_identity **ret, size_t *ret_count);

/* interface_authorized_default of every bus becomes 0; what it was is kept in the file at
 * record_path, before. restore: puts that back and removes the file. */
int usb_sysfs_exclude(int devices_fd, const char *record_path, struct error *err);
void usb_sysfs_restore(int devices_fd, const char *record_path);

/* Sets another configuration, without that a driver of the kernel's is looked for for its
 * interfaces: none of them is authorised afterwards. record_path: NULL where the bus is closed by
 * usb_sysfs_exclude(); else what the bus was is kept in this file meanwhile. Waits for the device.
 */
int usb_sysfs_configure(int devices_fd, const char *port, uint8_t value, const char *record_path,
                        struct error *err);

/* The device's interfaces may be used: those of mass storage only, without that a driver is looked
 * for (a driver is not looked for by authorising, which this relies on); or all, with the kernel's
 * drivers. ret_changed: some were not before. */
int usb_sysfs_authorize_storage(int devices_fd, const char *port, bool *ret_changed,
                                struct error *err);
int usb_sysfs_give_to_kernel(int devices_fd, const char *port, struct error *err);
void usb_sysfs_withdraw(int devices_fd, const char *port);

/* -EBUSY: a block device that the kernel made of the stick is mounted, or otherwise held. */
int usb_sysfs_check_unused(int devices_fd, const char *port, struct error *err);

/* The device's node, read-write: in /dev, or where nothing is there in a devtmpfs that nobody else
 * sees. */
int usb_sysfs_open_node(unsigned bus, unsigned device, struct error *err);

#endif
