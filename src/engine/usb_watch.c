/*
 * What the kernel says of USB devices: uevents, which need no udevd, are the reason to look at all
 * devices again; so nothing is missed when some of them are lost.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "errand.h"
#include "usb_internal.h"
#include "usb_sysfs.h"

enum { KERNEL_GROUP = 1, UEVENTS_AT_ONCE = 64, RECEIVE_BUFFER = 1024 * 1024 };

/* --- looking ---------------------------------------------------------------------------------- */

struct looking {
    uv_work_t work;
    struct usb *usb;
    char *exclusive; /* the record's path; NULL: the kernel's drivers are as they are */
    struct usb_identity *found;
    size_t count;
};

static void look_work(uv_work_t *work)
{
    struct looking *looking = work->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (looking->exclusive &&
        usb_sysfs_exclude(looking->usb->devices_fd, looking->exclusive, &err) < 0)
        log_failure(LOG_ERROR, &err, "the kernel's drivers are not kept off a USB bus");
    usb_sysfs_scan(looking->usb->devices_fd, &looking->found, &looking->count);
}

static const struct usb_identity *find(const struct looking *looking, const char *port)
{
    for (size_t i = 0; i < looking->count; i++) {
        if (text_equal(looking->found[i].port, port))
            return &looking->found[i];
    }
    return NULL;
}

static bool is_same(const struct usb_identity *a, const struct usb_identity *b)
{
    return a->bus == b->bus && a->device == b->device;
}

/* The table changes while they go. */
static void drop_gone(struct usb *usb, const struct looking *looking)
{
    for (size_t i = usb->sticks_count; i-- > 0;) {
        struct stick *stick = usb->sticks[i];
        const struct usb_identity *now = stick->url ? NULL : find(looking, stick->id);
        if (!stick->url && (!now || !is_same(now, &stick->identity)))
            stick_gone(stick);
    }
}

static void take(struct usb *usb, const struct usb_identity *identity)
{
    struct stick *stick = usb_stick_by_id(usb, identity->port);
    bool configured = identity->configuration != 0;

    if (!stick)
        stick = usb_stick_add(usb, identity->port, NULL);
    if (!stick)
        return;
    bool changed = !stick->identified || (stick->identity.configuration != 0) != configured;
    stick->identity = *identity;
    stick->identified = true;
    if (changed) {
        stick_ref(stick);
        stick_settle(stick);
        stick_tell(stick, STICK_WAIT_LOOK, NULL);
        stick_unref(stick);
    }
}

static void look_done(uv_work_t *work, int status)
{
    struct looking *looking = work->data;
    struct usb *usb = looking->usb;

    usb->errands--;
    usb->looking = false;
    if (!usb->ending) {
        drop_gone(usb, looking);
        for (size_t i = 0; i < looking->count; i++)
            take(usb, &looking->found[i]);
        usb->looked = true;
        usb_devices_settle(usb);
        if (usb->look_again)
            usb_watch_look(usb);
    }
    free(looking->found);
    free(looking->exclusive);
    free(looking);
}

void usb_watch_look(struct usb *usb)
{
    usb->look_again = usb->looking;
    if (usb->looking || usb->ending || usb->devices_fd < 0)
        return;
    struct looking *looking = xnew(struct looking);
    looking->usb = usb;
    looking->work.data = looking;
    if (usb->exclusive)
        looking->exclusive = usb_run_path(usb, "exclusive", ".json");
    usb->looking = true;
    usb->errands++;
    errand_run(usb->engine, &looking->work, look_work, look_done);
}

/* --- uevents ---------------------------------------------------------------------------------- */

/* The size of a message that the kernel itself has sent; 0: of somebody else's, who can send to the
 * group with CAP_NET_ADMIN. -errno. */
static ssize_t receive(int fd, char *text, size_t size)
{
    struct sockaddr_nl from = {0};
    struct iovec part = {.iov_base = text, .iov_len = size};
    struct msghdr header = {
        .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &part, .msg_iovlen = 1};

    ssize_t length = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0)
        return -errno;
    if (header.msg_namelen != sizeof(from) || from.nl_pid != 0 || header.msg_flags & MSG_TRUNC)
        return 0;
    return length;
}

static void on_uevent(uv_poll_t *poll, int status, int events)
{
    struct usb *usb = poll->data;
    char text[USB_UEVENT_MAX];
    bool look = false;

    for (int i = 0; i < UEVENTS_AT_ONCE; i++) {
        struct usb_uevent event;
        ssize_t length = receive(usb->uevents_fd, text, sizeof(text));
        if (length == -ENOBUFS) /* some are lost */
            look = true;
        else if (length < 0)
            break;
        else if (length > 0 && usb_uevent_parse(text, (size_t)length, &event))
            look = look || event.action != USB_ACTION_OTHER;
    }
    if (look)
        usb_watch_look(usb);
}

static int open_uevents(struct error *err)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
    const int buffer = RECEIVE_BUFFER;
    _cleanup_close_ int fd =
        socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

    if (fd < 0)
        return error_errno(err, errno, "listen to the kernel's events");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_errno(err, errno, "listen to the kernel's events");
    return steal_fd(&fd);
}

void usb_watch_open(struct usb *usb)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    usb->devices_fd = usb_sysfs_open(&err);
    if (usb->devices_fd == -ENOENT)
        return;
    if (usb->devices_fd >= 0)
        usb->uevents_fd = open_uevents(&err);
    if (usb->devices_fd < 0 || usb->uevents_fd < 0) {
        log_failure(LOG_WARNING, &err, "USB devices are not seen");
        return;
    }
    if (!usb->exclusive) {
        _cleanup_free_ char *record = usb_run_path(usb, "exclusive", ".json");
        usb_sysfs_restore(usb->devices_fd, record); /* as a daemon that was killed has left it */
    }
    usb->uevents = xnew(uv_poll_t);
    usb->uevents->data = usb;
    uv_poll_init(usb->engine->loop, usb->uevents, usb->uevents_fd);
    uv_poll_start(usb->uevents, UV_READABLE, on_uevent);
    uv_unref((uv_handle_t *)usb->uevents);
    usb_watch_look(usb);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

void usb_watch_close(struct usb *usb)
{
    if (usb->uevents) {
        uv_poll_stop(usb->uevents);
        uv_close((uv_handle_t *)steal_ptr(usb->uevents), on_closed);
    }
    if (usb->uevents_fd >= 0)
        close_fd(steal_fd(&usb->uevents_fd));
    if (usb->exclusive && usb->devices_fd >= 0) {
        _cleanup_free_ char *record = usb_run_path(usb, "exclusive", ".json");
        usb_sysfs_restore(usb->devices_fd, record);
    }
}
