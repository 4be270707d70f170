/*
 * TLS: cloche-dial has it, a program that moves bytes between the connection and a Unix socket. So
 * whoever links this library links no TLS, and keys are in a process of their own; a host that has
 * no such program has no TLS.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/process.h>
#include <base/text.h>

#include "pool.h"

enum { SAID_MAX = 2048, HOST_MAX = 253 };

int tls_parse(const char *text, struct address *ret, struct error *err)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    bool bracketed = colon && colon - text > 2 && text[0] == '[' && colon[-1] == ']';
    size_t length = colon ? (size_t)(colon - text) - (bracketed ? 2 : 0) : 0;
    if (length == 0 || length > HOST_MAX || text_to_u64(colon + 1, 1, UINT16_MAX, &port) < 0)
        return error_set(err, -EINVAL, "endpoint 'tls:%s': tls:HOST:PORT is wanted", text);
    ret->path = xstrndup(text + bracketed, length);
    ret->port = (uint16_t)port;
    return 0;
}

static char *find_program(void)
{
    const char *set = secure_getenv("CLOCHE_LIBEXEC");

    return xasprintf("%s/cloche-dial", text_empty(set) ? CLOCHE_LIBEXECDIR : set);
}

static char *or_nothing(const char *text)
{
    return (char *)(uintptr_t)(text ? text : "");
}

/* The program leaves a process of its own behind and ends at once, so that it is nobody's child. */
static int run_dial(const struct address *address, int client_fd, int status_fd, struct error *err)
{
    const struct tls_settings *tls = address->tls;
    _cleanup_free_ char *path = find_program(), *port = xasprintf("%u", address->port);
    char *const argv[] = {(char *)"cloche-dial", (char *)"tls",
                          address->path,         port,
                          or_nothing(tls->ca),   or_nothing(tls->cert),
                          or_nothing(tls->key),  tls->name ? tls->name : address->path,
                          (char *)"detached",    NULL};
    const int fds[] = {-1, -1, -1, client_fd, status_fd};
    struct process process;

    int r = process_spawn(&(struct process_spec){.path = path,
                                                 .argv = argv,
                                                 .fds = fds,
                                                 .fds_count = ARRAY_SIZE(fds),
                                                 .new_session = true},
                          &process, err);
    if (r < 0)
        return error_hint(err, "TLS needs cloche-dial, in $CLOCHE_LIBEXEC or where it was "
                               "installed"),
               r;
    process_wait(&process, NULL, NULL); /* the host may have waited for all its children */
    return 0;
}

/* "1", or why there is no connection: of that the first line, since it is what an endpoint
 * remembers. */
static int wait_for_word(int status_fd, uint64_t timeout_ms, struct error *err)
{
    uint64_t deadline = deadline_after(monotonic_now(), timeout_ms);
    struct pollfd ready = {.fd = status_fd, .events = POLLIN};
    char said[SAID_MAX + 1];
    size_t length = 0;

    for (ssize_t n = 1; n > 0 && length < SAID_MAX;) {
        int r = poll(&ready, 1, poll_ms(deadline));
        if (r == 0)
            return error_errno(err, ETIMEDOUT, "connect");
        n = r < 0 ? -1 : read(status_fd, said + length, SAID_MAX - length);
        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "connect");
        length += n > 0 ? (size_t)n : 0;
        n = n < 0 ? 1 : n;
    }
    said[length] = '\0';
    if (text_equal(said, "1"))
        return 0;
    said[strcspn(said, "\n")] = '\0';
    return error_set(err, -ECONNREFUSED, "%s", said[0] ? said : "cloche-dial has ended");
}

int tls_connect(const struct address *address, uint64_t timeout_ms, struct error *err)
{
    int pair[2], status[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a connection");
    _cleanup_close_ int ours = pair[0], theirs = pair[1];
    if (pipe2(status, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    _cleanup_close_ int status_read = status[0];
    int r = run_dial(address, theirs, status[1], err);
    close(status[1]);
    if (r == 0 && timeout_ms)
        r = wait_for_word(status_read, timeout_ms, err);
    return r < 0 ? r : steal_fd(&ours);
}
