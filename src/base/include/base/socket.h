/*
 * Unix sockets with descriptors beside data (SCM_RIGHTS).
 */
#ifndef BASE_SOCKET_H
#define BASE_SOCKET_H

#include <stddef.h>
#include <sys/types.h>

#include <base/error.h>

enum { SOCKET_FDS_MAX = 16 }; /* descriptors in one message, both ways */

/* type: SOCK_STREAM or SOCK_SEQPACKET (SOCK_CLOEXEC and SOCK_NONBLOCK may be added). Paths longer
 * than sun_path are reached through /proc/self/fd of their directory. */
int socket_listen_unix(const char *path, int type, mode_t mode, struct error *err);
int socket_connect_unix(const char *path, int type, struct error *err);

/* accept4() for a loop that watches the listener: without a free descriptor who connects is let in
 * by *spare_fd (any descriptor at all, kept for this) and out again, or else the listener would be
 * ready for ever. -1: nobody came in. */
int socket_accept(int listener, int flags, int *spare_fd);

struct sockaddr_un;
/* Fills address with path, or with a short way to it through an O_PATH descriptor of its directory:
 * *ret_dir_fd, the caller's, to be kept until it is bound or connected; -1: none is needed. */
int socket_unix_address(const char *path, struct sockaddr_un *address, int *ret_dir_fd,
                        struct error *err);

int socket_set_nonblocking(int fd); /* -errno */

/* One sendmsg / recvmsg; -EAGAIN on a non-blocking socket. socket_receive returns the bytes read
 * (0: end), puts at most *fds_count descriptors (O_CLOEXEC, owned by the caller) into fds and their
 * number into *fds_count; more descriptors than that are closed and the call is -EMSGSIZE; -EMFILE:
 * this process has no room for those that came. What came with them is lost in both cases. */
ssize_t socket_send(int fd, const void *data, size_t length, const int *fds, size_t fds_count);
ssize_t socket_receive(int fd, void *data, size_t length, int *fds, size_t *fds_count);

/* The same, and -EAGAIN on a blocking socket, too: for those who watch a clock, and for a socket
 * whose other descriptors are somebody else's, who can make it blocking at any time (O_NONBLOCK is
 * of the open file description). */
ssize_t socket_send_now(int fd, const void *data, size_t length, const int *fds, size_t fds_count);
ssize_t socket_receive_now(int fd, void *data, size_t length, int *fds, size_t *fds_count);

/* As socket_receive(), and -EINTR when a signal came, which with SO_RCVTIMEO happens whatever
 * SA_RESTART says (signal(7)). */
ssize_t socket_receive_once(int fd, void *data, size_t length, int *fds, size_t *fds_count);

#endif
