#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "listen.h"

enum { SYSTEMD_FIRST_FD = 3, LOCK_ATTEMPTS = 10, LOCK_POLL_MS = 10, LOCK_WAIT_MS = 20000 };

/* --- lock ------------------------------------------------------------------------------------- */

/* Whether the file we hold locked is still the one that others find at path: an instance that was
 * just removed takes its lock file along. */
static bool still_there(int fd, const char *path)
{
    struct stat ours, theirs;

    return fstat(fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_ino == theirs.st_ino &&
           ours.st_dev == theirs.st_dev;
}

static int lock_once(const struct instance *instance, const char *path, struct error *err)
{
    int r = file_mkdir_parents(instance->run, 0755, err);

    if (r < 0)
        return r;
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? error_set(err, -EBUSY, "a daemon of this instance runs already (%s is locked)",
                               path)
                   : error_errno(err, errno, "lock %s", path);
    if (!still_there(fd, path))
        return error_set(err, -EAGAIN, "%s was removed while we locked it", path);
    return steal_fd(&fd);
}

/* Who holds the lock and has no socket begins, and will have one, or ends. */
static int lock_when_it_ends(const struct instance *instance, const char *path, struct error *err)
{
    int fd = lock_once(instance, path, err);

    for (int waited = 0; fd == -EBUSY && waited < LOCK_WAIT_MS; waited += LOCK_POLL_MS) {
        if (access(instance->socket, F_OK) == 0)
            break;
        (void)poll(NULL, 0, LOCK_POLL_MS);
        fd = lock_once(instance, path, err);
    }
    return fd;
}

int listen_lock(const struct instance *instance, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/cloched.pid", instance->run);
    _cleanup_free_ char *text = xasprintf("%d\n", getpid());
    int fd = -EAGAIN;

    for (int i = 0; i < LOCK_ATTEMPTS && fd == -EAGAIN; i++)
        fd = lock_when_it_ends(instance, path, err);
    if (fd < 0)
        return fd;
    if (ftruncate(fd, 0) < 0 || file_write_all(fd, text, strlen(text)) < 0) {
        close_fd(fd);
        return error_errno(err, EIO, "write %s", path);
    }
    return fd;
}

/* --- socket ----------------------------------------------------------------------------------- */

/* sd_listen_fds(3): LISTEN_PID is us, LISTEN_FDS counts descriptors from 3 on. */
static int systemd_socket(void)
{
    const char *pid_text = getenv("LISTEN_PID");
    const char *count_text = getenv("LISTEN_FDS");
    int64_t pid, count;

    if (!pid_text || !count_text || text_to_i64(pid_text, 1, INT32_MAX, &pid) < 0 ||
        text_to_i64(count_text, 1, 64, &count) < 0 || pid != getpid())
        return -1;
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    /* There is one socket. The others are nothing of ours, and would go to all that we start. */
    for (int fd = SYSTEMD_FIRST_FD + 1; fd < SYSTEMD_FIRST_FD + count; fd++)
        close(fd);
    if (fcntl(SYSTEMD_FIRST_FD, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(SYSTEMD_FIRST_FD, F_SETFL, O_NONBLOCK) < 0)
        return -1;
    return SYSTEMD_FIRST_FD;
}

int listen_open(const struct instance *instance, struct error *err)
{
    int fd = systemd_socket();

    if (fd >= 0)
        return fd;
    if (unlink(instance->socket) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove the old socket %s", instance->socket);
    return socket_listen_unix(instance->socket, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0660,
                              err);
}

void listen_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (text_empty(path) || strlen(path) >= sizeof(address.sun_path))
        return;
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, path, strlen(path));
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (fd >= 0)
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
}
