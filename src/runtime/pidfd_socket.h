/*
 * --pidfd-socket: who listens there gets a descriptor of the new process (pidfd_open(2)), which
 * stays right when its number is used again.
 */
#ifndef RUNTIME_PIDFD_SOCKET_H
#define RUNTIME_PIDFD_SOCKET_H

#include <base/error.h>

/* Before anything is made. path NULL: -1 in *ret, and the calls below do nothing. */
int pidfd_socket_connect(const char *path, int *ret, struct error *err);

/* kind: "standard" for a container's first process, "setns" for that of exec, as runc says it. */
int pidfd_socket_send(int socket_fd, const char *kind, int pidfd, struct error *err);

#endif
