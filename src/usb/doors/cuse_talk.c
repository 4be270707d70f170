/*
 * CUSE, by hand: libfuse opens /dev/cuse itself, which a jail has not.
 *
 *     cuse_answer   a message -> the function of its operation -> the answer
 *     control       ioctl(2): says which memory of the caller it needs until the kernel brings it
 *                   (FUSE_IOCTL_RETRY), then does it
 */
#include "cuse_talk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cloche/usb.h>

struct call {
    struct cuse_talk *talk;
    const struct fuse_in_header *head;
    const uint8_t *body; /* behind the head */
    size_t size;         /* of it */
    uint8_t *answer;     /* behind the answer's head: CUSE_MESSAGE less that */
};

/* The body's first bytes as a structure; false: it is shorter. */
static bool take(const struct call *call, void *to, size_t size)
{
    if (call->size < size)
        return false;
    memcpy(to, call->body, size);
    return true;
}

static ssize_t give(const struct call *call, const void *from, size_t size)
{
    memcpy(call->answer, from, size);
    return (ssize_t)size;
}

static uint64_t size_of(const struct cuse_talk *talk)
{
    return talk->medium->sectors * talk->medium->sector_size;
}

/* The beginning, and open files. */

static ssize_t begin(struct call *call)
{
    struct cuse_talk *talk = call->talk;
    struct cuse_init_in in;
    if (talk->has_begun || !take(call, &in, sizeof(in)) || in.major != FUSE_KERNEL_VERSION ||
        in.minor < 16) /* with that came the kernel's own reading of fuse_ioctl_iovec */
        return -EPROTO;
    const struct cuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = in.minor < FUSE_KERNEL_MINOR_VERSION ? in.minor : FUSE_KERNEL_MINOR_VERSION,
        .flags = CUSE_UNRESTRICTED_IOCTL,
        .max_read = CUSE_MOVE,
        .max_write = CUSE_MOVE,
    };
    memcpy(call->answer, &out, sizeof(out));
    int length = snprintf((char *)call->answer + sizeof(out),
                          sizeof("DEVNAME=") + sizeof(talk->name), "DEVNAME=%s", talk->name);
    talk->has_begun = true;
    return (ssize_t)sizeof(out) + length + 1;
}

static ssize_t open_file(struct call *call)
{
    struct cuse_talk *talk = call->talk;
    struct fuse_open_in in;
    struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO};
    if (!take(call, &in, sizeof(in)))
        return -EPROTO;
    if (talk->read_only && (in.flags & O_ACCMODE) != O_RDONLY)
        return -EROFS;
    while (out.fh < CUSE_FILES && talk->is_open[out.fh])
        out.fh++;
    if (out.fh == CUSE_FILES)
        return -EMFILE;
    talk->is_open[out.fh] = true;
    talk->positions[out.fh] = 0;
    return give(call, &out, sizeof(out));
}

static bool is_open(const struct cuse_talk *talk, uint64_t file)
{
    return file < CUSE_FILES && talk->is_open[file];
}

static ssize_t release(struct call *call)
{
    struct fuse_release_in in;
    if (!take(call, &in, sizeof(in)) || !is_open(call->talk, in.fh))
        return -EBADF;
    call->talk->is_open[in.fh] = false;
    return 0;
}

/* Sectors. */

/* Whole sectors within the medium: 0. */
static int move(const struct cuse_talk *talk, bool writes, uint64_t offset, void *data, size_t size)
{
    struct block_device *medium = talk->medium;
    uint64_t sector = offset / medium->sector_size;
    uint32_t count = (uint32_t)(size / medium->sector_size);
    if (offset % medium->sector_size || size % medium->sector_size || size > CUSE_MOVE)
        return -EINVAL;
    if (writes && talk->read_only)
        return -EROFS;
    if (!block_within(medium, sector, count))
        return writes ? -ENOSPC : -EINVAL;
    if (count == 0)
        return 0;
    return writes ? block_write(medium, sector, count, data, NULL)
                  : block_read(medium, sector, count, data, NULL);
}

static ssize_t read_on(struct call *call)
{
    struct cuse_talk *talk = call->talk;
    struct fuse_read_in in;
    if (!take(call, &in, sizeof(in)) || !is_open(talk, in.fh))
        return -EBADF;
    uint64_t left = size_of(talk) - talk->positions[in.fh];
    size_t size = in.size < CUSE_MOVE ? in.size : CUSE_MOVE;
    if (size > left)
        size = (size_t)left;
    int r = move(talk, false, talk->positions[in.fh], call->answer, size);
    if (r == 0)
        talk->positions[in.fh] += size;
    return r == 0 ? (ssize_t)size : r;
}

