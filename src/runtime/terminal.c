#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include <base/file.h>
#include <base/socket.h>

#include "terminal.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41) /* Linux 4.13 */
#endif
#ifndef DEVPTS_SUPER_MAGIC
#define DEVPTS_SUPER_MAGIC 0x1cd1
#endif

/* The image may have put something else there: only a ptmx (5:2) of a devpts will do. The slave
 * comes from the master itself and not by its name (CVE-2025-52565). */
static int open_master(int root_fd, struct error *err)
{
    struct stat status;
    struct statfs filesystem;
    _cleanup_close_ int fd =
        file_open_in_root(root_fd, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW, 0);

    if (fd < 0)
        return error_errno(err, -fd, "process.terminal: open /dev/pts/ptmx in the root");
    if (fstat(fd, &status) < 0 || fstatfs(fd, &filesystem) < 0)
        return error_errno(err, errno, "process.terminal: stat /dev/pts/ptmx");
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(5, 2) ||
        filesystem.f_type != DEVPTS_SUPER_MAGIC)
        return error_set(err, -EINVAL, "process.terminal: /dev/pts in the root is no devpts");
    return steal_fd(&fd);
}

struct winsize terminal_first_size(const struct oci_box *configured, bool own)
{
    struct winsize size = {0};

    if (configured)
        return (struct winsize){.ws_row = configured->height, .ws_col = configured->width};
    if (own && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    return size;
}

int terminal_open(int root_fd, const struct winsize *size, int *ret_master, int *ret_slave,
                  struct error *err)
{
    int unlock = 0;
    _cleanup_close_ int master_fd = open_master(root_fd, err);

    if (master_fd < 0)
        return master_fd;
    if (ioctl(master_fd, TIOCSPTLCK, &unlock) < 0)
        return error_errno(err, errno, "process.terminal: unlock the pty");
    int slave_fd = ioctl(master_fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave_fd < 0)
        return error_errno(err, errno, "process.terminal: open the pty's slave");
    if (size->ws_row || size->ws_col)
        ioctl(master_fd, TIOCSWINSZ, size);
    *ret_master = steal_fd(&master_fd);
    *ret_slave = slave_fd;
    return 0;
}

void terminal_leave_newlines(int master_fd)
{
    struct termios mode;

    if (tcgetattr(master_fd, &mode) < 0)
        return;
    mode.c_oflag &= ~(tcflag_t)ONLCR;
    tcsetattr(master_fd, TCSANOW, &mode);
}

int terminal_send(int console_fd, int master_fd, struct error *err)
{
    char name[32];
    unsigned number;

    if (ioctl(master_fd, TIOCGPTN, &number) < 0)
        return error_errno(err, errno, "process.terminal: number of the pty");
    snprintf(name, sizeof(name), "/dev/pts/%u", number);
    ssize_t r = socket_send(console_fd, name, strlen(name), &master_fd, 1);
    return r < 0 ? error_errno(err, (int)-r, "send the terminal to the console socket") : 0;
}

int terminal_enter(int slave_fd, struct error *err)
{
    for (int fd = 0; fd < 3; fd++) {
        if (dup2(slave_fd, fd) < 0)
            return error_errno(err, errno, "make the terminal descriptor %d", fd);
    }
    if (ioctl(0, TIOCSCTTY, 0) < 0)
        return error_errno(err, errno, "make the terminal the controlling one");
    return 0;
}

int terminal_receive(int console_fd, int *ret_master, struct error *err)
{
    char name[64];
    size_t count = 1;
    ssize_t n = socket_receive(console_fd, name, sizeof(name), ret_master, &count);

    if (n < 0)
        return error_errno(err, (int)-n, "receive the terminal");
    if (count != 1)
        return error_set(err, -EPROTO, "the container sent no terminal");
    return 0;
}
