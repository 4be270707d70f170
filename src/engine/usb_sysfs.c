#include "usb_sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>
#include <schema/usb_settings.h>

#define USB_DEVICES "/sys/bus/usb/devices"
#define USB_PROBE "/sys/bus/usb/drivers_probe"

enum { ATTRIBUTE_MAX = 4096, RECORD_MAX = 64 * 1024, DEEP_MAX = 12 };

int usb_sysfs_open(struct error *err)
{
    int fd = open(USB_DEVICES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? error_errno(err, errno, "open " USB_DEVICES) : fd;
}

/* --- a device --------------------------------------------------------------------------------- */

static void read_text(int folder_fd, const char *name, char *ret, size_t size)
{
    _cleanup_free_ char *text = NULL;

    ret[0] = '\0';
    if (file_read_at(folder_fd, name, ATTRIBUTE_MAX, &text, NULL, NULL) < 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    if (strlen(text) >= size)
        text[size - 1] = '\0';
    snprintf(ret, size, "%s", text_make_harmless(text, ""));
}

static unsigned read_number(int folder_fd, const char *name)
{
    char text[16];
    uint64_t number = 0;

    read_text(folder_fd, name, text, sizeof(text));
    return text_to_u64(text, 0, 999, &number) < 0 ? 0 : (unsigned)number;
}

/* "189:3" */
static void read_node(int folder_fd, struct usb_identity *identity)
{
    char text[32], more;

    read_text(folder_fd, "dev", text, sizeof(text));
    if (sscanf(text, "%7u:%7u%c", &identity->major_number, &identity->minor_number, &more) != 2)
        identity->major_number = identity->minor_number = 0;
}

int usb_identity_read(int devices_fd, const char *port, struct usb_identity *ret, struct error *err)
{
    _cleanup_close_ int folder = openat(devices_fd, port, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_free_ char *descriptors = NULL;
    struct usb_identity identity;
    size_t size;

    if (folder < 0)
        return error_errno(err, errno, "look at the USB device at %s", port);
    int r = file_read_at(folder, "descriptors", USB_DESCRIPTORS_MAX, &descriptors, &size, err);
    if (r == 0)
        r = usb_identity_parse((const uint8_t *)descriptors, size, &identity, err);
    if (r < 0) {
        error_context(err, "descriptors of the USB device at %s", port);
        return r;
    }
    snprintf(identity.port, sizeof(identity.port), "%s", port);
    read_text(folder, "serial", identity.serial, sizeof(identity.serial));
    read_text(folder, "manufacturer", identity.manufacturer, sizeof(identity.manufacturer));
    read_text(folder, "product", identity.model, sizeof(identity.model));
    read_text(folder, "speed", identity.speed, sizeof(identity.speed));
    identity.bus = read_number(folder, "busnum");
    identity.device = read_number(folder, "devnum");
    read_node(folder, &identity);
    identity.configuration = (uint8_t)read_number(folder, "bConfigurationValue");
    *ret = identity;
    return 0;
}

static DIR *list(int fd, const char *path)
{
    int copy = openat(fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    if (!dir)
        close_fd(copy);
    return dir;
}

/* The first line; false: there is no such file. */
static bool read_line(int fd, const char *path, char *ret, size_t size)
{
    _cleanup_free_ char *text = NULL;

    if (file_read_at(fd, path, ATTRIBUTE_MAX, &text, NULL, NULL) < 0)
        return false;
    snprintf(ret, size, "%.*s", (int)strcspn(text, "\n"), text);
    return true;
}

static int write_word(int fd, const char *path, const char *word, struct error *err)
{
    return file_write_existing_at(fd, path, word, strlen(word), err);
}

void usb_sysfs_scan(int devices_fd, struct usb_identity **ret, size_t *ret_count)
{
    _cleanup_closedir_ DIR *dir = list(devices_fd, ".");
    struct usb_identity *found = NULL;
    size_t count = 0;

    for (struct dirent *entry; dir && count < USB_DEVICES_MAX && (entry = readdir(dir));) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (!usb_is_port(entry->d_name))
            continue;
        if (count % 16 == 0)
            found = xrealloc(found, count + 16, sizeof(*found));
        int r = usb_identity_read(devices_fd, entry->d_name, &found[count], &err);
        if (r == 0)
            count++;
        else if (r != -ENOENT && r != -ENODEV)
            log_failure(LOG_WARNING, &err, "a USB device is left alone");
    }
    *ret = found;
    *ret_count = count;
}

/* --- the kernel's drivers kept off ------------------------------------------------------------ */

static struct usb_settings_exclusive *read_record(const char *path)
{
    _cleanup_free_ char *text = NULL;
    struct usb_settings_exclusive *record = NULL;
    size_t length;

    if (file_read_at(AT_FDCWD, path, RECORD_MAX, &text, &length, NULL) < 0 ||
        usb_settings_exclusive_parse(text, length, path, &record, NULL) < 0) {
        record = xnew(struct usb_settings_exclusive);
        record->version = 1;
    }
    if (!record->buses)
        record->buses = xnew(struct json_string_map);
    return record;
}

static int write_record(const struct usb_settings_exclusive *record, const char *path,
                        struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    usb_settings_exclusive_write(record, &text);
    return file_replace_at(AT_FDCWD, path, text.data, text.length, 0600, err);
}

int usb_sysfs_exclude(int devices_fd, const char *record_path, struct error *err)
{
    _cleanup_usb_settings_exclusive_ struct usb_settings_exclusive *record =
        read_record(record_path);
    _cleanup_closedir_ DIR *dir = list(devices_fd, ".");
    int r = 0;

    for (struct dirent *entry; r >= 0 && dir && (entry = readdir(dir));) {
        _cleanup_free_ char *path = xasprintf("%s/interface_authorized_default", entry->d_name);
        char now[8];
        if (!usb_is_bus(entry->d_name) || !read_line(devices_fd, path, now, sizeof(now)) ||
            text_equal(now, "0"))
            continue;
        json_string_map_set(&record->buses, entry->d_name, now);
        r = write_record(record, record_path, err);
        if (r >= 0)
            r = write_word(devices_fd, path, "0", err);
    }
    return r;
}

void usb_sysfs_restore(int devices_fd, const char *record_path)
{
    _cleanup_usb_settings_exclusive_ struct usb_settings_exclusive *record =
        read_record(record_path);

    for (size_t i = 0; i < record->buses->count; i++) {
        _cleanup_free_ char *path =
            xasprintf("%s/interface_authorized_default", record->buses->keys[i]);
        if (usb_is_bus(record->buses->keys[i]))
            (void)write_word(devices_fd, path, record->buses->values[i], NULL);
    }
    unlink(record_path);
}

/* --- interfaces ------------------------------------------------------------------------------- */

/* "1-4:1.0" of the device 1-4. */
static bool is_interface_of(const char *name, const char *port)
{
    size_t length = strlen(port);

    return strncmp(name, port, length) == 0 && name[length] == ':';
}

static bool is_storage_interface(int devices_fd, const char *name)
{
    _cleanup_free_ char *path = xasprintf("%s/bInterfaceClass", name);
    char text[8];

    return read_line(devices_fd, path, text, sizeof(text)) && text_equal(text, "08");
}

static int authorize(int devices_fd, const char *name, bool *ret_changed, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/authorized", name);
    char now[8];

    if (!read_line(devices_fd, path, now, sizeof(now)) || !text_equal(now, "0"))
        return 0;
    *ret_changed = true;
    return write_word(devices_fd, path, "1", err);
}

int usb_sysfs_authorize_storage(int devices_fd, const char *port, bool *ret_changed,
                                struct error *err)
{
    _cleanup_closedir_ DIR *dir = list(devices_fd, ".");
    int r = 0;

    *ret_changed = false;
    for (struct dirent *entry; r >= 0 && dir && (entry = readdir(dir));) {
        if (is_interface_of(entry->d_name, port) && is_storage_interface(devices_fd, entry->d_name))
            r = authorize(devices_fd, entry->d_name, ret_changed, err);
    }
    return r;
}

/* Documentation/usb/authorization.rst: all first, then the drivers. */
int usb_sysfs_give_to_kernel(int devices_fd, const char *port, struct error *err)
{
    _cleanup_closedir_ DIR *dir = list(devices_fd, ".");
    _cleanup_strv_ char **names = NULL;
    int r = 0;

    for (struct dirent *entry; r >= 0 && dir && (entry = readdir(dir));) {
        bool changed = false;
        if (!is_interface_of(entry->d_name, port))
            continue;
        r = authorize(devices_fd, entry->d_name, &changed, err);
        strv_append(&names, entry->d_name);
    }
    for (size_t i = 0; r >= 0 && names && names[i]; i++)
        (void)write_word(AT_FDCWD, USB_PROBE, names[i], NULL); /* there may be no driver for it */
    return r;
}

void usb_sysfs_withdraw(int devices_fd, const char *port)
{
    _cleanup_closedir_ DIR *dir = list(devices_fd, ".");

    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        _cleanup_free_ char *path = xasprintf("%s/authorized", entry->d_name);
        if (is_interface_of(entry->d_name, port))
            (void)write_word(devices_fd, path, "0", NULL);
    }
}

static bool is_unauthorized(int devices_fd, const char *name)
{
    _cleanup_free_ char *path = xasprintf("%s/authorized", name);
    char now[8];

    return read_line(devices_fd, path, now, sizeof(now)) && text_equal(now, "0");
}

/* Of the bus but for this device; owned. */
static char **unauthorized_beside(int devices_fd, const char *port)
{
    _cleanup_closedir_ DIR *dir = list(devices_fd, ".");
    size_t bus = strcspn(port, "-") + 1;
    char **names = NULL;

    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, port, bus) == 0 && strchr(entry->d_name, ':') &&
            !is_interface_of(entry->d_name, port) && is_unauthorized(devices_fd, entry->d_name))
            strv_append(&names, entry->d_name);
    }
    return names;
}

