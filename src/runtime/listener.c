#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <schema/json.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>

#include "capabilities.h"
#include "filter.h"
#include "kernel.h"
#include "listener.h"
#include "state.h"
#include "sync.h"

/* config-linux.md: the name of the listener in the "fds" of the document. */
#define SECCOMP_FD_NAME "seccompFd"

bool listener_can_take(void)
{
    return capability_is_effective(CAP_SYS_PTRACE);
}

int listener_give(int sync_fd, int listener_fd, struct error *err)
{
    const int32_t number = listener_fd;
    int r = sync_send_plain(sync_fd, SYNC_LISTENER, &number, sizeof(number), err);

    if (r == 0)
        r = sync_expect(sync_fd, SYNC_LISTENER_TAKEN, NULL, NULL, err);
    close(listener_fd);
    return r;
}

static int take(int sync_fd, int pidfd, struct error *err)
{
    _cleanup_free_ void *payload = NULL;
    size_t length;
    int32_t number;
    int r = sync_expect(sync_fd, SYNC_LISTENER, &payload, &length, err);

    if (r < 0)
        return r;
    if (length != sizeof(number))
        return error_set(err, -EPROTO, "a malformed message about the seccomp listener");
    memcpy(&number, payload, sizeof(number));
    int fd = kernel_pidfd_getfd(pidfd, number);
    return fd < 0 ? error_errno(err, -fd, "pidfd_getfd of the seccomp listener") : fd;
}

/* A full queue of connections that nobody accepts is EAGAIN. */
static int connect_agent(const char *path, struct error *err)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

    for (int waited = 0;; waited += 20) {
        _cleanup_error_ struct error failure = ERROR_INIT;
        int fd = socket_connect_unix(path, SOCK_STREAM | SOCK_NONBLOCK, &failure);
        if (fd != -EAGAIN || waited >= LISTENER_AGENT_MS) {
            if (fd < 0) {
                error_move(err, &failure);
                error_context(err, "failed to connect with seccomp agent specified in "
                                   "linux.seccomp.listenerPath");
            }
            return fd;
        }
        nanosleep(&pause, NULL);
    }
}

static void describe(const struct oci_seccomp *config, const struct runtime_state *state,
                     const char *status, pid_t container_pid, pid_t pid, struct buffer *out)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct json_writer writer;

    state_for_hooks(state, status, container_pid, &text);
    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "ociVersion");
    json_writer_string(&writer, RUNTIME_SPEC_VERSION);
    json_writer_key(&writer, "fds");
    json_writer_array_begin(&writer);
    json_writer_string(&writer, SECCOMP_FD_NAME);
    json_writer_array_end(&writer);
    json_writer_key(&writer, "pid");
    json_writer_integer(&writer, pid);
    if (config->listener_metadata) {
        json_writer_key(&writer, "metadata");
        json_writer_string(&writer, config->listener_metadata);
    }
    json_writer_key(&writer, "state");
    json_writer_raw(&writer, buffer_text(&text));
    json_writer_object_end(&writer);
}

int listener_serve(int sync_fd, int pidfd, const struct oci_seccomp *config,
                   const struct runtime_state *state, const char *status, pid_t container_pid,
                   pid_t pid, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error failure = ERROR_INIT;
    _cleanup_close_ int listener_fd = take(sync_fd, pidfd, err);

    if (listener_fd < 0)
        return listener_fd;
    _cleanup_close_ int agent_fd = connect_agent(config->listener_path, &failure);
    if (agent_fd < 0 && !filter_notifies(config)) /* nothing waits for its answer */
        return sync_send(sync_fd, SYNC_LISTENER_TAKEN, NULL, 0, err);
    if (agent_fd < 0) {
        error_move(err, &failure);
        return agent_fd;
    }
    describe(config, state, status, container_pid, pid, &text);
    ssize_t n = socket_send(agent_fd, text.data, text.length, &listener_fd, 1);
    if (n >= 0 && (size_t)n < text.length)
        n = -EMSGSIZE;
    if (n < 0)
        return error_errno(err, (int)-n, "send the listener to the seccomp agent %s",
                           config->listener_path);
    return sync_send(sync_fd, SYNC_LISTENER_TAKEN, NULL, 0, err);
}
