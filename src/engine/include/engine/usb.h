/*
 * What clients ask of USB devices. All on the loop's thread; nothing blocks.
 */
#ifndef ENGINE_PUBLIC_USB_H
#define ENGINE_PUBLIC_USB_H

#include <engine/engine.h>
#include <engine/registry.h>
#include <schema/usb_settings.h>

/* The configuration's section, taken over; NULL: there is none. Its rules count at once, the rest
 * when the daemon starts. -EINVAL: a rule cannot be understood, and nothing has changed. */
int engine_set_usb(struct engine *engine, struct usb_settings_settings *settings,
                   struct error *err);

/* Owned by the caller. */
struct api_usb_sticks *engine_usb_list(struct engine *engine, bool all);
/* -ENOENT, -EEXIST: several fit. */
int engine_usb_inspect(struct engine *engine, const char *reference, struct api_usb_stick **ret,
                       struct error *err);

/* The documents are as with images. */
void engine_usb_attach(struct engine *engine, const struct api_usb_attach *what,
                       engine_image_done done, void *data); /* api_usb_stick */
void engine_usb_detach(struct engine *engine, const char *reference, engine_image_done done,
                       void *data); /* api_empty */
void engine_usb_eject(struct engine *engine, const char *reference, engine_image_done done,
                      void *data); /* api_empty */
void engine_usb_statistics(struct engine *engine, const char *reference, engine_image_done done,
                           void *data); /* api_usb_statistics */
/* What runs on a stick: NULL when done was called already. */
struct stick_call;
/* done of total steps, whatever these are. */
typedef void (*engine_usb_progress)(uint64_t done, uint64_t total, void *data);
struct stick_call *engine_usb_format(struct engine *engine, const struct api_usb_format *how,
                                     engine_usb_progress progress, engine_image_done done,
                                     void *data); /* api_empty */
struct stick_call *engine_usb_check(struct engine *engine, const struct api_usb_check *how,
                                    engine_usb_progress progress, engine_image_done done,
                                    void *data); /* api_usb_checked */
/* Asks for its early end, before done was called: that comes with -ECANCELED, or as it would have.
 */
void engine_usb_cancel(struct stick_call *call);

struct api_usb_policy *engine_usb_policy(struct engine *engine); /* owned by the caller */
void engine_usb_policy_add(struct engine *engine, const struct api_usb_policy_add *what,
                           engine_image_done done, void *data); /* api_usb_policy_ref */
void engine_usb_policy_remove(struct engine *engine, int64_t id, engine_image_done done,
                              void *data); /* api_empty */

/* The daemon's program is also the child that mounts and unmounts in a container. */
#define ENGINE_USB_PLACE_OPTION "--usb-place"
int engine_usb_place(void);

#endif
