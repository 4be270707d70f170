#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "notify.h"

#define NOTIFY_FOLDER "notify" /* of the container's folder */
#define NOTIFY_NAME "notify.sock"
#define NOTIFY_TARGET "/run/notify"

enum {
    MESSAGE_MAX = 4096,
    SOCKET_PATH_MAX = sizeof(((struct sockaddr_un *)NULL)->sun_path),
};

/* Where the manager's own socket is outside, as crun has it. But not where a systemd in the
 * container makes its socket, nor where the path would be too long for one (runc's place, then). */
static const char *target_of(const char *host)
{
    return host[0] == '/' && !text_ends_with(host, "/systemd/notify") &&
                   strlen(host) + sizeof("/" NOTIFY_NAME) <= SOCKET_PATH_MAX
               ? host
               : NOTIFY_TARGET;
}

static void add_mount(struct oci_config *config, const char *source, const char *target)
{
    static const char *const options[] = {"bind", "nosuid", "noexec", "nodev", "ro"};
    struct oci_mount *mount = xnew(struct oci_mount);

    mount->destination = xstrdup(target);
    mount->type = xstrdup("bind");
    mount->source = xstrdup(source);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        strv_append(&mount->options, options[i]);
    mount->options_count = ARRAY_SIZE(options);
    config->mounts = xrealloc(config->mounts, config->mounts_count + 1, sizeof(*config->mounts));
    config->mounts[config->mounts_count++] = mount;
}

int notify_mount(struct container *container, const char *root, const char *host, struct error *err)
{
    _cleanup_free_ char *source = NULL;
    char folder[PATH_MAX] = "";

    if (text_empty(host))
        return 0;
    if (root[0] != '/' && !getcwd(folder, sizeof(folder)))
        return error_errno(err, errno, "NOTIFY_SOCKET: find %s", root);
    source =
        xasprintf("%s%s%s/%s/" NOTIFY_FOLDER, folder, folder[0] ? "/" : "", root, container->id);
    add_mount(container->config, source, target_of(host));
    return 0;
}

int notify_prepare(struct container *container, struct workload *workload, const char *host,
                   struct error *err)
{
    if (text_empty(host))
        return 0;
    if (mkdirat(container->state_fd, NOTIFY_FOLDER, 0755) < 0 ||
        fchmodat(container->state_fd, NOTIFY_FOLDER, 0755, 0) < 0)
        return error_errno(err, errno, "NOTIFY_SOCKET: make a folder for the container's socket");
    strv_take(&workload->variables, xasprintf("NOTIFY_SOCKET=%s/" NOTIFY_NAME, target_of(host)));
    return 0;
}

int notify_listen(struct notify *notify, int state_fd, const char *host, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int folder_fd = -1, fd = -1;

    *notify = (struct notify)NOTIFY_INIT;
    if (text_empty(host))
        return 0;
    folder_fd = openat(state_fd, NOTIFY_FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder_fd < 0 && errno == ENOENT)
        return 0;
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" NOTIFY_NAME,
             folder_fd);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (folder_fd < 0 || fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        fchmodat(folder_fd, NOTIFY_NAME, 0777, 0) < 0)
        return error_errno(err, errno, "NOTIFY_SOCKET: make the container's socket");
    notify->fd = steal_fd(&fd);
    notify->host = host;
    return 0;
}

void notify_finish(struct notify *notify)
{
    close_fd(notify->fd);
    *notify = (struct notify)NOTIFY_INIT;
}

static int connect_manager(const char *host, int *ret, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(host);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_errno(err, errno, "NOTIFY_SOCKET: create a socket");
    if ((host[0] != '/' && host[0] != '@') || length >= sizeof(address.sun_path))
        return error_set(err, -EINVAL, "NOTIFY_SOCKET: '%s' is no path of a socket", host);
    memcpy(address.sun_path, host, length);
    if (host[0] == '@')
        address.sun_path[0] = '\0';
    if (connect(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        return error_errno(err, errno, "NOTIFY_SOCKET: connect to %s", host);
    *ret = steal_fd(&fd);
    return 0;
}

/* The container speaks a line at a time or several in one message. */
static bool says_ready(char *message)
{
    char *rest = message;

    for (char *line; (line = strsep(&rest, "\n"));) {
        if (text_equal(line, "READY=1"))
            return true;
    }
    return false;
}

/* What is passed on are our words and not the container's. */
static int tell_manager(const struct notify *notify, int *ret_manager_fd, struct error *err)
{
    char text[48];
    int r = connect_manager(notify->host, ret_manager_fd, err);

    if (r < 0)
        return r;
    int length = snprintf(text, sizeof(text), "MAINPID=%d\n", notify->pid);
    if (send(*ret_manager_fd, "READY=1\n", strlen("READY=1\n"), MSG_NOSIGNAL) < 0 ||
        send(*ret_manager_fd, text, (size_t)length, MSG_NOSIGNAL) < 0)
        return error_errno(err, errno, "NOTIFY_SOCKET: write to %s", notify->host);
    return 0;
}

static int receive_ready(struct notify *notify, int *ret_manager_fd, struct error *err)
{
    char message[MESSAGE_MAX + 1];
    ssize_t n = recv(notify->fd, message, MESSAGE_MAX, MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : error_errno(err, errno, "NOTIFY_SOCKET: read from the container");
    message[n] = '\0';
    if (!says_ready(message))
        return 0;
    int r = tell_manager(notify, ret_manager_fd, err);
    return r < 0 ? r : 1;
}

int notify_take(struct notify *notify, struct error *err)
{
    _cleanup_close_ int manager_fd = -1;

    return receive_ready(notify, &manager_fd, err);
}

/* The manager finds out who sent a message by the sender's process, which has to be there still:
 * it closes the pipe when it has read so far (sd_notify_barrier(3)). */
static void wait_for_manager(int manager_fd)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return;
    ssize_t n = socket_send(manager_fd, "BARRIER=1", strlen("BARRIER=1"), &fds[1], 1);
    close(fds[1]);
    struct pollfd polled = {.fd = fds[0], .events = POLLIN};
    if (n >= 0)
        poll(&polled, 1, NOTIFY_BARRIER_MS);
    close(fds[0]);
}

int notify_wait(struct notify *notify, int pidfd, struct error *err)
{
    _cleanup_close_ int manager_fd = -1;
    int r = 0;

    if (notify->fd < 0)
        return 0;
    while (r == 0) {
        struct pollfd polled[] = {{.fd = notify->fd, .events = POLLIN},
                                  {.fd = pidfd, .events = POLLIN}};
        if (poll(polled, ARRAY_SIZE(polled), -1) < 0 && errno != EINTR)
            return error_errno(err, errno, "poll");
        if (polled[0].revents)
            r = receive_ready(notify, &manager_fd, err);
        else if (polled[1].revents)
            return 0;
    }
    if (r > 0)
        wait_for_manager(manager_fd);
    return r < 0 ? r : 0;
}
