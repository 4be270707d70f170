/*
 * What comes over a CUSE door's descriptor: messages, each with its operation, two bytes of length
 * and what follows the head. The first byte of all says whether the door is read-only (bit 0), and
 * that nothing is begun (bit 1).
 */
#include <linux/fuse.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/usb/doors/cuse_talk.h"
#include "../usb/recorder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SECTORS = 160 };

static const uint32_t operations[] = {CUSE_INIT,  FUSE_OPEN,  FUSE_RELEASE,   FUSE_READ, FUSE_WRITE,
                                      FUSE_IOCTL, FUSE_FLUSH, FUSE_INTERRUPT, FUSE_POLL};

static void say(struct cuse_talk *talk, uint32_t operation, const uint8_t *body, size_t size,
                uint8_t *answer)
{
    struct fuse_in_header head = {
        .len = (uint32_t)(sizeof(head) + size), .opcode = operation, .unique = 7};
    uint8_t *message = malloc(sizeof(head) + size); /* no byte more */
    struct fuse_out_header out;
    memcpy(message, &head, sizeof(head));
    if (size > 0)
        memcpy(message + sizeof(head), body, size);
    ssize_t length = cuse_answer(talk, message, sizeof(head) + size, answer, NULL);
    free(message);
    if (length <= 0)
        return;
    memcpy(&out, answer, sizeof(out));
    if (length > CUSE_MESSAGE || out.len != length || out.unique != 7 || out.error > 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct cuse_init_in init = {.major = FUSE_KERNEL_VERSION, .minor = 36};
    if (size == 0)
        return 0;
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct cuse_talk talk = {
        .medium = recorder_device(recorder), .read_only = data[0] & 1, .name = "usbblk0"};
    uint8_t *answer = malloc(CUSE_MESSAGE);
    if (!(data[0] & 2))
        say(&talk, CUSE_INIT, (const uint8_t *)&init, sizeof(init), answer);
    for (size_t at = 1; at + 3 <= size;) {
        uint32_t operation = operations[data[at] % (sizeof(operations) / sizeof(*operations))];
        size_t length = data[at + 1] | (size_t)data[at + 2] << 8;
        at += 3;
        if (length > size - at)
            length = size - at;
        say(&talk, operation, data + at, length, answer);
        at += length;
    }
    cuse_answer(&talk, data, size, answer, NULL);
    if (talk.read_only && recorder_counts(recorder).writes > 0)
        abort();
    free(answer);
    recorder_destroy(recorder);
    return 0;
}
