#include <usb/libusb.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <libusb.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/bytes.h>

enum { BEST_TRANSFER = 64 << 10, MEMORIES_MAX = 64 };
enum { LATE = -1 }; /* as a deadline: it has passed */

/* Memory that the kernel's controller reads and writes itself. */
struct memory {
    uint8_t *data;
    size_t size;
};

struct local {
    struct usb_transport transport; /* first */
    int fd, epoll;
    void *epoll_data;
    libusb_context *context;
    libusb_device_handle *handle;
    struct usb_transfer *flying; /* under way */
    pthread_mutex_t lock;        /* of the memories */
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

static enum usb_status status_of(enum libusb_transfer_status status)
{
    switch (status) {
    case LIBUSB_TRANSFER_COMPLETED:
        return USB_DONE;
    case LIBUSB_TRANSFER_STALL:
        return USB_STALLED;
    case LIBUSB_TRANSFER_TIMED_OUT:
        return USB_TIMED_OUT;
    case LIBUSB_TRANSFER_CANCELLED:
        return USB_CANCELLED;
    case LIBUSB_TRANSFER_OVERFLOW:
        return USB_BABBLE;
    case LIBUSB_TRANSFER_NO_DEVICE:
        return USB_GONE;
    default:
        return USB_FAILED;
    }
}

static void LIBUSB_CALL ended(struct libusb_transfer *handle)
{
    struct usb_transfer *transfer = handle->user_data;
    bool control = handle->type == LIBUSB_TRANSFER_TYPE_CONTROL;
    uint32_t actual = handle->actual_length > 0 ? (uint32_t)handle->actual_length : 0;
    if (actual > transfer->length)
        actual = transfer->length;
    if (control && (transfer->endpoint & 0x80) && actual > 0)
        memcpy(transfer->data, handle->buffer + LIBUSB_CONTROL_SETUP_SIZE, actual);
    enum usb_status status = status_of(handle->status);
    if (status == USB_CANCELLED && transfer->deadline == LATE)
        status = USB_TIMED_OUT;
    if (control)
        free(handle->buffer);
    libusb_free_transfer(handle);
    transfer->backend = NULL;
    struct usb_transfer **at = &local_of(transfer->transport)->flying;
    while (*at != transfer)
        at = &(*at)->next;
    *at = transfer->next;
    usb_transport_end(transfer->transport, transfer, status, actual);
}

/* A buffer of setup and data, freed when it has ended. */
static void fill_control(struct local *local, struct libusb_transfer *handle,
                         struct usb_transfer *transfer)
{
    const struct usb_setup *setup = &transfer->setup;
    uint8_t *buffer = xmalloc(LIBUSB_CONTROL_SETUP_SIZE + transfer->length);
    buffer[0] = setup->request_type;
    buffer[1] = setup->request;
    put_le16(buffer + 2, setup->value);
    put_le16(buffer + 4, setup->index);
    put_le16(buffer + 6, (uint16_t)transfer->length);
    if (!(transfer->endpoint & 0x80) && transfer->length > 0)
        memcpy(buffer + LIBUSB_CONTROL_SETUP_SIZE, transfer->data, transfer->length);
    libusb_fill_control_transfer(handle, local->handle, buffer, ended, transfer, 0);
}

static int submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    struct local *local = local_of(transport);
    struct libusb_transfer *handle = libusb_alloc_transfer(0);
    bool control = (transfer->endpoint & 0x0F) == 0;
    if (!handle)
        return -ENOMEM;
    if (control)
        fill_control(local, handle, transfer);
    else
        libusb_fill_bulk_transfer(handle, local->handle, transfer->endpoint, transfer->data,
                                  (int)transfer->length, ended, transfer, 0);
    int r = libusb_submit_transfer(handle);
    if (r != 0) {
        if (control)
            free(handle->buffer);
        libusb_free_transfer(handle);
        return errno_of(r);
    }
    transfer->backend = handle; /* its end comes from within collect() only */
    transfer->deadline = transfer->timeout_ms ? clock_milliseconds() + transfer->timeout_ms : 0;
    transfer->next = local->flying;
    local->flying = transfer;
    return 0;
}

