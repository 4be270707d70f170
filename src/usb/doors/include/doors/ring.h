/*
 * A block device for programs that are linked with libcloche-usb: requests go through memory that
 * the program and the door share, and what is read and written stays where it is
 * (doors/ring_layout.h). The program is hostile.
 *
 * The door has one thread for all of its programs; what is done is told on the device's thread.
 */
#ifndef DOORS_RING_H
#define DOORS_RING_H

#include <block/device.h>

enum { RING_DOOR_PROGRAMS = 4 }; /* at a time; further ones wait for the socket */

struct ring_door;

struct ring_door_options {
    bool read_only; /* also where the device is */

    /* Once, on the door's thread, unless the door is closed before: nobody can connect any more.
     * message: one line for people, borrowed. Somebody else closes. NULL: nobody listens. */
    void (*ended)(struct ring_door *door, int result, const char *message, void *data);
    void *data;
};

/* fd: a listening socket of SOCK_SEQPACKET; taken over, also on failure. The device outlives the
 * door. */
int ring_door_open(struct block_device *device, int fd, const struct ring_door_options *options,
                   struct ring_door **ret_door, struct error *err);

/* What is under way is done, programs are disconnected. NULL is fine. Not on the door's thread. */
void ring_door_close(struct ring_door *door);

#endif
