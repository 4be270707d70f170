/* The first words on a connection to a USB/IP server: a device is asked for. */
#include "usbip_import.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <base/clock.h>

#include "wire.h"

/* All of it, by the deadline. */
static int exchange(int fd, short events, uint8_t *data, size_t size, int64_t deadline)
{
    for (size_t at = 0; at < size;) {
        int64_t left = deadline - clock_milliseconds();
        int ready = left > 0 ? poll(&(struct pollfd){.fd = fd, .events = events}, 1, (int)left) : 0;
        if (ready == 0)
            return -ETIMEDOUT;
        ssize_t moved = events == POLLIN
                            ? recv(fd, data + at, size - at, MSG_DONTWAIT)
                            : send(fd, data + at, size - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (moved < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (moved <= 0)
            return moved < 0 ? -errno : -ECONNRESET;
        at += (size_t)moved;
    }
    return 0;
}

int usbip_import(int fd, const char *bus_id, unsigned timeout_ms, uint8_t *answer,
                 struct error *err)
{
    uint8_t request[USBIP_OPERATION + USBIP_BUS_ID] = {0};
    int64_t deadline = clock_milliseconds() + timeout_ms;
    if (strlen(bus_id) >= USBIP_BUS_ID)
        return error_set(err, -EINVAL, "no bus ID: %s", bus_id);
    put_be16(request, USBIP_VERSION);
    put_be16(request + 2, USBIP_REQ_IMPORT);
    memcpy(request + USBIP_OPERATION, bus_id, strlen(bus_id));
    int r = exchange(fd, POLLOUT, request, sizeof(request), deadline);
    if (r == 0)
        r = exchange(fd, POLLIN, answer, USBIP_OPERATION, deadline);
    if (r != 0)
        return error_errno(err, -r, "import %s from the USB/IP server", bus_id);
    if (get_be16(answer) != USBIP_VERSION || get_be16(answer + 2) != USBIP_REP_IMPORT)
        return error_set(err, -EPROTO, "import %s: the answer is none of USB/IP 1.1.1", bus_id);
    if (get_be32(answer + 4) != 0)
        return error_set(err, -ENODEV, "import %s: the USB/IP server refuses (status %u)", bus_id,
                         get_be32(answer + 4));
    r = exchange(fd, POLLIN, answer + USBIP_OPERATION, USBIP_DEVICE, deadline);
    return r == 0 ? 0 : error_errno(err, -r, "import %s from the USB/IP server", bus_id);
}

enum usb_speed usbip_speed(uint32_t speed)
{
    static const enum usb_speed speeds[] = {
        [1] = USB_LOW, [2] = USB_FULL, [3] = USB_HIGH, [5] = USB_SUPER, [6] = USB_SUPER_PLUS,
    };
    return speed < sizeof(speeds) / sizeof(speeds[0]) ? speeds[speed] : USB_HIGH;
}