static void cancel(struct usb_transport *transport, struct usb_transfer *transfer)
{
    if (transfer->backend)
        libusb_cancel_transfer(transfer->backend);
}

/* libusb would set its timer anew for each transfer, a system call each. */
static void cancel_late(struct local *local)
{
    int64_t now = clock_milliseconds();
    for (struct usb_transfer *transfer = local->flying; transfer; transfer = transfer->next) {
        if (transfer->deadline <= 0 || transfer->deadline > now)
            continue;
        transfer->deadline = LATE;
        libusb_cancel_transfer(transfer->backend);
    }
}

static void collect(struct usb_transport *transport, int timeout_ms)
{
    struct local *local = local_of(transport);
    struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    if (timeout_ms < 0)
        timeout = (struct timeval){60, 0};
    libusb_handle_events_timeout_completed(local->context, &timeout, NULL);
    cancel_late(local);
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

static int reset(struct usb_transport *transport)
{
    return errno_of(libusb_reset_device(local_of(transport)->handle));
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

/* The device's own descriptor is the one that matters; libusb has some for its timers. */
static void LIBUSB_CALL add_fd(int fd, short events, void *data)
{
    struct local *local = data;
    struct epoll_event event = {.events = (uint32_t)events, .data.ptr = local->epoll_data};
    epoll_ctl(local->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void LIBUSB_CALL remove_fd(int fd, void *data)
{
    epoll_ctl(((struct local *)data)->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static int watch(struct usb_transport *transport, int epoll, void *data, struct error *err)
{
    struct local *local = local_of(transport);
    const struct libusb_pollfd **fds = libusb_get_pollfds(local->context);
    if (!fds)
        return error_set(err, -EIO, "watch the device: libusb has no descriptors");
    local->epoll = epoll;
    local->epoll_data = data;
    for (int i = 0; fds[i]; i++)
        add_fd(fds[i]->fd, fds[i]->events, local);
    libusb_free_pollfds(fds);
    libusb_set_pollfd_notifiers(local->context, add_fd, remove_fd, local);
    return 0;
}

static int next_timeout(struct usb_transport *transport)
{
    const struct usb_transfer *transfer = local_of(transport)->flying;
    int64_t first = INT64_MAX;
    for (; transfer; transfer = transfer->next)
        if (transfer->deadline > 0 && transfer->deadline < first)
            first = transfer->deadline;
    if (first == INT64_MAX)
        return -1;
    int64_t left = first - clock_milliseconds();
    return left > 0 ? (int)left : 0;
}

static void destroy(struct usb_transport *transport)
{
    struct local *local = local_of(transport);
    libusb_set_pollfd_notifiers(local->context, NULL, NULL, NULL);
    for (int i = 0; i < MEMORIES_MAX; i++)
        if (local->memories[i].data)
            libusb_dev_mem_free(local->handle, local->memories[i].data, local->memories[i].size);
    if (local->handle)
        libusb_close(local->handle);
    libusb_exit(local->context);
    pthread_mutex_destroy(&local->lock);
    close(local->fd);
    free(local);
}

static const struct usb_transport_ops local_ops = {
    .name = "libusb",
    .submit = submit,
    .cancel = cancel,
    .collect = collect,
    .set_configuration = set_configuration,
    .set_alternate = set_alternate,
    .clear_halt = clear_halt,
    .claim = claim,
    .release = release,
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

int usb_libusb_open(int fd, struct usb_transport **ret_transport, struct error *err)
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
    local->transport.max_transfer = BEST_TRANSFER;
    local->fd = fd;
    local->epoll = -1;
    local->context = context;
    local->handle = handle;
    pthread_mutex_init(&local->lock, NULL);
    *ret_transport = &local->transport;
    return 0;
}
