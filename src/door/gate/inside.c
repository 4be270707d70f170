#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/socket.h>
#include <schema/rpc.h>

#include "gate.h"

/* One end to the daemon, in a message that says who has come: never within the connection, as there
 * the client speaks, and nothing that it says may ever be taken for the door's word. */
static int hand_over(int control_fd, const struct buffer *introduction, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a connection");
    ssize_t n = socket_send(control_fd, introduction->data, introduction->length, &pair[1], 1);
    close(pair[1]);
    if (n < 0) {
        close(pair[0]);
        return error_errno(err, (int)-n, "hand a connection to the daemon");
    }
    return pair[0];
}

int inside_open(struct gate *gate, const struct rpc_introduction *who, struct error *err)
{
    const struct door_config *config = gate->config;
    _cleanup_buffer_ struct buffer introduction = BUFFER_INIT;

    if (config->control_fd < 0)
        return socket_connect_unix(config->connect, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                                   err);
    rpc_introduction_write(who, &introduction);
    if (introduction.length > DOOR_INTRODUCTION_MAX)
        return error_set(err, -EMSGSIZE, "who has come takes too many words");
    return hand_over(config->control_fd, &introduction, err);
}
