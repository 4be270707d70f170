#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <base/alloc.h>
#include <base/text.h>

#include "terminal.h"

/* The one terminal in raw mode; fd -1: none. Written before the handlers that read it are set. */
static struct {
    volatile sig_atomic_t fd;
    struct termios before;
} raw = {.fd = -1};

int terminal_size(int fd, uint16_t *ret_rows, uint16_t *ret_columns)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) < 0)
        return -errno;
    if (!size.ws_row || !size.ws_col)
        return -ENODATA;
    *ret_rows = size.ws_row;
    *ret_columns = size.ws_col;
    return 0;
}

void terminal_restore(void)
{
    int fd = raw.fd;

    if (fd >= 0) {
        raw.fd = -1;
        tcsetattr(fd, TCSADRAIN, &raw.before); /* async-signal-safe: signal-safety(7) */
    }
}

static void restore_and_die(int number)
{
    terminal_restore();
    raise(number); /* SA_RESETHAND: the default action now */
}

int terminal_make_raw(int fd, struct error *err)
{
    static const int faults[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    static bool registered;
    struct sigaction action = {.sa_handler = restore_and_die, .sa_flags = (int)SA_RESETHAND};
    struct termios wanted;

    if (tcgetattr(fd, &raw.before) < 0)
        return error_errno(err, errno, "read the terminal's settings");
    if (!registered && atexit(terminal_restore) == 0) {
        registered = true;
        for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
            sigaction(faults[i], &action, NULL);
    }
    wanted = raw.before;
    cfmakeraw(&wanted);
    raw.fd = fd;
    if (tcsetattr(fd, TCSADRAIN, &wanted) < 0)
        return error_errno(err, errno, "put the terminal into raw mode");
    return 0;
}
