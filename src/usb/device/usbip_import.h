/* The first words on a connection to a USB/IP server. */
#ifndef USB_USBIP_IMPORT_H
#define USB_USBIP_IMPORT_H

#include <stdint.h>

#include <usb/transport.h>

#include "usbip.h"

/* answer: USBIP_OPERATION + USBIP_DEVICE bytes. Waits, at most timeout_ms. */
int usbip_import(int fd, const char *bus_id, unsigned timeout_ms, uint8_t *answer,
                 struct error *err);

/* As it is said in what describes a device. */
enum usb_speed usbip_speed(uint32_t speed);

#endif
