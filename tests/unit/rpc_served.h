/*
 * A server on a loop of its own with methods that show what it can do, at a socket in a folder, and
 * raw clients of it.
 */
#ifndef TEST_RPC_SERVED_H
#define TEST_RPC_SERVED_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/channel.h>
#include <rpc/client.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/management.h>

/* ---- a server with methods that show what it can do ---- */

static struct rpc_loop *loop;
static struct rpc_server *server;
static char *socket_path;
static struct rpc_request *held[256];
static size_t held_count, gone_count, called_count;
static uid_t last_uid;

static inline void on_echo(struct rpc_request *request, const void *params, void *context)
{
    const struct api_container_ref *ref = params;
    struct api_container_created result = {.id = ref->container};

    called_count++;
    last_uid = rpc_request_uid(request);
    rpc_reply(request, &result, NULL, 0);
}

static inline void on_fail(struct rpc_request *request, const void *params, void *context)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EBUSY, "it is in use");
    error_hint(&err, "try later");
    rpc_fail(request, RPC_CONFLICT, &err);
}

static inline void on_gone(struct rpc_request *request, void *data)
{
    gone_count++;
    assert_ptr_equal(data, &gone_count);
}

static inline void on_hold(struct rpc_request *request, const void *params, void *context)
{
    held[held_count++] = request;
    rpc_request_on_cancel(request, on_gone, &gone_count);
}

/* Answers with the read end of a pipe that holds the word it was sent in a descriptor. */
static inline void on_pipe(struct rpc_request *request, const void *params, void *context)
{
    char word[64];
    int pipe_fds[2], fd = rpc_request_take_fd(request, 0);

    assert_int_equal(rpc_request_fds_count(request), 1);
    assert_int_equal(rpc_request_take_fd(request, 0), -1);
    assert_int_equal(rpc_request_take_fd(request, 1), -1);
    ssize_t n = read(fd, word, sizeof(word));
    close(fd);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(write(pipe_fds[1], word, (size_t)n), n);
    close(pipe_fds[1]);
    rpc_reply(request, NULL, &pipe_fds[0], 1);
}

/* Twice half a megabyte. */
static inline void on_large(struct rpc_request *request, const void *params, void *context)
{
    char *text = xmalloc(1 << 20);
    struct api_container_created result = {.id = text};

    memset(text, 'x', (1 << 20) - 1);
    text[(1 << 20) - 1] = '\0';
    rpc_reply(request, &result, NULL, 0);
    free(text);
}

static const struct json_method echo_type = {
    .name = "echo", .params = &api_container_ref_type, .result = &api_container_created_type};
static const struct json_method fail_type = {
    .name = "fail", .params = &api_empty_type, .result = &api_empty_type};
static const struct json_method hold_type = {
    .name = "hold", .params = &api_empty_type, .result = &api_empty_type, .is_long = true};
static const struct json_method pipe_type = {.name = "pipe",
                                             .params = &api_empty_type,
                                             .result = &api_empty_type,
                                             .param_fds = 1,
                                             .result_fds = 1};
static const struct json_method large_type = {
    .name = "large", .params = &api_empty_type, .result = &api_container_created_type};

static const struct rpc_method methods[] = {
    {&echo_type, on_echo}, {&fail_type, on_fail},   {&hold_type, on_hold},
    {&pipe_type, on_pipe}, {&large_type, on_large},
};

static inline size_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static size_t fds_before;

static inline int set_up(void **state)
{
    static char folder[] = "/tmp/cloche-test-rpc-XXXXXX";

    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    socket_path = xasprintf("%s/sock", folder);
    held_count = gone_count = called_count = 0;
    assert_int_equal(rpc_loop_create(&loop, NULL), 0);
    fds_before = open_fds();
    int fd = socket_listen_unix(socket_path, SOCK_STREAM, 0600, NULL);
    assert_true(fd >= 0);
    assert_int_equal(rpc_server_create(loop, NULL, &server, NULL), 0);
    assert_int_equal(rpc_server_add_methods(server, methods, ARRAY_SIZE(methods), NULL), 0);
    assert_int_equal(rpc_server_listen(server, fd, NULL, NULL), 0);
    return 0;
}

/* Every test ends without a descriptor too many and with nothing on the loop. */
static inline int tear_down(void **state)
{
    rpc_server_destroy(server);
    rpc_loop_run_once(loop, 0);
    assert_int_equal(open_fds(), fds_before);
    rpc_loop_destroy(loop);
    unlink(socket_path);
    *strrchr(socket_path, '/') = '\0';
    rmdir(socket_path);
    free(steal_ptr(socket_path));
    return 0;
}

/* ---- raw clients ---- */

static inline int connect_raw(void)
{
    int fd = socket_connect_unix(socket_path, SOCK_STREAM | SOCK_NONBLOCK, NULL);

    assert_true(fd >= 0);
    return fd;
}

static inline void turn(int times)
{
    while (times--)
        rpc_loop_run_once(loop, 0);
}

static inline void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(5);
}

/* Everything the server has sent so far. */
static inline const char *hear(int fd)
{
    static struct buffer heard;
    char data[4096];
    ssize_t n;

    buffer_clear(&heard);
    for (int quiet = 0; quiet < 3;) {
        turn(2);
        n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n > 0)
            buffer_append(&heard, data, (size_t)n);
        else
            quiet++;
    }
    static char *kept;
    free(kept);
    kept = buffer_steal(&heard);
    return kept;
}

static inline bool is_closed(int fd)
{
    char byte;

    turn(5);
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0 ||
           (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* The read end of a pipe that holds this word. */
static inline int word_pipe(const char *word)
{
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(write(fds[1], word, strlen(word)), strlen(word));
    close(fds[1]);
    return fds[0];
}

#define server_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

#endif
