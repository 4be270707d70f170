/*
 * Event-loop glue for programs on plain epoll: a descriptor, what it is, and what is asked of it.
 *
 * A struct watch is a member of whatever owns the descriptor; epoll gives the watch back, its type
 * says what holds it, watch_owner() finds that:
 *
 *     struct client { struct watch watch; ... };
 *     watch_add(epoll_fd, &client->watch, WATCH_CLIENT, fd, EPOLLIN);
 *     ...
 *     epoll_wait(epoll_fd, &event, 1, timeout);
 *     struct watch *watch = event.data.ptr;
 *     switch (watch->type) { case WATCH_CLIENT: client_ready(watch_owner(watch, struct client,
 * watch)); }
 *
 * Take one event at a time when a handler may free other watches. Programs on libuv: base/loop.h.
 */
#ifndef BASE_WATCH_H
#define BASE_WATCH_H

#include <stdint.h>

struct watch {
    unsigned type;   /* the program's own enum */
    int fd;          /* owned while it is watched; -1: not in use */
    uint32_t events; /* EPOLL* asked for; 0: in no epoll set, not even for EPOLLHUP */
};

#define WATCH_INIT                                                                                 \
    {                                                                                              \
        0, -1, 0                                                                                   \
    }

/* The structure that holds this watch as its member. */
#define watch_owner(watch, type, member)                                                           \
    ((type *)(void *)((char *)(watch) - __builtin_offsetof(type, member)))

/* Takes fd over, also on failure. -errno. */
int watch_add(int epoll_fd, struct watch *watch, unsigned type, int fd, uint32_t events);

/* Other events; 0 takes it out of the set. Nothing when it is not in use. */
int watch_set(int epoll_fd, struct watch *watch, uint32_t events);

/* Out of the set, and closed; also when not in use. */
void watch_close(int epoll_fd, struct watch *watch);

#endif
