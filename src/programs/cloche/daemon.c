#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>
#include <rpc/client.h>
#include <schema/management.h>

#include "daemon.h"

enum {
    READY_FD = 3,               /* in cloched */
    READY_MILLISECONDS = 30000, /* a start that takes longer has failed */
    UNIT_MILLISECONDS = 20,     /* between looks for the socket of a unit */
    DYING_MILLISECONDS = 10,    /* between looks for the end of a dying daemon */
    DYING_LOOKS = 500,
    LOG_LINE_MAX = 4096, /* bytes of the log's end that are looked at */
};

static bool nobody_listens(int code)
{
    return code == -ENOENT || code == -ECONNREFUSED;
}

/* Connects, and asks something small: the socket of a daemon that was just killed takes connections
 * until the kernel gets to closing it, and what is sent there is lost. */
static int connect_living(const struct instance *instance, struct rpc_client **ret,
                          struct error *err)
{
    const struct api_empty nothing = {0};

    for (int look = 0;; look++) {
        struct rpc_client *client;
        int r = rpc_client_connect(instance->socket, &client, err);
        if (r < 0)
            return r;
        r = rpc_client_call(client, "system.version", &api_empty_type, &nothing, NULL, NULL, NULL,
                            0, NULL, NULL, NULL);
        if (r >= 0 || rpc_client_error_code(client)) { /* a refusal is an answer, too */
            *ret = client;
            return 0;
        }
        rpc_client_destroy(client);
        if (look == DYING_LOOKS)
            return error_set(err, -ECONNRESET, "the daemon on %s takes connections and drops them",
                             instance->socket);
        poll(NULL, 0, DYING_MILLISECONDS);
    }
}

/* ---- under systemd */

static bool systemd_has_unit(const char *unit)
{
    static const char *const folders[] = {"/etc/systemd/system", "/run/systemd/system",
                                          "/usr/local/lib/systemd/system",
                                          "/usr/lib/systemd/system", "/lib/systemd/system"};

    if (access("/run/systemd/system", F_OK) < 0) /* sd_booted(3) */
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        _cleanup_free_ char *path = xasprintf("%s/%s", folders[i], unit);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

/* A unit knows nothing of folders that the environment moves elsewhere. */
static char *systemd_unit(const struct instance *instance)
{
    _cleanup_free_ char *unit = NULL;

    if (instance->of_user || getenv("CLOCHE_ROOT") || getenv("CLOCHE_RUN") ||
        getenv("CLOCHE_SOCKET") || getenv("CLOCHE_LIBEXEC"))
        return NULL;
    unit = instance->name[0] ? xasprintf("cloched@%s.service", instance->name)
                             : xstrdup("cloched.service");
    if (instance->name[0] && !systemd_has_unit("cloched@.service"))
        return NULL;
    if (!instance->name[0] && !systemd_has_unit(unit))
        return NULL;
    return steal_ptr(unit);
}

static int start_unit(const char *unit, struct error *err)
{
    char *argv[] = {(char *)"systemctl", (char *)"start", (char *)unit, NULL};
    const int fds[] = {-1, STDERR_FILENO, STDERR_FILENO};
    struct process process;
    int status;

    int r = process_spawn(
        &(struct process_spec){.path = "systemctl", .argv = argv, .fds = fds, .fds_count = 3},
        &process, err);
    if (r < 0)
        return r;
    r = process_wait(&process, &status, err);
    if (r < 0)
        return r;
    if (process_exit_code(status) != 0) {
        error_set(err, -EIO, "systemd could not start %s", unit);
        return error_hint(err, "See: journalctl -u %s", unit);
    }
    return 0;
}

/* ---- by ourselves */

static char *find_cloched(void)
{
    const char *set = getenv("CLOCHE_LIBEXEC");
    char self[PATH_MAX];

    if (!text_empty(set))
        return xasprintf("%s/cloched", set);
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length > 0) {
        self[length] = '\0';
        *strrchr(self, '/') = '\0';
        _cleanup_free_ char *beside = xasprintf("%s/cloched", self);
        if (access(beside, X_OK) == 0)
            return steal_ptr(beside);
    }
    return xstrdup(CLOCHE_BINDIR "/cloched");
}

/* The last line of the daemon's log, for the message of a failed start; "" when there is none. */
static char *last_log_line(int log_fd)
{
    char text[LOG_LINE_MAX + 1];
    struct stat status;

    if (fstat(log_fd, &status) < 0)
        return xstrdup("");
    off_t from = status.st_size > LOG_LINE_MAX ? status.st_size - LOG_LINE_MAX : 0;
    ssize_t length = pread(log_fd, text, LOG_LINE_MAX, from);
    while (length > 0 && text[length - 1] == '\n')
        length--;
    text[length > 0 ? length : 0] = '\0';
    const char *newline = strrchr(text, '\n');
    return xstrdup(newline ? newline + 1 : text);
}

