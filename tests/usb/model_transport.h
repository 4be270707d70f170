/*
 * The stick model (stick.h) in the same process, as a transport: what a transfer comes to is seen
 * by whoever tests before it ends. Time is theirs, too (clock_ticks()).
 */
#ifndef TESTS_USB_MODEL_TRANSPORT_H
#define TESTS_USB_MODEL_TRANSPORT_H

#include <usb/transport.h>

#include "stick.h"

struct model_transport_options {
    /* Before a transfer ends; what it got may be another thing then. May be NULL. */
    void (*ends)(struct usb_transfer *transfer, enum usb_status *status, uint32_t *actual);
    /* The transport waits so long, and nothing can come meanwhile. */
    void (*time_goes_on)(int milliseconds);
};

/* stick stays the caller's, and is there as long as the transport. */
struct usb_transport *model_transport_create(struct stick *stick,
                                             const struct model_transport_options *options);

#endif
