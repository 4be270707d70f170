/*
 * libFuzzer target: what a USB/IP server says. The input is a script of what is asked of the
 * transport and of what comes over the connection, whole and in pieces; time goes on as it says.
 *
 * Every transfer ends once and in bounds; what is sent are whole commands of the protocol.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/clock.h>
#include <usb/transport.h>

#include "../../src/usb/device/usbip.h"
#include "../../src/usb/device/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int fuzz_poll(struct pollfd *watched, nfds_t count, int timeout_ms);

enum { TRANSFERS = 16, PIECE = 64, LENGTH_MAX = 255 * PIECE, SENT_MAX = 64 << 10, IMPORT_MS = 100 };

struct tried {
    struct usb_transfer transfer;
    uint8_t *data;
    bool open;
};

static struct world {
    const uint8_t *input, *end;
    int ours, epoll; /* ours: the server's end; -1: it has hung up */
    int64_t now;
    struct usb_transport *transport;
    struct tried tried[TRANSFERS];
    unsigned count, ended;
    uint8_t sent[SENT_MAX]; /* of the client, the rest of a command */
    size_t sent_size;
    uint32_t numbers; /* of commands that have come */
} world;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the transport */

static void look(bool good)
{
    if (!good)
        abort();
}

static uint8_t next(void)
{
    return world.input < world.end ? *world.input++ : 0;
}

int64_t clock_milliseconds(void)
{
    return world.now;
}

/* --- the server ------------------------------------------------------------------------------- */

