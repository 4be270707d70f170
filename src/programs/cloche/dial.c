#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>
#include <rpc/client.h>

#include "dial.h"
#include "libexec.h"

enum { SAID_MAX = 4096 };

bool dial_has_descriptors(const struct dial_options *options)
{
    return !options->host || text_starts_with(options->host, "unix://");
}

static int run_dial(const struct dial_options *options, const char *scheme, const char *host,
                    const char *port, int client_fd, int status_fd, struct error *err)
{
    _cleanup_free_ char *path = libexec_find("cloche-dial");
    char *const argv[] = {(char *)"cloche-dial",
                          (char *)(uintptr_t)scheme,
                          (char *)(uintptr_t)host,
                          (char *)(uintptr_t)port,
                          (char *)(uintptr_t)(options->ca ? options->ca : ""),
                          (char *)(uintptr_t)(options->cert ? options->cert : ""),
                          (char *)(uintptr_t)(options->key ? options->key : ""),
                          NULL};
    const int fds[] = {-1, -1, STDERR_FILENO, client_fd, status_fd};
    struct process process;

    int r = process_spawn(&(struct process_spec){.path = path,
                                                 .argv = argv,
                                                 .fds = fds,
                                                 .fds_count = ARRAY_SIZE(fds),
                                                 .new_session = true},
                          &process, err);
    if (r == 0)
        close(process.pidfd); /* it ends with the connection */
    return r;
}

/* What the program says before it moves bytes. */
static int wait_for_word(int status_fd, struct error *err)
{
    _cleanup_free_ char *said = NULL;

    int r = file_read_fd(status_fd, SAID_MAX, &said, NULL, err);
    if (r < 0)
        return r;
    if (text_equal(said, "1"))
        return 0;
    char *hint = strchr(said, '\n');
    if (hint)
        *hint++ = '\0';
    error_set(err, -EHOSTUNREACH, "%s", said[0] ? said : "cloche-dial has ended");
    if (!text_empty(hint))
        error_hint(err, "%s", hint);
    return -EHOSTUNREACH;
}

static int dial(const struct dial_options *options, const char *scheme, const char *host,
                const char *port, struct error *err)
{
    int pair[2], status[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a connection");
    _cleanup_close_ int ours = pair[0], theirs = pair[1];
    if (pipe2(status, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    _cleanup_close_ int status_read = status[0];
    int r = run_dial(options, scheme, host, port, theirs, status[1], err);
    close(status[1]);
    if (r == 0)
        r = wait_for_word(status_read, err);
    return r < 0 ? r : steal_fd(&ours);
}

int dial_connect(const struct dial_options *options, struct rpc_client **ret, struct error *err)
{
    const char *url = options->host;
    uint64_t number;

    if (text_starts_with(url, "unix://"))
        return rpc_client_connect(url + strlen("unix://"), ret, err);
    const char *scheme = text_starts_with(url, "tls://")   ? "tls"
                         : text_starts_with(url, "tcp://") ? "tcp"
                                                           : NULL;
    const char *host = scheme ? url + strlen("tls://") : url;
    const char *colon = strrchr(host, ':');
    if (text_starts_with(url, "ws://") || text_starts_with(url, "wss://")) {
        error_set(err, -EOPNOTSUPP, "'%s': WebSockets are for pages; the command line has none",
                  url);
        return error_hint(err, "Let the door listen on a %s:// address as well, and name that one",
                          url[2] == 's' ? "tls" : "tcp"),
               -EOPNOTSUPP;
    }
    if (!scheme || !colon || colon == host || text_to_u64(colon + 1, 1, UINT16_MAX, &number) < 0) {
        error_set(err, -EINVAL, "'%s' is no daemon's address", url);
        return error_hint(err, "unix:///PATH, tcp://HOST:PORT or tls://HOST:PORT"), -EINVAL;
    }
    if (!options->cert != !options->key)
        return error_set(err, -EINVAL, "--tlscert and --tlskey come together");
    bool brackets = host[0] == '[' && colon[-1] == ']';
    _cleanup_free_ char *name =
        xstrndup(host + brackets, (size_t)(colon - host) - (brackets ? 2 : 0));
    int fd = dial(options, scheme, name, colon + 1, err);
    if (fd < 0)
        return fd;
    *ret = rpc_client_from_fd(fd);
    return 0;
}
