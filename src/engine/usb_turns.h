/* Jobs on other threads that are about one port, one after the other: what is taken from the
 * kernel's drivers and given to them ends as the last one says. */
#ifndef ENGINE_USB_TURNS_H
#define ENGINE_USB_TURNS_H

#include "usb_internal.h"

/* As errand_run(), when those of this port that were asked for before have ended; counted among the
 * errands. port "": of no port, which waits for nothing. */
void usb_turn_run(struct usb *usb, const char *port, uv_work_t *work, uv_work_cb run,
                  uv_after_work_cb done);

#endif
