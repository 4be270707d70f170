/* Writing to the disk that begins while more is written: the store flushes a whole image at once
 * before it records it, and has little left to wait for then. */
#ifndef IMAGE_FLUSH_H
#define IMAGE_FLUSH_H

#include <stdint.h>

/* Call it after each write to fd. written: bytes of the file so far; *begun, which starts as 0:
 * those whose writing to the disk has begun. Only a hint, which cannot fail and does not wait. */
void flush_begin(int fd, uint64_t written, uint64_t *begun);

#endif
