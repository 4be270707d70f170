#include "rootless_ports.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <net/net.h>

enum { LISTEN_FD = 3, HOLDER_FD };

static bool is_served(const char *path)
{
    _cleanup_close_ int fd = socket_connect_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC, NULL);

    return fd >= 0;
}

/* Never returns. It outlives who made it: nothing of its stays open. */
static void serve(int listen_fd, int holder_fd)
{
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    prctl(PR_SET_NAME, "cloche-outside");
    setsid();
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    /* Out of the way of the numbers that they get. */
    listen_fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, HOLDER_FD + 1);
    holder_fd = fcntl(holder_fd, F_DUPFD_CLOEXEC, HOLDER_FD + 1);
    for (int fd = 0; fd < LISTEN_FD; fd++)
        dup2(nothing, fd);
    if (chdir("/") < 0 || dup2(listen_fd, LISTEN_FD) < 0 || dup2(holder_fd, HOLDER_FD) < 0)
        _exit(1);
    syscall(SYS_close_range, HOLDER_FD + 1, ~0U, 0);
    net_outside_serve(LISTEN_FD, HOLDER_FD);
    _exit(0);
}

int rootless_ports_ensure(const struct instance *instance, pid_t holder, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/" NET_OUTSIDE_SOCKET, instance->run);

    if (is_served(path))
        return 0;
    unlink(path);
    _cleanup_close_ int listen_fd =
        socket_listen_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC, 0600, err);
    if (listen_fd < 0)
        return listen_fd;
    _cleanup_close_ int holder_fd = (int)syscall(SYS_pidfd_open, holder, 0);
    if (holder_fd < 0)
        return error_errno(err, errno, "watch process %d", holder);
    const pid_t pid = fork();
    if (pid == 0)
        serve(listen_fd, holder_fd);
    return pid < 0 ? error_errno(err, errno, "fork") : 0;
}
