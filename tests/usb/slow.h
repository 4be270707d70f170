/* A block device whose requests take their time, one after the other, as those of a stick do. */
#ifndef TESTS_USB_SLOW_H
#define TESTS_USB_SLOW_H

#include <block/device.h>

/* Takes `below` over, which is destroyed with it. microseconds: of every request. */
struct block_device *slow_create(struct block_device *below, unsigned microseconds);

#endif