static ssize_t write_on(struct call *call)
{
    struct cuse_talk *talk = call->talk;
    struct fuse_write_in in;
    if (!take(call, &in, sizeof(in)) || !is_open(talk, in.fh) || in.size > call->size - sizeof(in))
        return -EBADF;
    uint64_t left = size_of(talk) - talk->positions[in.fh];
    size_t size = in.size;
    if (left > 0 && size > left)
        size = (size_t)left;
    int r = move(talk, true, talk->positions[in.fh], (void *)(uintptr_t)(call->body + sizeof(in)),
                 size);
    if (r != 0)
        return r;
    talk->positions[in.fh] += size;
    const struct fuse_write_out out = {.size = (uint32_t)size};
    return give(call, &out, sizeof(out));
}

/* ioctl(2). */

struct control {
    struct call *call;
    struct fuse_ioctl_in in;
    const uint8_t *data; /* that the kernel brought, in.in_size bytes */
};

static ssize_t control_done(const struct control *control, const void *data, size_t size)
{
    const struct fuse_ioctl_out out = {0};
    memcpy(control->call->answer, &out, sizeof(out));
    if (size > 0)
        memmove(control->call->answer + sizeof(out), data, size);
    return (ssize_t)(sizeof(out) + size);
}

/* Memory of the caller's, first what is read of it. */
static ssize_t ask_for(const struct control *control, const struct fuse_ioctl_iovec *parts,
                       uint32_t in, uint32_t out)
{
    const struct fuse_ioctl_out head = {.flags = FUSE_IOCTL_RETRY, .in_iovs = in, .out_iovs = out};
    size_t size = (in + out) * sizeof(*parts);
    memcpy(control->call->answer, &head, sizeof(head));
    memcpy(control->call->answer + sizeof(head), parts, size);
    return (ssize_t)(sizeof(head) + size);
}

static ssize_t say(const struct control *control, const void *data, size_t size)
{
    const struct fuse_ioctl_iovec to = {control->in.arg, size};
    return control->in.out_size < size ? ask_for(control, &to, 0, 1)
                                       : control_done(control, data, size);
}

static ssize_t discard(const struct control *control)
{
    const struct cuse_talk *talk = control->call->talk;
    const struct fuse_ioctl_iovec from = {control->in.arg, 2 * sizeof(uint64_t)};
    uint64_t range[2]; /* bytes: first, count */
    if (control->in.in_size < sizeof(range))
        return ask_for(control, &from, 1, 0);
    memcpy(range, control->data, sizeof(range));
    uint32_t sector_size = talk->medium->sector_size;
    if (range[0] % sector_size || range[1] % sector_size || range[1] == 0 ||
        !block_within(talk->medium, range[0] / sector_size, range[1] / sector_size))
        return -EINVAL;
    if (talk->read_only)
        return -EROFS;
    int r = 0;
    for (uint64_t sector = range[0] / sector_size, left = range[1] / sector_size; r == 0 && left;) {
        uint32_t part = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
        r = block_discard(talk->medium, sector, part, NULL);
        sector += part;
        left -= part;
    }
    return r == 0 ? control_done(control, NULL, 0) : r;
}

static ssize_t seek(const struct control *control)
{
    struct cuse_talk *talk = control->call->talk;
    const struct fuse_ioctl_iovec from = {control->in.arg, sizeof(uint64_t)};
    uint64_t position;
    if (control->in.in_size < sizeof(position))
        return ask_for(control, &from, 1, 0);
    memcpy(&position, control->data, sizeof(position));
    if (position > size_of(talk) || position % talk->medium->sector_size)
        return -EINVAL;
    talk->positions[control->in.fh] = position;
    return control_done(control, NULL, 0);
}