/* What was plugged in meanwhile is the kernel's, as always. */
static void give_new(int devices_fd, const char *port, char *const *before)
{
    _cleanup_strv_ char **now = unauthorized_beside(devices_fd, port);

    for (size_t i = 0; now && now[i]; i++) {
        bool changed;
        if (!strv_contains(before, now[i]) && authorize(devices_fd, now[i], &changed, NULL) == 0)
            (void)write_word(AT_FDCWD, USB_PROBE, now[i], NULL);
    }
}

static int set_configuration(int devices_fd, const char *port, uint8_t value, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/bConfigurationValue", port);
    _cleanup_free_ char *word = xasprintf("%u", value);

    return write_word(devices_fd, path, word, err);
}

/* The bus is closed for as long as it takes. */
static int configure_apart(int devices_fd, const char *port, uint8_t value, const char *record_path,
                           struct error *err)
{
    _cleanup_usb_settings_exclusive_ struct usb_settings_exclusive *record =
        read_record(record_path);
    _cleanup_strv_ char **before = unauthorized_beside(devices_fd, port);
    _cleanup_free_ char *bus = xasprintf("usb%.*s", (int)strcspn(port, "-"), port);
    _cleanup_free_ char *path = xasprintf("%s/interface_authorized_default", bus);
    char was[8];

