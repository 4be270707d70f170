/*
 * libusb opens the device, reads what it is, claims it and has its memory. No transfer is libusb's:
 * its events are never handled, and what is reaped is usbfs.c's alone.
 */
#include <usb/libusb.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libusb.h>

#include <base/alloc.h>
#include <block/bytes.h>

#include "usbfs.h"

/* Each transfer's end wakes a thread, so that one for a whole command is best. Where the controller
 * wants its memory in one piece there may be none that is as large. */
enum { BEST_TRANSFER = 1 << 20, BEST_IN_ONE_PIECE = 64 << 10, MEMORIES_MAX = 64 };

/* bcdUSB, idVendor, idProduct, bcdDevice: USB 2.0, table 9-8. */
static const uint8_t wide_fields[] = {2, 8, 10, 12};

/* Memory that the kernel's controller reads and writes itself. */
struct memory {
    uint8_t *data;
    size_t size;
};

struct local {
    struct usb_transport transport; /* first */
    struct usbfs urbs;
    libusb_context *context;
    libusb_device_handle *handle;
    int (*reset)(void *data); /* NULL: libusb does */
    void *reset_data;
    pthread_mutex_t lock; /* of the memories */
    struct memory memories[MEMORIES_MAX];
};

static struct local *local_of(struct usb_transport *transport)
{
    return (struct local *)transport;
}

static int errno_of(int error)
{
    switch (error) {
    case LIBUSB_SUCCESS:
        return 0;
    case LIBUSB_ERROR_NO_DEVICE:
    case LIBUSB_ERROR_NOT_FOUND: /* after a reset: it came back as another one */
        return -ENODEV;
    case LIBUSB_ERROR_ACCESS:
        return -EACCES;
    case LIBUSB_ERROR_BUSY:
        return -EBUSY;
    case LIBUSB_ERROR_TIMEOUT:
        return -ETIMEDOUT;
    case LIBUSB_ERROR_NO_MEM:
        return -ENOMEM;
    case LIBUSB_ERROR_PIPE:
        return -EPIPE;
    default:
        return -EIO;
    }
}

static int submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    return usbfs_submit(&local_of(transport)->urbs, transfer);
}

static void cancel(struct usb_transport *transport, struct usb_transfer *transfer)
{
    usbfs_cancel(&local_of(transport)->urbs, transfer);
}

static void collect(struct usb_transport *transport, int timeout_ms)
{
    usbfs_collect(&local_of(transport)->urbs, timeout_ms);
}

static void wait_for_end(struct usb_transport *transport, int timeout_ms, pthread_mutex_t *lock)
{
    usbfs_wait(&local_of(transport)->urbs, lock);
}

static void expire(struct usb_transport *transport)
{
    usbfs_expire(&local_of(transport)->urbs);
}

static int watch(struct usb_transport *transport, int epoll, void *data, struct error *err)
{
    return usbfs_watch(&local_of(transport)->urbs, epoll, data, err);
}

static int next_timeout(struct usb_transport *transport)
{
    return usbfs_next_timeout(&local_of(transport)->urbs);
}

static int set_configuration(struct usb_transport *transport, uint8_t value)
{
    return errno_of(libusb_set_configuration(local_of(transport)->handle, value));
}

static int set_alternate(struct usb_transport *transport, uint8_t interface, uint8_t alternate)
{
    return errno_of(
        libusb_set_interface_alt_setting(local_of(transport)->handle, interface, alternate));
}

static int clear_halt(struct usb_transport *transport, uint8_t endpoint)
{
    return errno_of(libusb_clear_halt(local_of(transport)->handle, endpoint));
}

/* usbfs has the device descriptor's numbers in the machine's byte order, all else as it came. */
static int descriptors(struct usb_transport *transport, uint8_t *data, size_t size)
{
    int fd = local_of(transport)->urbs.fd;
    size_t got = 0;
    ssize_t n = lseek(fd, 0, SEEK_SET) < 0 ? -1 : 1;
    while (n > 0 && got < size) {
        n = read(fd, data + got, size - got);
        got += n > 0 ? (size_t)n : 0;
    }
    if (n < 0)
        return -errno;
    for (size_t at = 0; at < sizeof(wide_fields) && wide_fields[at] + 2U <= got; at++) {
        uint16_t number;
        memcpy(&number, data + wide_fields[at], 2);
        put_le16(data + wide_fields[at], number);
    }
    return (int)got;
}

/* Not back to a driver of the kernel's afterwards, which would look at what is on the stick. */
static int claim(struct usb_transport *transport, uint8_t interface)
{
    libusb_device_handle *handle = local_of(transport)->handle;
    if (libusb_kernel_driver_active(handle, interface) == 1)
        libusb_detach_kernel_driver(handle, interface);
    return errno_of(libusb_claim_interface(handle, interface));
}

static int release(struct usb_transport *transport, uint8_t interface)
{
    return errno_of(libusb_release_interface(local_of(transport)->handle, interface));
}

