/* An NBD door's thread. */
#include <doors/nbd.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <base/alloc.h>

struct nbd_door {
    struct block_device *device;
    struct nbd_door_options options;
    int fd;
    pthread_t thread;
    atomic_bool closing;
};

static void *work(void *data)
{
    struct nbd_door *door = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = nbd_serve(door->device, door->fd, &door->options, &err);
    shutdown(door->fd, SHUT_RDWR);
    if (!atomic_load(&door->closing) && door->options.ended)
        door->options.ended(door, r, r == 0 ? "the client disconnected" : error_message(&err),
                            door->options.data);
    return NULL;
}

int nbd_door_open(struct block_device *device, int fd, const struct nbd_door_options *options,
                  struct nbd_door **ret_door, struct error *err)
{
    struct nbd_door *door = xnew(struct nbd_door);
    door->device = device;
    door->options = *options;
    door->fd = fd;
    int r = pthread_create(&door->thread, NULL, work, door);
    if (r != 0) {
        close_fd(fd);
        free(door);
        return error_errno(err, r, "start the thread of an NBD door");
    }
    *ret_door = door;
    return 0;
}

void nbd_door_close(struct nbd_door *door)
{
    if (!door)
        return;
    atomic_store(&door->closing, true);
    shutdown(door->fd, SHUT_RDWR);
    pthread_join(door->thread, NULL);
    close_fd(door->fd);
    free(door);
}
