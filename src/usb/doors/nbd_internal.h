/* What the parts of an NBD door share: nbd.c (its thread), nbd_serve.c (the client's options),
 * nbd_requests.c (its requests), nbd_socket.c (its bytes). */
#ifndef DOORS_NBD_INTERNAL_H
#define DOORS_NBD_INTERNAL_H

#include <doors/nbd.h>

struct nbd {
    struct block_device *device;
    int fd;
    bool read_only, no_zeroes, structured;
};

/* nbd_socket.c: all of it, or an error. */
int nbd_receive(const struct nbd *nbd, void *data, size_t size, struct error *err);
int nbd_skip(const struct nbd *nbd, uint64_t size, struct error *err);
int nbd_send(const struct nbd *nbd, const void *head, size_t head_size, const void *data,
             size_t size, struct error *err);

/* nbd_requests.c: until the client takes its leave (0), or something is wrong. */
int nbd_take_requests(struct nbd *nbd, struct error *err);

#endif
