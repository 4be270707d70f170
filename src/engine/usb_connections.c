/*
 * Connections of FUSE, by fusectl. Who waits for a file system that does not answer is in the
 * kernel, where no signal ends it; its own process can be there, too, for a page that a read has
 * locked which it was to answer, and then it does not end when it is killed, and the connection
 * with it. Aborted, the connection ends all of that at once.
 *
 * A connection's folder has the number of the mount's device for a name. It is opened while that
 * number is certain: later it may be another's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "usb_fuse.h"
#include "usb_mountinfo.h"

struct usb_connection {
    struct usb_connection *next;
    char container[CONTAINER_ID_DIGITS + 1];
    int folder; /* O_PATH */
};

/* Nowhere to be seen: whether the machine has mounted it does not matter. */
static int mount_fusectl(void)
{
    _cleanup_close_ int context = fsopen("fusectl", FSOPEN_CLOEXEC);

    if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int mount =
        fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return mount < 0 ? -errno : mount;
}

static int open_folder(struct usb *usb, uint64_t device)
{
    char name[16];

    if (usb->fusectl_fd < 0)
        usb->fusectl_fd = mount_fusectl();
    if (usb->fusectl_fd < 0)
        return usb->fusectl_fd;
    snprintf(name, sizeof(name), "%u", minor(device)); /* its major is 0 (fs/super.c) */
    int fd = openat(usb->fusectl_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void drop(struct usb_connection **at)
{
    struct usb_connection *connection = *at;

    *at = connection->next;
    close_fd(connection->folder);
    free(connection);
}

/* What a folder holds goes with its connection. */
static void drop_ended(struct stick *stick)
{
    struct usb_connection **at = &stick->connections;

    while (*at) {
        if (faccessat((*at)->folder, "abort", F_OK, 0) < 0)
            drop(at);
        else
            at = &(*at)->next;
    }
}

static void add(struct stick *stick, const char *container, int folder)
{
    struct usb_connection *connection = xnew(struct usb_connection);

    snprintf(connection->container, sizeof(connection->container), "%s", container);
    connection->folder = folder;
    connection->next = stick->connections;
    stick->connections = connection;
}

void usb_connection_keep(struct stick *stick, const char *container, uint64_t device)
{
    int folder = open_folder(stick->usb, device);

    drop_ended(stick);
    if (folder >= 0)
        add(stick, container, folder);
    else
        log_warning("USB %s: who waits for it cannot be freed when it does not answer: fusectl: %s",
                    stick->id, strerror(-folder));
}

/* Whether it is this stick's still, in the container that it was mounted in. */
static bool is_mounted(const struct stick *stick, const struct usb_place *place)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/mountinfo", (int)place->pid);
    _cleanup_free_ char *device = xasprintf("%u:%u", major(place->device), minor(place->device));
    _cleanup_free_ char *source = usb_fuse_source(stick);
    _cleanup_free_ char *text = NULL;

    if (file_read_at(AT_FDCWD, path, USB_MOUNTINFO_MAX, &text, NULL, NULL) < 0)
        return false;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (usb_mountinfo_point(line, device, source))
            return true;
    }
    return false;
}

void usb_connections_adopt(struct stick *stick)
{
    for (const struct usb_place *place = stick->places; place; place = place->next) {
        int folder = place->device ? open_folder(stick->usb, place->device) : -ENOENT;
        if (folder >= 0 && is_mounted(stick, place))
            add(stick, place->container, folder);
        else
            close_fd(folder);
    }
}

void usb_connections_abort(struct stick *stick, const char *container)
{
    for (const struct usb_connection *connection = stick->connections; connection;
         connection = connection->next) {
        if (container && !text_equal(connection->container, container))
            continue;
        int r = file_write_existing_at(connection->folder, "abort", "1", 1, NULL);
        if (r >= 0 && container)
            log_warning(
                "USB %s: container %.12s was killed and still waits for it: its connection is "
                "aborted, and what it had not written is lost",
                stick->id, container);
        else if (r >= 0)
            log_debug("USB %s: its connection to container %.12s is aborted", stick->id,
                      connection->container);
        else if (r != -ENOENT)
            log_warning("USB %s: its connection to container %.12s is not aborted: %s", stick->id,
                        connection->container, strerror(-r));
    }
}

void usb_connections_free(struct stick *stick)
{
    while (stick->connections)
        drop(&stick->connections);
}
