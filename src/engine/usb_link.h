/*
 * The daemon's end of the conversation with the process of one stick (runtime-spec/usb.json):
 * requests by number, answers, events. All on the loop's thread; nothing blocks.
 */
#ifndef ENGINE_USB_LINK_H
#define ENGINE_USB_LINK_H

#include <uv.h>

#include <base/error.h>
#include <schema/usb.h>

enum {
    USB_LINK_LINE_MAX = 1 << 20,  /* bytes of a message */
    USB_LINK_REQUESTS_MAX = 1024, /* that are not answered: with more the other end is lost */
};

struct usb_link;

struct usb_link_handlers {
    void (*event)(const struct usb_stick_event *event, void *data);
    /* The other end is gone, did not keep to the protocol (why), or has left a request without an
     * answer for too long (is_late). Called once, after all open requests were answered;
     * usb_link_destroy() is then the owner's to call. */
    void (*closed)(const char *why, bool is_late, void *data);
};

/* err NULL: result is what the answer says, valid during the call; NULL: nothing. */
typedef void (*usb_link_reply)(const struct error *err, const struct usb_stick_result *result,
                               void *data);

/* Connects to the socket at path, whose listener may not have been asked yet. patience: seconds
 * within which a request that waits for nothing is answered; others have four times as many, and
 * those that take as long as they take (format, check; eject and the end) all the time. */
int usb_link_connect(uv_loop_t *loop, const char *path, unsigned patience,
                     const struct usb_link_handlers *handlers, void *data, struct usb_link **ret,
                     struct error *err);

/* Sends a request, of which version and id are set here; a descriptor (-1: none) goes along and
 * stays the caller's. reply (NULL: nobody cares) comes once, never before this returns. Returns its
 * number, as events of progress have it. */
uint64_t usb_link_request(struct usb_link *link, struct usb_stick_request *request, int fd,
                          usb_link_reply reply, void *data);

/* An answer to anything within so many seconds, or it is lost. */
void usb_link_hurry(struct usb_link *link, uint64_t request, unsigned seconds);

/* Not while what is lost is being told. */
bool usb_link_is_open(const struct usb_link *link);

/* Open requests are answered with -ECANCELED before it returns. NULL allowed. */
void usb_link_destroy(struct usb_link *link);

#endif
