#include <string.h>
#include <sys/socket.h>

#include <base/socket.h>
#include <base/text.h>

#include "pidfd_socket.h"

int pidfd_socket_connect(const char *path, int *ret, struct error *err)
{
    *ret = -1;
    if (text_empty(path))
        return 0;
    int fd = socket_connect_unix(path, SOCK_STREAM, err);
    if (fd < 0) {
        error_context(err, "--pidfd-socket");
        return fd;
    }
    *ret = fd;
    return 0;
}

int pidfd_socket_send(int socket_fd, const char *kind, int pidfd, struct error *err)
{
    if (socket_fd < 0)
        return 0;
    ssize_t n = socket_send(socket_fd, kind, strlen(kind), &pidfd, 1);
    return n < 0 ? error_errno(err, (int)-n, "--pidfd-socket: send the descriptor") : 0;
}
