/*
 * What of a device of this machine only root may do. Whoever has the jailed process could have the
 * kernel read the stick by its own drivers: by attaching them (USBDEVFS_CONNECT), by another
 * configuration, or by a reset while the interface is claimed, behind which the kernel looks for a
 * driver anew. None of that is left to it:
 *
 *     device_confine     before the jail: the kernel's drivers are detached; by this descriptor no
 *                        driver is attached and nothing but mass storage is claimed any more
 *     device_help        resets, by the process outside that waits for the jailed one
 *     device_reset       asks for one
 */
#include <dirent.h>
#include <errno.h>
#include <linux/usbdevice_fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "server.h"

enum { INTERFACES = 32, ATTRIBUTE_MAX = 8, STORAGE = 0x08 };

/* --- before the jail -------------------------------------------------------------------------- */

/* Of sysfs; hexadecimal. -1: it is not there. */
static long read_attribute(int folder, const char *interface, const char *name)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", interface, name);
    _cleanup_free_ char *text = NULL;
    if (file_read_at(folder, path, ATTRIBUTE_MAX, &text, NULL, NULL) < 0)
        return -1;
    return strtol(text, NULL, 16);
}

/* As the kernel knows it, of the configuration that it has chosen. "1-4:1.0" is an interface. */
static int find_storage(int fd, uint32_t *ret_interfaces, uint8_t *ret_configuration,
                        struct error *err)
{
    _cleanup_free_ char *configuration = NULL;
    uint64_t value;
    struct stat status;
    uint32_t found = 0;
    if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode))
        return error_set(err, -EINVAL, "jail: descriptor %d is no USB device", fd);
    _cleanup_free_ char *path =
        xasprintf("/sys/dev/char/%u:%u", major(status.st_rdev), minor(status.st_rdev));
    _cleanup_closedir_ DIR *dir = opendir(path);
    if (!dir)
        return error_errno(err, errno, "jail: look at the interfaces of the device at %s", path);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strchr(entry->d_name, ':') ||
            read_attribute(dirfd(dir), entry->d_name, "bInterfaceClass") != STORAGE)
            continue;
        long number = read_attribute(dirfd(dir), entry->d_name, "bInterfaceNumber");
        if (number >= 0 && number < INTERFACES)
            found |= UINT32_C(1) << number;
    }
    if (file_read_at(dirfd(dir), "bConfigurationValue", ATTRIBUTE_MAX, &configuration, NULL, err) <
        0)
        return error_context(err, "jail: which configuration is set");
    configuration[strcspn(configuration, "\n")] = '\0';
    if (text_to_u64(configuration, 1, UINT8_MAX, &value) < 0)
        return error_set(err, -ENODEV, "jail: the device has no configuration");
    *ret_configuration = (uint8_t)value;
    *ret_interfaces = found;
    return 0;
}

/* What another process has by usbfs stays its own. */
static int detach(int fd, unsigned interface, struct error *err)
{
    struct usbdevfs_getdriver driver = {.interface = interface};
    struct usbdevfs_ioctl disconnect = {.ifno = (int)interface, .ioctl_code = USBDEVFS_DISCONNECT};
    if (ioctl(fd, USBDEVFS_GETDRIVER, &driver) < 0 || text_equal(driver.driver, "usbfs"))
        return 0;
    if (ioctl(fd, USBDEVFS_IOCTL, &disconnect) < 0 && errno != ENODATA)
        return error_errno(err, errno, "jail: take interface %u from the kernel's driver %s",
                           interface, driver.driver);
    return 0;
}

int device_confine(int fd, uint32_t *ret_interfaces, uint8_t *ret_configuration, struct error *err)
{
    int r = find_storage(fd, ret_interfaces, ret_configuration, err);
    for (unsigned i = 0; r == 0 && i < INTERFACES; i++)
        if (*ret_interfaces & UINT32_C(1) << i)
            r = detach(fd, i, err);
    if (r == 0 && ioctl(fd, USBDEVFS_DROP_PRIVILEGES, ret_interfaces) < 0 && errno != ENOTTY)
        r = error_errno(err, errno, "jail: give up rights of the device");
    return r;
}

/* --- outside ---------------------------------------------------------------------------------- */

/* The kernel attaches a driver to what was claimed before, so that nothing is; with another
 * interface in somebody else's hands it refuses (EACCES). */
static int reset(int fd, uint32_t interfaces)
{
    uint32_t claimed = 0;
    for (unsigned i = 0; i < INTERFACES; i++)
        if (interfaces & UINT32_C(1) << i && ioctl(fd, USBDEVFS_RELEASEINTERFACE, &i) == 0)
            claimed |= UINT32_C(1) << i;
    int r = ioctl(fd, USBDEVFS_RESET, NULL) < 0 ? -errno : 0;
    for (unsigned i = 0; i < INTERFACES; i++)
        if (claimed & UINT32_C(1) << i && ioctl(fd, USBDEVFS_CLAIMINTERFACE, &i) < 0 && r == 0)
            r = -errno;
    return r;
}

/* Its threads stand still meanwhile: none claims what was released. */
static int reset_beside(pid_t child, int fd, uint32_t interfaces)
{
    siginfo_t info;
    if (kill(child, SIGSTOP) < 0 ||
        waitid(P_PID, (id_t)child, &info, WSTOPPED | WEXITED | WNOWAIT) < 0 ||
        info.si_code != CLD_STOPPED)
        return -ESRCH;
    int r = reset(fd, interfaces);
    kill(child, SIGCONT);
    return r;
}

void device_help(pid_t child, int help, int fd, uint32_t interfaces)
{
    char byte;
    int32_t result;
    ssize_t n;
    while ((n = read(help, &byte, 1)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0)
            continue;
        result = reset_beside(child, fd, interfaces);
        if (send(help, &result, sizeof(result), MSG_NOSIGNAL) != sizeof(result))
            break;
    }
}

/* --- inside ----------------------------------------------------------------------------------- */

int device_reset(void *data)
{
    const int *help = data;
    const char byte = 'r';
    int32_t result = -EIO;
    ssize_t n;
    while ((n = write(*help, &byte, 1)) < 0 && errno == EINTR)
        ;
    while (n == 1 && (n = read(*help, &result, sizeof(result))) < 0 && errno == EINTR)
        n = 1;
    return n == sizeof(result) ? result : -EIO;
}