static int alloc_streams(struct usb_transport *transport, uint16_t count, const uint8_t *endpoints,
                         unsigned endpoint_count)
{
    int r = libusb_alloc_streams(local_of(transport)->handle, count, (unsigned char *)endpoints,
                                 (int)endpoint_count);
    return r == LIBUSB_ERROR_NOT_SUPPORTED ? -ENOTSUP : r < 0 ? errno_of(r) : r;
}

static void free_streams(struct usb_transport *transport, const uint8_t *endpoints,
                         unsigned endpoint_count)
{
    libusb_free_streams(local_of(transport)->handle, (unsigned char *)endpoints,
                        (int)endpoint_count);
}

static int reset(struct usb_transport *transport)
{
    struct local *local = local_of(transport);
    return local->reset ? local->reset(local->reset_data)
                        : errno_of(libusb_reset_device(local->handle));
}

void usb_libusb_reset_by(struct usb_transport *transport, int (*reset_it)(void *data), void *data)
{
    struct local *local = local_of(transport);
    local->reset = reset_it;
    local->reset_data = data;
}

static void *buffer_alloc(struct usb_transport *transport, size_t size)
{
    struct local *local = local_of(transport);
    uint8_t *data = NULL;
    pthread_mutex_lock(&local->lock);
    for (int i = 0; i < MEMORIES_MAX && !data; i++) {
        struct memory *memory = &local->memories[i];
        if (memory->data)
            continue;
        data = memory->data = libusb_dev_mem_alloc(local->handle, size);
        memory->size = size;
        if (!data)
            break;
    }
    pthread_mutex_unlock(&local->lock);
    return data;
}

static bool buffer_free(struct usb_transport *transport, void *buffer, size_t size)
{
    struct local *local = local_of(transport);
    bool found = false;
    pthread_mutex_lock(&local->lock);
    for (int i = 0; i < MEMORIES_MAX && !found; i++) {
        struct memory *memory = &local->memories[i];
        if (memory->data != buffer)
            continue;
        libusb_dev_mem_free(local->handle, memory->data, memory->size);
        memory->data = NULL;
        found = true;
    }
    pthread_mutex_unlock(&local->lock);
    return found;
}

static void destroy(struct usb_transport *transport)
{
    struct local *local = local_of(transport);
    for (int i = 0; i < MEMORIES_MAX; i++)
        if (local->memories[i].data)
            libusb_dev_mem_free(local->handle, local->memories[i].data, local->memories[i].size);
    if (local->handle)
        libusb_close(local->handle);
    libusb_exit(local->context);
    pthread_mutex_destroy(&local->lock);
    usbfs_finish(&local->urbs);
    close(local->urbs.fd);
    free(local);
}

static const struct usb_transport_ops local_ops = {
    .name = "libusb",
    .submit = submit,
    .cancel = cancel,
    .collect = collect,
    .wait = wait_for_end,
    .expire = expire,
    .set_configuration = set_configuration,
    .set_alternate = set_alternate,
    .clear_halt = clear_halt,
    .descriptors = descriptors,
    .claim = claim,
    .release = release,
    .alloc_streams = alloc_streams,
    .free_streams = free_streams,
    .reset = reset,
    .buffer_alloc = buffer_alloc,
    .buffer_free = buffer_free,
    .watch = watch,
    .next_timeout = next_timeout,
    .destroy = destroy,
};

static enum usb_speed speed_of(libusb_device_handle *handle)
{
    switch (libusb_get_device_speed(libusb_get_device(handle))) {
    case LIBUSB_SPEED_LOW:
        return USB_LOW;
    case LIBUSB_SPEED_FULL:
        return USB_FULL;
    case LIBUSB_SPEED_SUPER:
        return USB_SUPER;
    case LIBUSB_SPEED_SUPER_PLUS:
        return USB_SUPER_PLUS;
    default:
        return USB_HIGH;
    }
}

int usb_libusb_open(int fd, uint8_t configuration, struct usb_transport **ret_transport,
                    struct error *err)
{
    libusb_context *context = NULL;
    libusb_device_handle *handle = NULL;
    int r = libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY);
    if (r == 0)
        r = libusb_init(&context);
    if (r == 0)
        r = libusb_wrap_sys_device(context, fd, &handle);
    if (r != 0) {
        if (context)
            libusb_exit(context);
        close(fd);
        return error_errno(err, -errno_of(r), "open the device: libusb: %s", libusb_strerror(r));
    }
    struct local *local = xnew(struct local);
    local->transport.ops = &local_ops;
    local->transport.speed = speed_of(handle);
    local->transport.configuration = configuration;
    local->transport.max_transfer = usbfs_scatters(fd) ? BEST_TRANSFER : BEST_IN_ONE_PIECE;
    usbfs_init(&local->urbs, fd);
    local->context = context;
    local->handle = handle;
    pthread_mutex_init(&local->lock, NULL);
    *ret_transport = &local->transport;
    return 0;
}
