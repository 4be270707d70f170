/*
 * A program with libcloche-usb: usb-ring PATH moves sectors in every way there is; usb-ring PATH
 * hold reads until the stick is gone. Says "ok" or what is wrong.
 */
#include <cloche/usb.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4096, PIECES = 64, FIRST = 65536 };

static void expect(int got, int wanted, const char *what)
{
    if (got == wanted)
        return;
    printf("%s: %d, not %d\n", what, got, wanted);
    exit(1);
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31 + at / PIECE);
}

/* Everything at once, from and to the shared memory. */
static void move_many(struct cloche_usb *usb, enum cloche_usb_operation operation)
{
    struct cloche_usb_request requests[PIECES] = {0};
    struct cloche_usb_result results[PIECES];
    uint64_t seen = 0;
    uint8_t *data = cloche_usb_data(usb, NULL);
    for (size_t i = 0; i < PIECES; i++)
        requests[i] = (struct cloche_usb_request){
            .operation = operation,
            .flags = operation == CLOCHE_USB_WRITE && i % 8 == 0 ? CLOCHE_USB_DURABLE : 0,
            .offset = FIRST + i * PIECE,
            .length = PIECE,
            .data = data + i * PIECE,
            .cookie = i,
        };
    expect(cloche_usb_submit(usb, requests, PIECES), PIECES, "submit");
    for (int done = 0, count; done < PIECES; done += count) {
        count = cloche_usb_poll(usb, results, 5, 10000);
        if (count <= 0 || count > 5)
            expect(count, 1, "poll");
        for (int i = 0; i < count; i++) {
            expect(results[i].result, 0, "a request");
            seen |= UINT64_C(1) << results[i].cookie;
        }
    }
    if (seen != UINT64_MAX)
        expect(1, 0, "a cookie did not come back");
    expect(cloche_usb_poll(usb, results, 5, 0), 0, "poll with nothing under way");
}

static void check_content(const uint8_t *data)
{
    for (size_t i = 0; i < PIECE * PIECES; i++)
        if (data[i] != pattern(i))
            expect((int)i, -1, "this byte is another");
}

static void move_all_ways(struct cloche_usb *usb, const struct cloche_usb_info *info)
{
    size_t size, all = PIECE * PIECES;
    uint8_t *data = cloche_usb_data(usb, &size), *own = malloc(all);
    uint64_t end = info->sectors * info->sector_size;
    struct cloche_usb_request outside = {
        .operation = CLOCHE_USB_READ, .length = PIECE, .data = own};
    for (size_t i = 0; i < all; i++)
        data[i] = pattern(i);
    move_many(usb, CLOCHE_USB_WRITE);
    memset(data, 0, size);
    move_many(usb, CLOCHE_USB_READ);
    check_content(data);
    expect(cloche_usb_read(usb, FIRST, own, all), 0, "read elsewhere");
    check_content(own);
    expect(cloche_usb_write(usb, 0, own, all), 0, "write from elsewhere");
    expect(cloche_usb_read(usb, 0, data, all), 0, "read here");
    check_content(data);
    expect(cloche_usb_flush(usb), 0, "flush");
    expect(cloche_usb_trim(usb, FIRST, PIECE), info->trims ? 0 : -EOPNOTSUPP, "trim");
    expect(cloche_usb_read(usb, end, own, info->sector_size), -ENOSPC, "read beyond the end");
    expect(cloche_usb_read(usb, 1, own, info->sector_size), -EINVAL, "read between sectors");
    expect(cloche_usb_submit(usb, &outside, 1), -EFAULT, "submit with memory of others");
    free(own);
}

static void hold(struct cloche_usb *usb)
{
    int r = 0;
    uint8_t *data = cloche_usb_data(usb, NULL);
    printf("holds\n");
    fflush(stdout);
    while (r == 0)
        r = cloche_usb_read(usb, 0, data, PIECE);
    printf("%s\n", strerror(-r));
}

int main(int argc, char **argv)
{
    struct cloche_usb_info info = {.size = sizeof(info)};
    struct cloche_usb *usb;
    int r = cloche_usb_open(argv[1], NULL, &usb);
    if (r < 0) {
        printf("open: %s\n", strerror(-r));
        return 1;
    }
    expect(cloche_usb_info(usb, &info), 0, "info");
    if (argc > 2) {
        hold(usb);
    } else if (info.read_only) {
        expect(cloche_usb_write(usb, 0, cloche_usb_data(usb, NULL), PIECE), -EROFS, "write");
        expect(cloche_usb_read(usb, 0, cloche_usb_data(usb, NULL), PIECE), 0, "read");
        printf("ok, read-only\n");
    } else {
        move_all_ways(usb, &info);
        printf("ok\n");
    }
    cloche_usb_close(usb);
    return 0;
}
