/*
 * The kernel's side of block devices for containers: which of NBD and CUSE there is, and NBD's
 * devices, by generic netlink (linux/nbd-netlink.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "usb_internal.h"

#define MAX_PART "/sys/module/nbd/parameters/max_part"

enum { MESSAGE_MAX = 4096, CUSE_NAMES = 64, TEXT_MAX = 64 };

const char *const usb_via_names[] = {"nbd", "cuse", "ring"};

/* --- what there is ---------------------------------------------------------------------------- */

/* With partitions the kernel would read the stick's table as soon as somebody opens the device. */
static int check_nbd(struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    uint64_t partitions = 0;

    if (file_read_at(AT_FDCWD, MAX_PART, TEXT_MAX, &text, &length, NULL) < 0) {
        error_set(err, -EOPNOTSUPP, "the kernel has no driver for NBD");
        error_hint(err, "modprobe nbd max_part=0");
        return -EOPNOTSUPP;
    }
    text[strcspn(text, "\n")] = '\0';
    if (text_to_u64(text, 0, UINT32_MAX, &partitions) == 0 && partitions == 0)
        return 0;
    error_set(err, -EOPNOTSUPP,
              "the kernel's driver for NBD would read the stick's partition table (max_part=%s)",
              text);
    error_hint(err, "options nbd max_part=0, in modprobe.d(5), before it is loaded");
    return -EOPNOTSUPP;
}

static int check_cuse(struct error *err)
{
    if (access("/dev/cuse", F_OK) == 0)
        return 0;
    error_set(err, -EOPNOTSUPP, "the kernel has no CUSE (/dev/cuse)");
    error_hint(err, "modprobe cuse");
    return -EOPNOTSUPP;
}

int usb_via_choose(const char *wanted, enum usb_via *ret, struct error *err)
{
    _cleanup_error_ struct error why = ERROR_INIT;
    int r;

    if (text_equal(wanted, "ring")) {
        *ret = USB_VIA_RING;
        return 0;
    }
    if (text_equal(wanted, "cuse")) {
        r = check_cuse(err);
    } else {
        r = check_nbd(&why);
        if (r < 0 && wanted)
            return error_move(err, &why);
        if (r == 0) {
            *ret = USB_VIA_NBD;
            return 0;
        }
        r = check_cuse(NULL);
        if (r < 0) {
            error_set(err, r, "%s, and no CUSE", error_message(&why));
            error_hint(err, "modprobe nbd max_part=0, or modprobe cuse; via=ring needs neither");
        }
    }
    if (r == 0)
        *ret = USB_VIA_CUSE;
    return r;
}

int usb_device_number(const char *path, unsigned *ret_major, unsigned *ret_minor, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = file_read_at(AT_FDCWD, path, TEXT_MAX, &text, &length, err);

    if (r < 0)
        return r;
    return sscanf(text, "%u:%u", ret_major, ret_minor) == 2
               ? 0
               : error_set(err, -EBADMSG, "%s is not MAJOR:MINOR", path);
}

int usb_cuse_open(char *ret_name, size_t size, struct error *err)
{
    for (int i = 0; i < CUSE_NAMES; i++) {
        _cleanup_free_ char *path = xasprintf("/sys/class/cuse/usbblk%d", i);
        if (access(path, F_OK) == 0)
            continue;
        int fd = open("/dev/cuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        snprintf(ret_name, size, "usbblk%d", i);
        return fd < 0 ? error_errno(err, errno, "open /dev/cuse") : fd;
    }
    return error_set(err, -ENOSPC, "all of usbblk0 to usbblk%d are taken", CUSE_NAMES - 1);
}

/* --- netlink ---------------------------------------------------------------------------------- */

struct talk {
    struct mnl_socket *socket;
    uint16_t family;
    uint32_t index;
};

static struct nlmsghdr *begin(char *buffer, uint16_t type, uint8_t command, uint8_t version)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    struct genlmsghdr *head;

    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message->nlmsg_seq = 1;
    head = mnl_nlmsg_put_extra_header(message, sizeof(*head));
    head->cmd = command;
    head->version = version;
    return message;
}

static int on_family(const struct nlattr *attribute, void *data)
{
    struct talk *talk = data;

    if (mnl_attr_get_type(attribute) == CTRL_ATTR_FAMILY_ID &&
        mnl_attr_get_payload_len(attribute) >= sizeof(uint16_t))
        talk->family = mnl_attr_get_u16(attribute);
    return MNL_CB_OK;
}

static int on_device(const struct nlattr *attribute, void *data)
{
    struct talk *talk = data;

    if (mnl_attr_get_type(attribute) == NBD_ATTR_INDEX &&
        mnl_attr_get_payload_len(attribute) >= sizeof(uint32_t))
        talk->index = mnl_attr_get_u32(attribute);
    return MNL_CB_OK;
}

static int on_message(const struct nlmsghdr *message, void *data)
{
    return mnl_attr_parse(message, sizeof(struct genlmsghdr),
                          message->nlmsg_type == GENL_ID_CTRL ? on_family : on_device, data);
}

