/* Which mounts of proc_pid_mountinfo(5) are of a stick. */
#ifndef ENGINE_USB_MOUNTINFO_H
#define ENGINE_USB_MOUNTINFO_H

enum { USB_MOUNTINFO_MAX = 16 * 1024 * 1024 };

/* Where the mount of this line is, when it is this device (MAJOR:MINOR), of the type that sticks
 * have and with this source: numbers of devices are used again. NULL: it is not. In the line, which
 * is written over. */
char *usb_mountinfo_point(char *line, const char *device, const char *source);

#endif
