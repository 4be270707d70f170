/*
 * USB devices of the machine and remote ones: what becomes of them, and their files in containers.
 * For the engine's other files; clients' calls are in <engine/usb.h>.
 */
#ifndef ENGINE_USB_H
#define ENGINE_USB_H

#include "internal.h"

int usb_migrate(struct store_db *db, struct error *err);

/* engine->usb, with what an earlier daemon has left running. Blocks shortly; never fails for the
 * lack of USB. */
void usb_open(struct engine *engine);
/* Containers are as they are known to be: what they want is done. */
void usb_settle(struct engine *engine);
/* Lets go of everything; sticks go on with their processes, or end with the instance. */
void usb_end(struct engine *engine, bool remove);
void usb_free(struct engine *engine);

/* The container's first process runs, or is gone. */
void usb_container_started(struct container *container);
void usb_container_ended(struct container *container);
/* Its processes were killed a while ago and have not ended: they may wait for a stick, whose
 * process is asked whether it lives; is_last: it is to give up what they wait for, too. */
void usb_container_stuck(struct container *container, bool is_last);

/* usbStorage and usbDevices of a specification. -EINVAL. Pure. */
int usb_spec_check(const struct api_container_spec *spec, struct error *err);
/* -EOPNOTSUPP: this engine has no sticks, or cannot pass devices. */
int usb_spec_check_engine(const struct engine *engine, const struct api_container_spec *spec,
                          struct error *err);

#endif
