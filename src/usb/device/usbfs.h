/* Transfers of one device by usbfs, the kernel's own interface (linux/usbdevice_fs.h). */
#ifndef USB_USBFS_H
#define USB_USBFS_H

#include <usb/transport.h>

#include "place.h"

struct usbdevfs_urb;

struct usbfs {
    int fd;    /* of /dev/bus/usb/BBB/DDD, borrowed */
    int epoll; /* -1: nobody watches */
    bool gone;
    struct usb_transfer *flying, **flying_last; /* under way, oldest first */
    struct place place;                         /* of who waits */

    /* One that waits has the end of the next transfer: were that taken from it, it would go on
     * sleeping. */
    pthread_mutex_t lock;
    pthread_cond_t awake;
    bool waits;
    struct usbdevfs_urb *reaped; /* by it; NULL: nothing */
};

/* Whether the controller takes memory of several pieces for one transfer. */
bool usbfs_scatters(int fd);

void usbfs_init(struct usbfs *usbfs, int fd);
void usbfs_finish(struct usbfs *usbfs);

/* As the operations of a transport that have these names. */
int usbfs_submit(struct usbfs *usbfs, struct usb_transfer *transfer);
void usbfs_cancel(struct usbfs *usbfs, struct usb_transfer *transfer);
void usbfs_collect(struct usbfs *usbfs, int timeout_ms);
void usbfs_wait(struct usbfs *usbfs, pthread_mutex_t *lock);
void usbfs_expire(struct usbfs *usbfs);
int usbfs_watch(struct usbfs *usbfs, int epoll, void *data, struct error *err);
int usbfs_next_timeout(const struct usbfs *usbfs);

#endif