static void say(const void *data, size_t size)
{
    if (world.ours >= 0 && send(world.ours, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        look(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
}

/* Whole commands are looked at. */
static void hear(void)
{
    for (;;) {
        ssize_t size = world.ours < 0 ? 0
                                      : recv(world.ours, world.sent + world.sent_size,
                                             SENT_MAX - world.sent_size, MSG_DONTWAIT);
        size_t at = 0;
        if (size <= 0)
            return;
        world.sent_size += (size_t)size;
        while (world.sent_size - at >= USBIP_HEADER) {
            const uint8_t *header = world.sent + at;
            uint32_t what = get_be32(header);
            size_t whole = USBIP_HEADER;
            look(what == USBIP_SUBMIT || what == USBIP_UNLINK);
            look(get_be32(header + 4) > world.numbers);
            if (what == USBIP_SUBMIT && get_be32(header + 12) == 0)
                whole += get_be32(header + 24);
            look(whole <= SENT_MAX);
            if (world.sent_size - at < whole)
                break;
            world.numbers = get_be32(header + 4);
            at += whole;
        }
        memmove(world.sent, world.sent + at, world.sent_size - at);
        world.sent_size -= at;
    }
}

static void put_header(uint8_t *header, uint32_t what, uint32_t number)
{
    memset(header, 0, USBIP_HEADER);
    put_be32(header, what);
    put_be32(header + 4, number);
}

static void answer_submit(void)
{
    static const int statuses[] = {0, -EPIPE, -EREMOTEIO, -EOVERFLOW, -ECONNRESET, -ESHUTDOWN, -71};
    static uint8_t data[LENGTH_MAX];
    uint8_t header[USBIP_HEADER], number = next(), status = next(), actual = next();
    put_header(header, USBIP_RET_SUBMIT, number);
    put_be32(header + 20, (uint32_t)statuses[status % (sizeof(statuses) / sizeof(statuses[0]))]);
    put_be32(header + 24, actual * PIECE);
    say(header, sizeof(header));
    if (status & 0x80) /* with data */
        say(data, actual * PIECE);
}

static void answer_unlink(void)
{
    uint8_t header[USBIP_HEADER];
    put_header(header, USBIP_RET_UNLINK, next());
    say(header, sizeof(header));
}

static void say_anything(void)
{
    size_t size = next(), left = (size_t)(world.end - world.input);
    size = size < left ? size : left;
    say(world.input, size);
    world.input += size;
}

/* One thing that the server does. False: nothing more. */
static bool serve(void)
{
    if (world.input >= world.end)
        return false;
    switch (next() % 4) {
    case 0:
        answer_submit();
        break;
    case 1:
        answer_unlink();
        break;
    case 2:
        say_anything();
        break;
    default:
        if (world.ours >= 0)
            close(world.ours);
        world.ours = -1;
    }
    return true;
}

/* In place of poll(2): what the transport waits for happens, or its time is over. */
int fuzz_poll(struct pollfd *watched, nfds_t count, int timeout_ms)
{
    const struct timespec none = {0};
    look(count == 1);
    int ready = ppoll(watched, count, &none, NULL);
    if (ready == 0 && serve())
        ready = ppoll(watched, count, &none, NULL);
    if (ready == 0)
        world.now += timeout_ms > 0 ? timeout_ms : 60000;
    return ready;
}

/* --- the client ------------------------------------------------------------------------------- */

static void done(struct usb_transfer *transfer)
{
    struct tried *tried = transfer->owner;
    look(tried->open);
    tried->open = false;
    look(transfer->actual <= transfer->length);
    world.ended++;
}

static void submit(uint8_t endpoint)
{
    struct tried *tried = &world.tried[world.count];
    uint32_t length = next() * PIECE;
    if (world.count == TRANSFERS)
        return;
    world.count++;
    tried->data = calloc(1, length ? length : 1);
    tried->transfer = (struct usb_transfer){
        .endpoint = endpoint,
        .setup = {endpoint & 0x80, 6, 0x100, 0, (uint16_t)length},
        .data = tried->data,
        .length = length,
        .timeout_ms = next() * 4,
        .done = done,
        .owner = tried,
    };
    tried->open = usb_transport_submit(world.transport, &tried->transfer) == 0;
}

static void cancel(void)
{
    struct tried *tried = &world.tried[next() % TRANSFERS];
    if (tried->open)
        usb_transport_cancel(world.transport, &tried->transfer);
}

static void use(void)
{
    static const uint8_t endpoints[] = {0x81, 0x02, 0x80, 0x00};
    uint8_t what = next();
    switch (what % 8) {
    case 0:
    case 1:
    case 2:
        submit(endpoints[what / 8 % 4]);
        break;
    case 3:
        cancel();
        break;
    case 4:
        world.now += next() * 16;
        break;
    case 5:
        (void)usb_reset(world.transport);
        break;
    case 6:
        usb_transport_flush(world.transport);
        pthread_mutex_lock(&lock);
        world.transport->ops->wait(world.transport, 10, &lock);
        pthread_mutex_unlock(&lock);
        break;
    default:
        serve();
    }
    usb_transport_dispatch(world.transport);
    int left = usb_transport_timeout(world.transport);
    look(left >= -1 && left <= 2000);
    hear();
}

/* What is open ends, whatever the server does: by its time, or that of the request to give it up.
 */
static void finish(void)
{
    for (int i = 0; i < TRANSFERS; i++)
        if (world.tried[i].open)
            usb_transport_cancel(world.transport, &world.tried[i].transfer);
    for (int turns = 0; turns < 4; turns++) {
        world.now += 10000;
        usb_transport_dispatch(world.transport);
        hear();
    }
    for (int i = 0; i < TRANSFERS; i++) {
        look(!world.tried[i].open);
        free(world.tried[i].data);
    }
    usb_transport_destroy(world.transport);
}

/* The answer to the import: a good one, with any speed, or what the input says. */
static void import(void)
{
    uint8_t answer[USBIP_OPERATION + USBIP_DEVICE] = {0}, how = next();
    put_be16(answer, USBIP_VERSION);
    put_be16(answer + 2, USBIP_REP_IMPORT);
    put_be32(answer + USBIP_OPERATION + USBIP_DEVICE_SPEED, how >> 4);
    switch (how % 8) {
    case 0:
        put_be32(answer + 4, 1);
        break;
    case 1:
        put_be16(answer, 0);
        break;
    case 2:
        serve();
        return;
    default:
        break;
    }
    say(answer, how % 8 == 3 ? 100 : sizeof(answer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];
    struct error err = ERROR_INIT;
    world = (struct world){.input = data, .end = data + size, .now = 1000};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        abort();
    world.ours = ends[0];
    world.epoll = epoll_create1(EPOLL_CLOEXEC);
    import();
    uint8_t request[USBIP_OPERATION + USBIP_BUS_ID];
    bool odd = size % 16 == 1;
    if (usb_usbip_open(ends[1], odd ? "a name that is longer than any of a bus" : "1-1", IMPORT_MS,
                       &world.transport, &err) == 0) {
        if (world.ours >= 0)
            look(recv(world.ours, request, sizeof(request), MSG_DONTWAIT) == sizeof(request));
        look(usb_transport_watch(world.transport, world.epoll, NULL, &err) == 0);
        while (world.input < world.end)
            use();
        finish();
    } else {
        look(err.code < 0);
    }
    error_finish(&err);
    if (world.ours >= 0)
        close(world.ours);
    close(world.epoll);
    return 0;
}