/* Until it is acknowledged; the kernel has answered before the sending returns. */
static int exchange(struct talk *talk, const struct nlmsghdr *message)
{
    char buffer[MESSAGE_MAX];
    int r = MNL_CB_OK;

    if (mnl_socket_sendto(talk->socket, message, message->nlmsg_len) < 0)
        return -errno;
    while (r > MNL_CB_STOP) {
        ssize_t size = mnl_socket_recvfrom(talk->socket, buffer, sizeof(buffer));
        if (size < 0)
            return -errno;
        r = mnl_cb_run(buffer, (size_t)size, 1, mnl_socket_get_portid(talk->socket), on_message,
                       talk);
    }
    return r < 0 ? -errno : 0;
}

/* NBD answers in the machine's own network namespace only, where a daemon need not be. */
static void *open_outside(void *data)
{
    _cleanup_close_ int namespace_fd = open("/proc/1/ns/net", O_RDONLY | O_CLOEXEC);
    int *fd = data;

    if (namespace_fd >= 0 && setns(namespace_fd, CLONE_NEWNET) == 0)
        *fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    if (*fd < 0)
        *fd = -errno;
    return NULL;
}

/* In a thread of its own, whose namespace goes with it. */
static int open_socket(bool outside, struct mnl_socket **ret)
{
    pthread_t thread;
    int fd = -1;

    if (!outside) {
        *ret = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC);
        return *ret ? 0 : -errno;
    }
    int r = -pthread_create(&thread, NULL, open_outside, &fd);
    if (r == 0)
        pthread_join(thread, NULL);
    if (r < 0 || fd < 0)
        return r < 0 ? r : fd;
    *ret = mnl_socket_fdopen(fd);
    if (*ret)
        return 0;
    close_fd(fd);
    return -ENOMEM;
}

static int find_family(struct talk *talk, bool outside)
{
    char buffer[MESSAGE_MAX];
    struct nlmsghdr *message;

    *talk = (struct talk){.family = 0};
    int r = open_socket(outside, &talk->socket);
    if (r < 0)
        return r;
    if (mnl_socket_bind(talk->socket, 0, MNL_SOCKET_AUTOPID) < 0)
        return -errno;
    message = begin(buffer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
    mnl_attr_put_strz(message, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME);
    r = exchange(talk, message);
    return r == 0 && !talk->family ? -ENOENT : r;
}

static void close_talk(struct talk *talk)
{
    if (talk->socket)
        mnl_socket_close(talk->socket);
    talk->socket = NULL;
}

static int open_talk(struct talk *talk, struct error *err)
{
    int r = find_family(talk, false);

    if (r == -ENOENT) {
        close_talk(talk);
        r = find_family(talk, true);
    }
    if (r < 0)
        close_talk(talk);
    return r < 0 ? error_errno(err, -r, "find the kernel's NBD") : 0;
}

int usb_nbd_connect(int fd, const struct usb_stick_blocked *blocked, uint32_t *ret_index,
                    struct error *err)
{
    char buffer[MESSAGE_MAX];
    struct talk talk;
    uint64_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;
    int r = open_talk(&talk, err);

    if (r < 0)
        return r;
    flags |= blocked->read_only ? NBD_FLAG_READ_ONLY : 0U;
    flags |= blocked->discards && !blocked->read_only ? NBD_FLAG_SEND_TRIM : 0U;
    struct nlmsghdr *message = begin(buffer, talk.family, NBD_CMD_CONNECT, NBD_GENL_VERSION);
    mnl_attr_put_u64(message, NBD_ATTR_SIZE_BYTES, blocked->sectors * blocked->sector_size);
    mnl_attr_put_u64(message, NBD_ATTR_BLOCK_SIZE_BYTES, blocked->sector_size);
    mnl_attr_put_u64(message, NBD_ATTR_SERVER_FLAGS, flags);
    struct nlattr *sockets = mnl_attr_nest_start(message, NBD_ATTR_SOCKETS);
    struct nlattr *item = mnl_attr_nest_start(message, NBD_SOCK_ITEM);
    mnl_attr_put_u32(message, NBD_SOCK_FD, (uint32_t)fd);
    mnl_attr_nest_end(message, item);
    mnl_attr_nest_end(message, sockets);
    r = exchange(&talk, message);
    close_talk(&talk);
    if (r < 0)
        return error_errno(err, -r, "connect a device of the kernel's NBD");
    *ret_index = talk.index;
    return 0;
}

void usb_nbd_disconnect(uint32_t index)
{
    char buffer[MESSAGE_MAX];
    struct talk talk;

    if (open_talk(&talk, NULL) < 0)
        return;
    struct nlmsghdr *message = begin(buffer, talk.family, NBD_CMD_DISCONNECT, NBD_GENL_VERSION);
    mnl_attr_put_u32(message, NBD_ATTR_INDEX, index);
    exchange(&talk, message);
    close_talk(&talk);
}