static ssize_t move_sectors(const struct control *control, bool writes)
{
    struct cuse_talk *talk = control->call->talk;
    struct fuse_ioctl_iovec parts[2] = {{control->in.arg, sizeof(struct cloche_usb_sectors)}};
    struct cloche_usb_sectors wanted;
    uint32_t sector_size = talk->medium->sector_size;
    if (control->in.in_size < sizeof(wanted))
        return ask_for(control, parts, 1, 0);
    memcpy(&wanted, control->data, sizeof(wanted));
    size_t size = (size_t)wanted.count * sector_size;
    if (wanted.count == 0 || size > CUSE_MOVE ||
        wanted.flags & ~(writes ? (unsigned)CLOCHE_USB_DURABLE : 0U) ||
        !block_within(talk->medium, wanted.sector, wanted.count))
        return -EINVAL;
    /* What the caller has in that place may be another number by now. */
    bool is_here =
        writes ? control->in.in_size == sizeof(wanted) + size : control->in.out_size == size;
    parts[1] = (struct fuse_ioctl_iovec){wanted.data, size};
    if (!is_here)
        return ask_for(control, parts, writes ? 2 : 1, writes ? 0 : 1);
    uint8_t *data = writes ? (uint8_t *)(uintptr_t)control->data + sizeof(wanted)
                           : control->call->answer + sizeof(struct fuse_ioctl_out);
    int r = move(talk, writes, wanted.sector * sector_size, data, size);
    if (r == 0 && wanted.flags & CLOCHE_USB_DURABLE)
        r = block_flush(talk->medium, NULL);
    return r == 0 ? control_done(control, data, writes ? 0 : size) : r;
}

static ssize_t flush(const struct control *control)
{
    int r = block_flush(control->call->talk->medium, NULL);
    return r == 0 ? control_done(control, NULL, 0) : r;
}

static ssize_t control(struct call *call)
{
    struct control control = {.call = call};
    const struct block_device *medium = call->talk->medium;
    const int sector_size = (int)medium->sector_size, read_only = call->talk->read_only;
    const uint64_t size = size_of(call->talk);
    if (!take(call, &control.in, sizeof(control.in)) || !is_open(call->talk, control.in.fh) ||
        control.in.in_size > call->size - sizeof(control.in))
        return -EBADF;
    control.data = call->body + sizeof(control.in);
    switch (control.in.cmd) {
    case BLKGETSIZE64:
    case _IOR(0x12, 114, int): /* of a program of 32 bits */
        return say(&control, &size, sizeof(size));
    case BLKSSZGET:
    case BLKPBSZGET:
        return say(&control, &sector_size, sizeof(sector_size));
    case BLKROGET:
        return say(&control, &read_only, sizeof(read_only));
    case BLKFLSBUF:
        return flush(&control);
    case BLKDISCARD:
        return discard(&control);
    case CLOCHE_USB_IOC_READ:
        return move_sectors(&control, false);
    case CLOCHE_USB_IOC_WRITE:
        return move_sectors(&control, true);
    case CLOCHE_USB_IOC_SEEK:
        return seek(&control);
    case SG_IO: /* whoever is given sectors is not given the stick's commands */
        return -EPERM;
    default:
        return -ENOTTY;
    }
}

/* The message. */

static ssize_t dispatch(struct call *call)
{
    if (call->head->opcode == CUSE_INIT)
        return begin(call);
    if (!call->talk->has_begun)
        return -EPROTO;
    switch (call->head->opcode) {
    case FUSE_OPEN:
        return open_file(call);
    case FUSE_RELEASE:
        return release(call);
    case FUSE_READ:
        return read_on(call);
    case FUSE_WRITE:
        return write_on(call);
    case FUSE_IOCTL:
        return control(call);
    case FUSE_FLUSH:
        return 0;
    default:
        return -ENOSYS;
    }
}

ssize_t cuse_answer(struct cuse_talk *talk, const void *message, size_t size, void *answer,
                    struct error *err)
{
    struct fuse_in_header head;
    if (size < sizeof(head))
        return error_set(err, -EPROTO, "a message of %zu bytes", size);
    memcpy(&head, message, sizeof(head));
    if (head.len != size)
        return error_set(err, -EPROTO, "a message of %zu bytes that says %u", size, head.len);
    if (head.opcode == FUSE_INTERRUPT)
        return 0; /* there is but one request at a time, and it ends soon */
    struct call call = {
        .talk = talk,
        .head = &head,
        .body = (const uint8_t *)message + sizeof(head),
        .size = size - sizeof(head),
        .answer = (uint8_t *)answer + sizeof(struct fuse_out_header),
    };
    ssize_t r = dispatch(&call);
    if (r == -EPROTO)
        return error_set(err, -EPROTO, "the kernel speaks another dialect of CUSE");
    const struct fuse_out_header out = {
        .len = (uint32_t)sizeof(out) + (r > 0 ? (uint32_t)r : 0),
        .error = r < 0 ? (int32_t)r : 0,
        .unique = head.unique,
    };
    memcpy(answer, &out, sizeof(out));
    return (ssize_t)out.len;
}