    if (!read_line(devices_fd, path, was, sizeof(was)))
        return error_set(err, -ENOTSUP, "this kernel cannot keep its drivers off interfaces");
    if (text_equal(was, "0"))
        return set_configuration(devices_fd, port, value, err);
    json_string_map_set(&record->buses, bus, was);
    int r = write_record(record, record_path, err);
    if (r >= 0)
        r = write_word(devices_fd, path, "0", err);
    if (r >= 0)
        r = set_configuration(devices_fd, port, value, err);
    usb_sysfs_restore(devices_fd, record_path);
    give_new(devices_fd, port, before);
    return r;
}

int usb_sysfs_configure(int devices_fd, const char *port, uint8_t value, const char *record_path,
                        struct error *err)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

    pthread_mutex_lock(&one_at_a_time);
    int r = record_path ? configure_apart(devices_fd, port, value, record_path, err)
                        : set_configuration(devices_fd, port, value, err);
    pthread_mutex_unlock(&one_at_a_time);
    return r < 0 ? error_context(err, "set configuration %u of the USB device at %s", value, port)
                 : r;
}

/* --- nodes ------------------------------------------------------------------------------------ */

/* A devtmpfs shows the nodes of all devices whoever mounts it; nothing is seen of this mount. */
static int open_devtmpfs(struct error *err)
{
    _cleanup_close_ int context = fsopen("devtmpfs", FSOPEN_CLOEXEC);

    if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return error_errno(err, errno, "mount a devtmpfs");
    int fd = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    return fd < 0 ? error_errno(err, errno, "mount a devtmpfs") : fd;
}

static int open_anywhere(const char *name, int flags, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("/dev/%s", name);
    _cleanup_close_ int devices = -1;

    int fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd < 0 ? error_errno(err, errno, "open %s", path) : fd;
    devices = open_devtmpfs(err);
    if (devices < 0)
        return devices;
    fd = openat(devices, name, flags | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open %s", path) : fd;
}

int usb_sysfs_open_node(unsigned bus, unsigned device, struct error *err)
{
    _cleanup_free_ char *name = xasprintf("bus/usb/%03u/%03u", bus, device);

    return open_anywhere(name, O_RDWR, err);
}

/* An exclusive open fails while the device, or a partition of it, is mounted or part of something
 * (open(2), O_EXCL without O_CREAT). */
static int check_block(const char *name, struct error *err)
{
    _cleanup_close_ int fd = open_anywhere(name, O_RDONLY | O_EXCL | O_NONBLOCK, NULL);

    if (fd >= 0 || errno != EBUSY)
        return 0;
    error_set(err, -EBUSY, "the kernel has it as /dev/%s, which is mounted or otherwise used",
              name);
    return error_hint(err, "umount it, or let the kernel's drivers be kept off: usb.exclusive in "
                           "cloched.conf(5)");
}

static int check_below(int fd, const char *path, unsigned deep, struct error *err)
{
    _cleanup_closedir_ DIR *dir = deep < DEEP_MAX ? list(fd, path) : NULL;
    bool blocks = text_equal(path, "block");
    int r = 0;

    for (struct dirent *entry; r >= 0 && dir && (entry = readdir(dir));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        r = blocks ? check_block(entry->d_name, err)
                   : check_below(dirfd(dir), entry->d_name, deep + 1, err);
    }
    return r;
}

int usb_sysfs_check_unused(int devices_fd, const char *port, struct error *err)
{
    return check_below(devices_fd, port, 0, err);
}
