/*
 * From an ordinary user to root of namespaces of his own, top to bottom:
 *
 *     lock                   one launcher at a time
 *     find_holder            namespaces of an earlier daemon, whose containers may live
 *     rootless_cgroup_enter  where systemd delegates one to the user
 *     make_holder            else: a child with new ones; newuidmap and newgidmap from outside
 *     rootless_pasta_ensure  a child that stays outside, for the way to other machines
 *     rootless_ports_ensure  the same, for published ports
 *     join                   this process comes in, becomes root there and executes itself again
 */
#include "rootless.h"
#include "rootless_cgroup.h"
#include "rootless_names.h"
#include "rootless_pasta.h"
#include "rootless_ports.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

enum {
    PID_MAX_TEXT = 16,
    IDS_FILE_MAX = 1024 * 1024,
};

static const char holder_file[] = "rootless.pid";

static char *file_of(const struct instance *instance, const char *name)
{
    return xasprintf("%s/%s", instance->run, name);
}

pid_t rootless_read_pid(const char *path)
{
    _cleanup_free_ char *text = NULL;
    uint64_t pid = 0;

    if (file_read_at(AT_FDCWD, path, PID_MAX_TEXT, &text, NULL, NULL) < 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return text_to_u64(text, 2, INT32_MAX, &pid) < 0 ? 0 : (pid_t)pid;
}

/* --- the holder ------------------------------------------------------------------------------- */

/* It holds a lock on its file: a number that somebody else has by now is not believed. */
static pid_t find_holder(const struct instance *instance)
{
    _cleanup_free_ char *path = file_of(instance, holder_file);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0)
        return 0;
    return rootless_read_pid(path);
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        (void)ioctl(fd, SIOCSIFFLAGS, &request);
}

/* Never returns. Everything that is open but its file is closed: it outlives who made it. */
static void hold(int lock_fd)
{
    prctl(PR_SET_NAME, "cloche-rootless");
    setsid();
    if (chdir("/") < 0 || (lock_fd > 0 && dup2(lock_fd, 0) < 0))
        _exit(1);
    syscall(SYS_close_range, 1, ~0U, 0);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    for (;;)
        pause();
}

static void be_holder(int talk, int lock_fd, const char *resolv_conf)
{
    char byte = 0;

    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) < 0) {
        const int error = errno;
        _exit(write(talk, &error, sizeof(error)) < 0 ? 2 : 1);
    }
    const int none = 0;
    if (write(talk, &none, sizeof(none)) < 0 || read(talk, &byte, 1) != 1)
        _exit(1);
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
        (resolv_conf && mount(resolv_conf, "/etc/resolv.conf", NULL, MS_BIND, NULL) < 0))
        _exit(1);
    raise_loopback();
    /* Its number is written before it stays: without that nobody would find who has the lock. */
    if (write(talk, &byte, 1) < 0 || read(talk, &byte, 1) != 1)
        _exit(1);
    hold(lock_fd);
}

/* --- from outside ----------------------------------------------------------------------------- */

/* The first range of the user, by name or by number. */
static int find_range(const char *file, uid_t uid, uint64_t *ret_first, uint64_t *ret_count,
                      struct error *err)
{
    const struct passwd *user = getpwuid(uid);
    _cleanup_free_ char *number = xasprintf("%u", uid);
    _cleanup_free_ char *text = NULL;
    int r = file_read_at(AT_FDCWD, file, IDS_FILE_MAX, &text, NULL, err);

    if (r < 0)
        return error_hint(err, "install the package uidmap"), r;
    _cleanup_strv_ char **lines = strv_split(text, '\n');
    for (char **line = lines; line && *line; line++) {
        _cleanup_strv_ char **words = strv_split(*line, ':');

        if (strv_length(words) == 3 &&
            (text_equal(words[0], number) || (user && text_equal(words[0], user->pw_name))) &&
            text_to_u64(words[1], 1, UINT32_MAX, ret_first) == 0 &&
            text_to_u64(words[2], 1, UINT32_MAX, ret_count) == 0)
            return 0;
    }
    error_set(err, -EPERM, "%s has no range for %s", file, user ? user->pw_name : number);
    error_hint(err, "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
               user ? user->pw_name : number);
    return -EPERM;
}

static int run_program(char *const *argv, struct error *err)
{
    const int fds[] = {-1, STDERR_FILENO, STDERR_FILENO};
    const struct process_spec spec = {
        .path = argv[0], .argv = argv, .fds = fds, .fds_count = ARRAY_SIZE(fds)};
    struct process process;
    int status = 0, r = process_spawn(&spec, &process, err);

    if (r == 0)
        r = process_wait(&process, &status, err);
    if (r == 0 && status != 0)
        r = error_set(err, -EIO, "%s ended with status %d", argv[0], process_exit_code(status));
    return r;
}

