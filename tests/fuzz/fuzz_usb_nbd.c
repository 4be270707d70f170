/*
 * What a client of an NBD door sends. The first byte says whether it negotiates (bit 0) and whether
 * the door is read-only (bit 1). The disk is so small that all answers have room in the socket.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <doors/nbd.h>

#include "../usb/recorder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SECTORS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    if (size == 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return 0;
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct nbd_door_options options = {.negotiates = data[0] & 1, .read_only = data[0] & 2};
    if (write(pair[0], data + 1, size - 1) != (ssize_t)size - 1)
        abort();
    shutdown(pair[0], SHUT_WR);
    nbd_serve(recorder_device(recorder), pair[1], &options, NULL);
    if (options.read_only && recorder_counts(recorder).writes > 0)
        abort();
    recorder_destroy(recorder);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
