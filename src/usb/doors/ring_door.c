/* A ring door's thread: programs come, say how much memory they want, and wake it. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/socket.h>
#include <base/watch.h>

#include "ring.h"

enum watch_type { WATCH_LISTENER, WATCH_STOP, WATCH_PROGRAM };
enum { MESSAGES_AT_ONCE = 16, EVENTS = 8 };

struct program {
    struct watch watch; /* fd -1: none */
    struct ring *ring;  /* NULL: it has not said hello */
};

struct ring_door {
    struct block_device *device;
    struct ring_door_options options;
    struct watch listener, stop;
    int epoll;
    pthread_t thread;
    bool is_full; /* nobody is let in */
    struct program programs[RING_DOOR_PROGRAMS];
};

/* On the device's thread, too. When there is no room it has messages that it has not read. */
static void wake(void *data)
{
    const struct program *program = data;
    const char message = 0;
    send(program->watch.fd, &message, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void let_in(struct ring_door *door, bool more)
{
    if (watch_set(door->epoll, &door->listener, more ? EPOLLIN : 0) == 0)
        door->is_full = !more;
}

static void disconnect(struct ring_door *door, struct program *program, const struct error *why)
{
    if (why)
        log_warning("a program at the ring is disconnected: %s", error_message(why));
    ring_destroy(steal_ptr(program->ring));
    watch_close(door->epoll, &program->watch);
    if (door->is_full)
        let_in(door, true);
}

static void accept_program(struct ring_door *door)
{
    struct program *program = NULL;
    for (size_t i = 0; i < RING_DOOR_PROGRAMS; i++)
        if (door->programs[i].watch.fd < 0)
            program = &door->programs[i];
    if (!program) {
        let_in(door, false);
        return;
    }
    int fd = accept4(door->listener.fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0 && watch_add(door->epoll, &program->watch, WATCH_PROGRAM, fd, EPOLLIN) < 0)
        program->watch.fd = -1;
}

static int greet(struct ring_door *door, struct program *program, const struct ring_hello *hello,
                 ssize_t size, struct error *err)
{
    struct ring_welcome welcome = {.magic = RING_MAGIC, .version = RING_VERSION};
    int r = 0;
    if (size != sizeof(*hello) || hello->magic != RING_MAGIC)
        return error_set(err, -EPROTO, "what it says is no greeting");
    if (hello->version != RING_VERSION)
        r = error_set(err, -EPROTONOSUPPORT, "it wants version %u", hello->version);
    if (r == 0)
        r = ring_create(door->device, door->options.read_only, hello->data_size, wake, program,
                        &program->ring, err);
    if (r == 0)
        ring_welcome(program->ring, &welcome);
    welcome.result = r;
    int memory = r == 0 ? ring_memory(program->ring) : -1;
    ssize_t sent = socket_send_now(program->watch.fd, &welcome, sizeof(welcome), &memory, r == 0);
    return r == 0 && sent != sizeof(welcome) ? error_set(err, -EPIPE, "it does not listen") : r;
}

/* 0: there is no more now. */
static int hear(struct ring_door *door, struct program *program, struct error *err)
{
    for (int i = 0; i < MESSAGES_AT_ONCE; i++) {
        struct ring_hello hello;
        ssize_t size = recv(program->watch.fd, &hello, sizeof(hello), MSG_DONTWAIT | MSG_TRUNC);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (size <= 0)
            return -ECONNRESET;
        if (program->ring)
            continue;
        int r = greet(door, program, &hello, size, err);
        if (r != 0)
            return r;
    }
    return 0;
}

/* Until every program sleeps. */
static void take_all(struct ring_door *door)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < RING_DOOR_PROGRAMS; i++) {
            struct program *program = &door->programs[i];
            _cleanup_error_ struct error err = ERROR_INIT;
            if (!program->ring)
                continue;
            if (ring_take(program->ring, &err) != 0)
                disconnect(door, program, &err);
            else
                more = !ring_sleep(program->ring) || more;
        }
    }
}

/* 1: it is to stop. */
static int handle(struct ring_door *door, struct watch *watch, uint32_t events)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    switch ((enum watch_type)watch->type) {
    case WATCH_LISTENER:
        if (!door->is_full || events & (EPOLLERR | EPOLLHUP))
            accept_program(door);
        return events & (EPOLLERR | EPOLLHUP) ? -EPIPE : 0;
    case WATCH_STOP:
        return 1;
    case WATCH_PROGRAM:
        if (watch->fd >= 0 && hear(door, (struct program *)watch, &err) != 0)
            disconnect(door, (struct program *)watch, err.code ? &err : NULL);
        break;
    }
    return 0;
}

static void *work(void *data)
{
    struct ring_door *door = data;
    int r = 0;
    while (r == 0) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(door->epoll, events, EVENTS, -1);
        for (int i = 0; r == 0 && i < count; i++)
            r = handle(door, events[i].data.ptr, events[i].events);
        if (r == 0)
            take_all(door);
    }
    if (r < 0 && door->options.ended)
        door->options.ended(door, r, "the socket cannot be listened to", door->options.data);
    return NULL;
}

static void finish(struct ring_door *door)
{
    for (size_t i = 0; i < RING_DOOR_PROGRAMS; i++)
        if (door->programs[i].watch.fd >= 0)
            disconnect(door, &door->programs[i], NULL);
    close_fd(door->listener.fd);
    close_fd(door->stop.fd);
    close_fd(door->epoll);
    free(door);
}

int ring_door_open(struct block_device *device, int fd, const struct ring_door_options *options,
                   struct ring_door **ret_door, struct error *err)
{
    struct ring_door *door = xnew(struct ring_door);
    door->device = device;
    door->options = *options;
    door->listener.fd = door->stop.fd = -1;
    for (size_t i = 0; i < RING_DOOR_PROGRAMS; i++)
        door->programs[i].watch.fd = -1;
    door->epoll = epoll_create1(EPOLL_CLOEXEC);
    int stop = eventfd(0, EFD_CLOEXEC);
    int r = door->epoll < 0 || stop < 0 ? -errno : 0;
    int listener_watched = watch_add(door->epoll, &door->listener, WATCH_LISTENER, fd, EPOLLIN);
    int stop_watched = watch_add(door->epoll, &door->stop, WATCH_STOP, stop, EPOLLIN);
    if (r == 0)
        r = listener_watched < 0 ? listener_watched : stop_watched;
    if (r == 0)
        r = -pthread_create(&door->thread, NULL, work, door);
    if (r != 0) {
        finish(door);
        return error_errno(err, -r, "open a ring door");
    }
    *ret_door = door;
    return 0;
}

void ring_door_close(struct ring_door *door)
{
    const uint64_t one = 1;
    if (!door)
        return;
    while (write(door->stop.fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    pthread_join(door->thread, NULL);
    finish(door);
}