static int map_ids(const char *program, const char *file, pid_t pid, uint32_t own,
                   struct error *err)
{
    uint64_t first = 0, count = 0;
    int r = find_range(file, geteuid(), &first, &count, err);

    if (r < 0)
        return r;
    _cleanup_free_ char *target = xasprintf("%d", pid);
    _cleanup_free_ char *outside = xasprintf("%u", own);
    _cleanup_free_ char *range = xasprintf("%llu", (unsigned long long)first);
    _cleanup_free_ char *length = xasprintf("%llu", (unsigned long long)count);
    char *const argv[] = {(char *)program, target, (char *)"0", outside, (char *)"1",
                          (char *)"1",     range,  length,      NULL};
    r = run_program(argv, err);
    return r == -ENOENT ? (error_hint(err, "install the package uidmap"), r) : r;
}

static int prepare_holder(pid_t pid, int talk, struct error *err)
{
    int error = 0;
    char byte = 1;

    if (read(talk, &error, sizeof(error)) != sizeof(error))
        return error_set(err, -EIO, "the process for the namespaces died");
    if (error) {
        error_errno(err, error, "make a user namespace");
        return error_hint(err, "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone"),
               -error;
    }
    int r = map_ids("newuidmap", "/etc/subuid", pid, geteuid(), err);
    if (r == 0)
        r = map_ids("newgidmap", "/etc/subgid", pid, getegid(), err);
    if (r == 0 && (write(talk, &byte, 1) != 1 || read(talk, &byte, 1) != 1))
        r = error_set(err, -EIO, "the process for the namespaces died");
    return r;
}

static int make_holder(const struct instance *instance, pid_t *ret, struct error *err)
{
    _cleanup_free_ char *path = file_of(instance, holder_file);
    _cleanup_close_ int lock =
        open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    _cleanup_free_ char *resolv_conf = rootless_names_write(instance);
    const char go = 1;
    int talk[2];

    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
        return error_errno(err, errno, "lock %s", path);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) < 0)
        return error_errno(err, errno, "make a socket");
    const pid_t pid = fork();
    if (pid == 0) {
        close(talk[0]);
        be_holder(talk[1], lock, resolv_conf);
    }
    close(talk[1]);
    _cleanup_close_ int own = talk[0];
    int r = pid < 0 ? error_errno(err, errno, "fork") : 0;
    if (r == 0)
        r = prepare_holder(pid, own, err);
    if (r == 0 && (dprintf(lock, "%d\n", pid) < 0 || write(own, &go, 1) != 1))
        r = error_errno(err, errno, "write %s", path);
    if (r < 0 && pid > 0)
        kill(pid, SIGKILL);
    *ret = pid;
    return r;
}

/* --- joining ---------------------------------------------------------------------------------- */

static int join(const struct instance *instance, pid_t holder, char **argv, struct error *err)
{
    _cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, holder, 0);

    if (fd < 0 || setns(fd, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) < 0)
        return error_errno(err, errno, "enter the namespaces of process %d", holder);
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return error_errno(err, errno, "become root of the user namespace");
    setenv("CLOCHE_ROOT", instance->root, 1);
    setenv("CLOCHE_RUN", instance->run, 1);
    setenv("CLOCHE_SOCKET", instance->socket, 1);
    execv("/proc/self/exe", argv);
    return error_errno(err, errno, "execute cloched again");
}

int rootless_enter(const struct instance *instance, const char *libexec, char **argv,
                   struct error *err)
{
    _cleanup_free_ char *path = file_of(instance, "rootless.lock");
    pid_t holder = 0;

    if (!instance->of_user) {
        error_set(err, -EPERM, "only root can run containers at %s", instance->run);
        return error_hint(err, "set XDG_RUNTIME_DIR for an engine of your own"), -EPERM;
    }
    int r = file_mkdir_parents(instance->run, 0700, err);
    if (r == 0)
        r = file_mkdir_parents(instance->root, 0700, err);
    if (r < 0)
        return r;
    _cleanup_close_ int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return error_errno(err, errno, "lock %s", path);
    holder = find_holder(instance);
    rootless_cgroup_enter(instance, libexec, holder);
    if (holder == 0)
        r = make_holder(instance, &holder, err);
    if (r == 0)
        r = rootless_pasta_ensure(instance, holder, err);
    if (r == 0)
        r = rootless_ports_ensure(instance, holder, err);
    return r < 0 ? r : join(instance, holder, argv, err);
}

bool rootless_is_inside(const struct instance *instance)
{
    return find_holder(instance) != 0;
}

void rootless_end(const struct instance *instance)
{
    const pid_t holder = find_holder(instance);

    if (holder == 0)
        return;
    rootless_pasta_end(instance, holder);
    kill(holder, SIGKILL);
}
