/*
 * What of a disk is not read twice alike, by an input: which readings of a sector are others (a
 * byte, see recorder_vary()), and then, piece by piece, where they are (2 bytes, in steps of 32),
 * how long (a byte), which bits of each byte are turned.
 */
#ifndef FUZZ_USB_VARYING_H
#define FUZZ_USB_VARYING_H

#include <stdint.h>

#include <block/bytes.h>

#include "../usb/recorder.h"

enum { VARYING = 0xFFFE };

static struct varying {
    const uint8_t *data;
    size_t size; /* 0: nothing varies */
} varying;

static void make_varying(struct recorder *recorder)
{
    if (varying.size == 0)
        return;
    const uint8_t *at = varying.data + 1;
    size_t left = varying.size - 1;
    while (left >= 3) {
        size_t size = at[2] < left - 3 ? at[2] : left - 3;
        recorder_vary(recorder, varying.data[0], (uint64_t)get_le16(at) * 32, at + 3, size);
        at += 3 + size;
        left -= 3 + size;
    }
}

#endif
