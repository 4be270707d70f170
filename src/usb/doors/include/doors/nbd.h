/*
 * A block device over a connected socket, in the language of NBD: to the kernel's nbd driver, which
 * begins with requests, or to a client that negotiates first (fixed newstyle: nbd-client, qemu,
 * libnbd). Everything that is read from the socket is hostile.
 *
 * The door has two threads: one takes requests, of which many may be under way, one answers them.
 */
#ifndef DOORS_NBD_H
#define DOORS_NBD_H

#include <block/device.h>

enum {
    NBD_DOOR_REQUEST = 32 << 20, /* bytes that one request moves at most, and all under way */
    NBD_DOOR_DEPTH = 64,         /* requests under way */
};

struct nbd_door;

struct nbd_door_options {
    bool read_only;  /* also where the device is */
    bool negotiates; /* else the first thing that is read is a request */

    /* Once, on the door's thread, unless the door is closed before; message: one line for people,
     * borrowed. Somebody else closes. NULL: nobody listens. result: 0, the client has gone in
     * peace; -ECONNRESET, it has just gone; -EPROTO; -ENODEV, the device is gone. */
    void (*ended)(struct nbd_door *door, int result, const char *message, void *data);
    void *data;
};

/* fd: a connected stream socket; taken over, also on failure. The device outlives the door. */
int nbd_door_open(struct block_device *device, int fd, const struct nbd_door_options *options,
                  struct nbd_door **ret_door, struct error *err);

/* The requests under way are done, the socket is closed. NULL is fine. Not on the door's thread. */
void nbd_door_close(struct nbd_door *door);

/* What the door's thread does, on the caller's; fd stays the caller's. */
int nbd_serve(struct block_device *device, int fd, const struct nbd_door_options *options,
              struct error *err);

#endif
