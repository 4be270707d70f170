#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/watch.h>

int watch_add(int epoll_fd, struct watch *watch, unsigned type, int fd, uint32_t events)
{
    *watch = (struct watch){.type = type, .fd = fd};
    int r = watch_set(epoll_fd, watch, events);
    if (r < 0)
        watch_close(epoll_fd, watch);
    return r;
}

int watch_set(int epoll_fd, struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int operation = events == 0          ? EPOLL_CTL_DEL
                    : watch->events == 0 ? EPOLL_CTL_ADD
                                         : EPOLL_CTL_MOD;

    if (watch->fd < 0 || watch->events == events)
        return 0;
    if (epoll_ctl(epoll_fd, operation, watch->fd, &event) < 0)
        return -errno;
    watch->events = events;
    return 0;
}

void watch_close(int epoll_fd, struct watch *watch)
{
    if (watch->fd < 0)
        return;
    /* Closing alone does not do it: another process may hold the same open file. */
    watch_set(epoll_fd, watch, 0);
    close(watch->fd);
    *watch = (struct watch)WATCH_INIT;
}
