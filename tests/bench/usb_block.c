/*
 * Reads a stick that cloche-usb has given out: usb-block ring|nbd SOCKET SIZE DEPTH COUNT. By the
 * ring of libcloche-usb, or as a client of NBD that negotiates nothing; the same places in the same
 * order, so many at a time. Says microseconds of the median request, of all, and context switches.
 */
#include <cloche/usb.h>

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH_MAX = 64, MEDIUM = 64 << 20, REPLY = 16 };

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

struct way {
    struct cloche_usb *usb; /* NULL: NBD */
    int fd;
    uint8_t *data;
    uint32_t size;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void begin(struct way *way, uint64_t offset, unsigned place)
{
    if (way->usb) {
        const struct cloche_usb_request request = {.operation = CLOCHE_USB_READ,
                                                   .offset = offset,
                                                   .length = way->size,
                                                   .data = way->data + (size_t)place * way->size,
                                                   .cookie = place};
        if (cloche_usb_submit(way->usb, &request, 1) != 1)
            fail("submit");
        return;
    }
    uint8_t request[28] = {0x25, 0x60, 0x95, 0x13};
    uint64_t cookie = place, at = htobe64(offset);
    uint32_t length = htobe32(way->size);
    memcpy(request + 8, &cookie, 8);
    memcpy(request + 16, &at, 8);
    memcpy(request + 24, &length, 4);
    if (write(way->fd, request, sizeof(request)) != sizeof(request))
        fail("write");
}

static unsigned finish(struct way *way)
{
    struct cloche_usb_result result;
    uint8_t reply[REPLY];
    uint64_t cookie;
    if (way->usb) {
        if (cloche_usb_poll(way->usb, &result, 1, -1) != 1 || result.result != 0)
            fail("poll");
        return (unsigned)result.cookie;
    }
    if (recv(way->fd, reply, REPLY, MSG_WAITALL) != REPLY)
        fail("recv");
    memcpy(&cookie, reply + 8, 8);
    if (recv(way->fd, way->data + cookie * way->size, way->size, MSG_WAITALL) != (ssize_t)way->size)
        fail("recv");
    return (unsigned)cookie;
}

static void open_way(struct way *way, const char *kind, const char *path, unsigned depth)
{
    const struct cloche_usb_settings settings = {.size = sizeof(settings),
                                                 .data_size = (size_t)way->size * depth};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strcmp(kind, "ring") == 0) {
        if (cloche_usb_open(path, &settings, &way->usb) < 0)
            fail("cloche_usb_open");
        way->data = cloche_usb_data(way->usb, NULL);
        return;
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    way->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    way->data = malloc((size_t)way->size * depth);
    if (connect(way->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        fail("connect");
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    struct way way = {.size = (uint32_t)atol(argv[3])};
    unsigned depth = (unsigned)atoi(argv[4]), count = (unsigned)atoi(argv[5]), begun = 0;
    int64_t *took = calloc(count, sizeof(*took)), since[DEPTH_MAX] = {0};
    struct rusage usage;
    if (depth < 1 || depth > DEPTH_MAX)
        return 2;
    open_way(&way, argv[1], argv[2], depth);
    srandom(1);
    int64_t start = now_ns();
    for (unsigned done = 0; done < count; done++) {
        unsigned place = begun < depth ? begun : finish(&way);
        if (begun >= depth)
            took[done - depth] = now_ns() - since[place];
        since[place] = now_ns();
        begin(&way, (uint64_t)random() % (MEDIUM / way.size) * way.size, place);
        begun++;
    }
    for (unsigned left = depth; left > 0; left--) {
        unsigned place = finish(&way);
        took[count - left] = now_ns() - since[place];
    }
    int64_t all = now_ns() - start;
    getrusage(RUSAGE_SELF, &usage);
    qsort(took, count, sizeof(*took), compare);
    printf("%.1f %.1f %.1f %.2f\n", (double)took[count / 2] / 1000, (double)took[0] / 1000,
           (double)count * way.size / (double)all * 1000, (double)usage.ru_nvcsw / count);
    return 0;
}
