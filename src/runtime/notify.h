/*
 * NOTIFY_SOCKET (sd_notify(3)): the container gets a socket of its own, notify.sock in a folder at
 * the path that the caller's socket has outside or in /run/notify, and when it says READY=1 there,
 * the caller's service manager is told so, and which process is the main one. Nothing else of what
 * the container says is passed on.
 */
#ifndef RUNTIME_NOTIFY_H
#define RUNTIME_NOTIFY_H

#include <sys/types.h>

#include <base/error.h>

#include "container.h"
#include "workload.h"

struct notify {
    int fd;           /* owned; where the container talks to; -1: there is nothing to wait for */
    const char *host; /* borrowed; the manager's socket, "@name" for an abstract one */
    pid_t pid;        /* of the container's first process, for MAINPID */
};

#define NOTIFY_INIT                                                                                \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* While a container is created, all without effect when host is NULL or empty. First, before the
 * mounts are looked at: adds the one of the socket's folder. root: folder of all states. */
int notify_mount(struct container *container, const char *root, const char *host,
                 struct error *err);

/* Then, when the container has its folder: makes that of the socket, and sets NOTIFY_SOCKET. */
int notify_prepare(struct container *container, struct workload *workload, const char *host,
                   struct error *err);

/* Before the program runs: the socket is there. A container that was created without one, or an
 * empty host, gives fd -1. state_fd: its folder. */
int notify_listen(struct notify *notify, int state_fd, const char *host, struct error *err);
void notify_finish(struct notify *notify);

/* fd is readable: takes what is there. 1: the container is ready and the manager has been told. */
int notify_take(struct notify *notify, struct error *err);

/* Waits until the container is ready and the manager knows it, or until its process (pidfd) has
 * ended. A manager that does not know BARRIER=1 costs NOTIFY_BARRIER_MS. */
int notify_wait(struct notify *notify, int pidfd, struct error *err);

enum { NOTIFY_BARRIER_MS = 30000 };

#endif
