#include "door_process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/process.h>
#include <base/socket.h>
#include <door/serve.h>
#include <rpc/loop.h>

#define NS_PER_MS 1000000ULL

enum {
    END_MS = 1000,      /* for a door to end when it is asked to */
    COMPLAIN_MS = 1000, /* between two lines of the same complaint */
    NO_SENSE = 1 << 8,  /* as if it had ended with 1 */
};

struct door_process {
    struct rpc_loop *loop;
    void (*handed)(int fd, const char *text, size_t length, void *data);
    void (*ended)(struct door_process *process, int status, void *data);
    void *data;
    struct process process;
    struct rpc_watch child, control;
    uint64_t started;
    uint64_t complained;
    bool shot; /* it made no sense, and was ended for it */
};

static void forget(struct door_process *door)
{
    if (door->control.fd >= 0)
        rpc_loop_watch(door->loop, &door->control, 0);
    close_fd(steal_fd(&door->control.fd));
    if (door->child.fd >= 0)
        rpc_loop_watch(door->loop, &door->child, 0);
    door->child.fd = -1;
}

static void on_end(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct door_process *door =
        (struct door_process *)((char *)watch - offsetof(struct door_process, child));
    int status = 0;

    forget(door);
    process_wait(&door->process, &status, NULL);
    door->ended(door, status == 0 && door->shot ? NO_SENSE : status, door->data);
    free(door);
}

static void shoot(struct door_process *door)
{
    rpc_loop_watch(door->loop, &door->control, 0);
    door->shot = true;
    pidfd_send_signal(door->process.pidfd, SIGTERM, NULL, 0);
}

/* The connection is lost with its descriptor: the door sees its end close, and tells its client. */
static void complain(struct door_process *door)
{
    uint64_t now = rpc_loop_now(door->loop);

    if (door->complained && now - door->complained < COMPLAIN_MS * NS_PER_MS)
        return;
    door->complained = now;
    log_warning("there is no descriptor left for a client of the door's, which is turned away");
}

/* A connection, beside the words of who has come. */
static void on_control(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct door_process *door =
        (struct door_process *)((char *)watch - offsetof(struct door_process, control));
    char text[DOOR_INTRODUCTION_MAX] _uninitialized_;
    size_t count = 1;
    int fd;

    ssize_t n = socket_receive_now(watch->fd, text, sizeof(text), &fd, &count);
    if (n > 0 && count == 1)
        door->handed(fd, text, (size_t)n, door->data);
    else if (n == -EMFILE || n == -ENOMEM || n == -ENOBUFS)
        complain(door);
    else if (n == 0)
        rpc_loop_watch(door->loop, watch, 0); /* it is ending */
    else if (n != -EAGAIN)
        shoot(door);
}

static int spawn(struct door_process *door, const struct door_process_options *options,
                 int control_fd, struct error *err)
{
    static char *const environment[] = {NULL};
    int fds[DOOR_SOCKETS_FD + DOOR_SOCKETS_MAX] = {-1, -1, STDERR_FILENO};

    fds[DOOR_CONTROL_FD] = control_fd;
    for (size_t i = 0; i < options->sockets_count; i++)
        fds[DOOR_SOCKETS_FD + i] = options->sockets[i];
    return process_spawn(
        &(struct process_spec){.path = options->program,
                               .argv = options->argv,
                               .environment = environment,
                               .fds = fds,
                               .fds_count = DOOR_SOCKETS_FD + (int)options->sockets_count,
                               .directory = "/",
                               .new_session = true},
        &door->process, err);
}

int door_process_start(const struct door_process_options *options, struct door_process **ret,
                       struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_errno(err, errno, "make the door's socket");
    struct door_process *door = xnew(struct door_process);
    *door = (struct door_process){.loop = options->loop,
                                  .handed = options->handed,
                                  .ended = options->ended,
                                  .data = options->data,
                                  .started = rpc_loop_now(options->loop),
                                  .control = {.fd = pair[0], .callback = on_control}};
    int r = spawn(door, options, pair[1], err);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        free(door);
        return r;
    }
    door->child = (struct rpc_watch){.fd = door->process.pidfd, .callback = on_end};
    r = rpc_loop_watch(door->loop, &door->control, EPOLLIN);
    if (r == 0)
        r = rpc_loop_watch(door->loop, &door->child, EPOLLIN);
    if (r < 0) {
        door_process_destroy(door);
        return error_errno(err, -r, "watch the door");
    }
    *ret = door;
    return 0;
}

uint64_t door_process_started(const struct door_process *door)
{
    return door->started;
}

void door_process_retire(struct door_process *door, int ca, int crl)
{
    const int fds[] = {ca, crl};
    size_t count = ca < 0 ? 0 : crl < 0 ? 1 : 2;

    ssize_t n = socket_send_now(door->control.fd, DOOR_RETIRE, strlen(DOOR_RETIRE), fds, count);
    if (n < 0)
        shoot(door); /* it has ended already, or hears nothing */
}

/* It ends with its control socket; a door that does not is killed. */
void door_process_destroy(struct door_process *door)
{
    struct pollfd end;
    int status;

    if (!door)
        return;
    forget(door);
    end = (struct pollfd){.fd = door->process.pidfd, .events = POLLIN};
    if (poll(&end, 1, END_MS) <= 0)
        pidfd_send_signal(end.fd, SIGKILL, NULL, 0);
    process_wait(&door->process, &status, NULL);
    free(door);
}