/* Ready, ended, or neither within the time: 0, -ECHILD, -ETIMEDOUT. */
static int wait_until_ready(int ready_fd, int pidfd)
{
    struct pollfd waited[] = {{.fd = ready_fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};

    for (;;) {
        int count = poll(waited, ARRAY_SIZE(waited), READY_MILLISECONDS);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -errno;
        if (count == 0)
            return -ETIMEDOUT;
        return waited[0].revents & POLLIN ? 0 : -ECHILD;
    }
}

static int spawn_cloched(const struct instance *instance, int log_fd, struct error *err)
{
    _cleanup_free_ char *path = find_cloched();
    _cleanup_close_ int ready_read = -1, ready_write = -1;
    char *argv[6] = {path};
    struct process process;
    int pipe_fds[2], count = 1;

    if (instance->name[0]) {
        argv[count++] = (char *)"--instance";
        argv[count++] = instance->name;
    }
    argv[count++] = (char *)"--ready-fd";
    argv[count++] = (char *)"3";
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_errno(err, errno, "pipe");
    ready_read = pipe_fds[0];
    ready_write = pipe_fds[1];
    const int fds[READY_FD + 1] = {-1, log_fd, log_fd, ready_write};
    int r = process_spawn(&(struct process_spec){.path = path,
                                                 .argv = argv,
                                                 .fds = fds,
                                                 .fds_count = ARRAY_SIZE(fds),
                                                 .directory = "/",
                                                 .new_session = true},
                          &process, err);
    if (r < 0)
        return error_context(err, "start the daemon");
    close_fd(steal_fd(&ready_write));
    r = wait_until_ready(ready_read, process.pidfd);
    close_fd(process.pidfd);
    if (r == 0)
        return 0;
    _cleanup_free_ char *line = last_log_line(log_fd);
    error_set(err, r, "the daemon %s%s%s", r == -ETIMEDOUT ? "is not ready after 30 s" : "ended",
              line[0] ? ": " : "", line);
    return error_hint(err, "See %s/cloched.log, or run it by hand: %s", instance->run, path);
}

static int need_root(const struct instance *instance, struct error *err)
{
    if (geteuid() == 0 || instance->of_user)
        return 0;
    error_set(err, -EACCES, "no daemon listens on %s, and only root can start one",
              instance->socket);
    return error_hint(err, "Try the same with sudo, or start it once: sudo cloche version");
}

/* Whether somebody else's is there, or coming: it holds its lock before it listens. */
static bool has_daemon(const struct instance *instance)
{
    _cleanup_free_ char *path = xasprintf("%s/cloched.pid", instance->run);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* Waits for a daemon that somebody else starts. locked: given up when nobody holds its lock, since
 * it has ended; systemd does not wait until the socket listens (Type=exec), and a unit may be
 * started again. */
static int connect_coming(const struct instance *instance, bool locked, struct rpc_client **ret,
                          struct error *err)
{
    int r = -ECHILD;

    for (int waited = 0; waited < READY_MILLISECONDS && (!locked || has_daemon(instance));
         waited += UNIT_MILLISECONDS) {
        _cleanup_error_ struct error own = ERROR_INIT;
        r = connect_living(instance, ret, &own);
        if (r == 0)
            error_finish(err);
        if (!nobody_listens(r))
            return r < 0 ? error_move(err, &own) : r;
        if (!locked)
            error_move(err, &own);
        poll(NULL, 0, UNIT_MILLISECONDS);
    }
    return r;
}

static int start_cloched(const struct instance *instance, struct rpc_client **ret,
                         struct error *err)
{
    _cleanup_free_ char *lock_path = xasprintf("%s/start.lock", instance->run);
    _cleanup_free_ char *log_path = xasprintf("%s/cloched.log", instance->run);
    _cleanup_close_ int lock = -1, log = -1;

    int r = need_root(instance, err);
    if (r >= 0)
        r = file_mkdir_parents(instance->run, 0755, err);
    if (r < 0)
        return r;
    lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return error_errno(err, errno, "lock %s", lock_path);
    /* Another command may have started it while we waited for the lock. */
    r = connect_living(instance, ret, err);
    if (!nobody_listens(r))
        return r;
    log = open(log_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log < 0)
        return error_errno(err, errno, "open %s", log_path);
    r = spawn_cloched(instance, log, err);
    if (r == -ECHILD) /* systemd may have been faster */
        return connect_coming(instance, true, ret, err);
    return r < 0 ? r : connect_living(instance, ret, err);
}

int daemon_connect(const struct instance *instance, struct rpc_client **ret, struct error *err)
{
    int r = connect_living(instance, ret, err);
    if (r == -EACCES)
        return error_hint(err, "Try the same with sudo.");
    if (!nobody_listens(r))
        return r;
    _cleanup_free_ char *unit = systemd_unit(instance);
    if (!unit)
        return start_cloched(instance, ret, err);
    r = start_unit(unit, err);
    if (r < 0)
        return r;
    r = connect_coming(instance, false, ret, err);
    return nobody_listens(r) ? error_hint(err, "See: journalctl -u %s", unit) : r;
}
