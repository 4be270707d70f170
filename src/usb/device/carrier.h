/* What carries commands to the units of a device: bulk-only transport or UAS. */
#ifndef USB_CARRIER_H
#define USB_CARRIER_H

#include <stdbool.h>

#include <usb/disk.h>

#include "bot.h"
#include "enumerate.h"

struct carrier_ops {
    enum usb_protocol protocol;

    /* 0; -EBUSY: not before another has ended; -ENODEV; -EPROTONOSUPPORT: carrier_fall_back() is to
     * be called, from without any callback. */
    int (*submit)(void *data, struct usb_command *command);
    /* For the end: that of all commands. */
    void (*cancel)(void *data);
    bool (*is_quiet)(const void *data); /* no transfer is under way */
    const struct bot_counts *(*counts)(const void *data);
    void (*destroy)(void *data);
};

struct carrier {
    const struct carrier_ops *ops;
    void *data;
    unsigned depth; /* commands at once */
    struct usb_transport *transport;
    struct usb_found found;
    uint32_t recovery_ms;
    struct bot_counts before; /* of the one that was fallen back from */
};

/* The interface is claimed. UAS, where it is there and there are streams where they must be, else
 * bulk-only transport. ret_units: bit n: there is a unit n; never 0. Waits. -ENODEV, -ENOTSUP. */
int carrier_open(struct carrier *carrier, struct usb_transport *transport,
                 const struct usb_found *found, uint32_t recovery_ms, uint16_t *ret_units);
/* UAS has failed: on with bulk-only transport. It is quiet. -ENODEV, -ENOTSUP: there is none. */
int carrier_fall_back(struct carrier *carrier);
struct bot_counts carrier_counts(const struct carrier *carrier);
void carrier_finish(struct carrier *carrier); /* it is quiet; one that was not opened is fine */

#endif
