/*
 * libcloche-usb: the block device of a USB stick, without the kernel between it and the program.
 *
 * For programs in a container that was given a stick with `--usb-block PATH:via=ring`. Requests and
 * what is read and written go through memory that the program shares with cloche-usb(8), which
 * reads the stick into it and writes the stick from it.
 *
 *     struct cloche_usb *usb;
 *     int r = cloche_usb_open("/run/stick", NULL, &usb);
 *     if (r == 0)
 *         r = cloche_usb_read(usb, 0, sector, sizeof(sector));
 *     cloche_usb_close(usb);
 *
 * Many at a time, without a copy:
 *
 *     char *data = cloche_usb_data(usb, &size);
 *     const struct cloche_usb_request request = {
 *         .operation = CLOCHE_USB_READ, .offset = 0, .data = data, .length = 65536, .cookie = 1};
 *     cloche_usb_submit(usb, &request, 1);
 *     ...
 *     count = cloche_usb_poll(usb, results, 16, -1);
 *
 * Offsets and lengths are bytes, and multiples of the sector size. Requests are done in any order;
 * order comes from waiting: a flush that is submitted after a write was done makes it durable.
 *
 * Results. Functions return 0 (or something useful and non-negative) or -errno; *ret is written on
 * success only. Of the stick: -EIO, -EROFS, -ENOMEDIUM, -ENOSPC (beyond its end), -EINVAL (not
 * whole sectors), -EOPNOTSUPP (it takes no trim), -ETIMEDOUT (given up after retries). -ENODEV: it
 * is gone, or was taken away; the handle is good for nothing but cloche_usb_close(), and the device
 * may be opened anew when another stick is there. What a write that failed left is not known.
 *
 * Threads. A handle is for one thread at a time. Structures with a `size` may get members later, at
 * their end: set it to sizeof of the structure, and what is not used to zero.
 */
#ifndef CLOCHE_USB_H
#define CLOCHE_USB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

struct cloche_usb;

struct cloche_usb_settings {
    size_t size;
    size_t data_size; /* bytes of cloche_usb_data(); 0: 4 MiB; at most 30 MiB */
    int timeout_ms;   /* of opening; 0: ten seconds */
};

/* path: that of --usb-block, a folder with the socket in it; or the socket itself. settings: NULL
 * for the defaults. -ENOENT, -ECONNREFUSED: no stick is there. -ETIMEDOUT: other programs have the
 * places there are (four). -EPROTONOSUPPORT: another version of cloche-usb. */
int cloche_usb_open(const char *path, const struct cloche_usb_settings *settings,
                    struct cloche_usb **ret);

/* Requests under way are carried out or not; nothing is written to the data any more. NULL is fine.
 */
void cloche_usb_close(struct cloche_usb *usb);

struct cloche_usb_info {
    size_t size;
    uint32_t sector_size; /* bytes */
    uint32_t best_size;   /* bytes of a request that is moved best */
    uint64_t sectors;
    size_t data_size; /* bytes of cloche_usb_data() */
    unsigned depth;   /* requests that may be under way */
    bool read_only;
    bool flushes; /* what is written is durable after CLOCHE_USB_FLUSH only; else at once */
    bool trims;
};

/* -EINVAL: without a size. */
int cloche_usb_info(const struct cloche_usb *usb, struct cloche_usb_info *ret);

/* The shared memory, page-aligned; NULL is never returned. It is there until the handle is closed.
 */
void *cloche_usb_data(struct cloche_usb *usb, size_t *ret_size);

/* One at a time; they wait. Data within cloche_usb_data() is not copied, other data is. size: any
 * number of whole sectors. */
int cloche_usb_read(struct cloche_usb *usb, uint64_t offset, void *data, size_t size);
int cloche_usb_write(struct cloche_usb *usb, uint64_t offset, const void *data, size_t size);
int cloche_usb_flush(struct cloche_usb *usb);
int cloche_usb_trim(struct cloche_usb *usb, uint64_t offset, uint64_t size);

/* Many at a time. */

enum cloche_usb_operation {
    CLOCHE_USB_READ,
    CLOCHE_USB_WRITE,
    CLOCHE_USB_FLUSH,
    CLOCHE_USB_TRIM, /* the content is not needed any more, and is anything afterwards */
};
enum { CLOCHE_USB_DURABLE = 1 << 0 }; /* of a write: flushed before it is done */

struct cloche_usb_request {
    enum cloche_usb_operation operation;
    unsigned flags;
    uint64_t offset;
    uint32_t length;
    void
        *data; /* within cloche_usb_data(), of READ and WRITE; not to be touched until it is done */
    uint64_t cookie; /* comes back with the result */
};

struct cloche_usb_result {
    uint64_t cookie;
    int result; /* 0 or -errno */
};

/* How many of them are under way now: all, or fewer when there is no room before some are polled.
 * Never waits. -EFAULT: the data of the first is not within cloche_usb_data(); -EINVAL; -ENODEV. */
int cloche_usb_submit(struct cloche_usb *usb, const struct cloche_usb_request *requests,
                      size_t count);

/* What is done: at most count results, each once. Waits until there is one, at most timeout_ms (-1:
 * as long as it takes; 0: not at all), and returns 0 when there is none by then, or nothing is
 * under way. -EINTR; -ENODEV. */
int cloche_usb_poll(struct cloche_usb *usb, struct cloche_usb_result *results, size_t count,
                    int timeout_ms);

/* For poll(2): readable when there may be something to poll, after cloche_usb_poll() has returned 0
 * or an error. The library's. */
int cloche_usb_fd(const struct cloche_usb *usb);

/* The character device of `--usb-block PATH:via=cuse`, without this library: ioctl(2) with these,
 * besides BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, BLKFLSBUF and BLKDISCARD. What read(2) and
 * write(2) do goes on where the last one of this open file ended: the kernel tells such a device no
 * offset. */
struct cloche_usb_sectors {
    uint64_t sector;
    uint32_t count; /* at most 64 KiB of them */
    uint32_t flags; /* CLOCHE_USB_DURABLE */
    uint64_t data;  /* a pointer */
};
#define CLOCHE_USB_IOC_READ _IOWR(0xC1, 1, struct cloche_usb_sectors)
#define CLOCHE_USB_IOC_WRITE _IOW(0xC1, 2, struct cloche_usb_sectors)
#define CLOCHE_USB_IOC_SEEK _IOW(0xC1, 3, uint64_t) /* bytes from the medium's first */

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
