/*
 * What is done to a volume, by an input: an operation is OPERATION_BYTES bytes, which one, and
 * three numbers for it. Files are held in slots on the way. Whatever comes of each: what may not be
 * is refused.
 */
#ifndef FUZZ_USB_FILES_PROGRAM_H
#define FUZZ_USB_FILES_PROGRAM_H

#include <files/volume.h>

enum { OPERATION_BYTES = 4 };

/* met: sees what every operation returned. */
void run_program(struct volume *volume, const uint8_t *program, size_t size,
                 int64_t (*met)(int64_t r));

#endif
