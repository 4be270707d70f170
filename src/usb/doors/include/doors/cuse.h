/*
 * A block device as a character device of the kernel's, over a descriptor of /dev/cuse that
 * somebody else has opened with O_NONBLOCK: for programs that want sectors (ioctl(2), as
 * cloche/usb.h has them) where the kernel has no NBD. Closing the descriptor takes the device away.
 *
 * CUSE tells no offset of read(2) and write(2), so each open file goes on where its last one ended.
 * The door answers with a thread of its own, one request after the other.
 */
#ifndef DOORS_CUSE_H
#define DOORS_CUSE_H

#include <block/device.h>

enum { CUSE_DOOR_NAME_MAX = 32 }; /* bytes, with the 0 */

struct cuse_door;

struct cuse_door_options {
    const char *name; /* of the device; borrowed for the call */
    bool read_only;   /* also where the medium is */

    /* Once, on the door's thread, unless the door is closed before; message: one line for people,
     * borrowed. Somebody else closes. NULL: nobody listens. */
    void (*ended)(struct cuse_door *door, int result, const char *message, void *data);
    void *data;
};

/* fd: taken over, also on failure. The medium outlives the door. When it returns the kernel has the
 * device. -EINVAL: a name that cannot be; -EPROTO, -ETIMEDOUT: it is no /dev/cuse. */
int cuse_door_open(struct block_device *medium, int fd, const struct cuse_door_options *options,
                   struct cuse_door **ret_door, struct error *err);

/* The request under way is done. NULL is fine. Not on the door's thread. */
void cuse_door_close(struct cuse_door *door);

#endif
