/*
 * usage: lower_bound spec|podman BUNDLE CGROUP [FILTER]
 *        lower_bound exec PID CGROUP
 *
 * The least that a runtime has to ask of the kernel, with everything known beforehand: the
 * namespaces, the mounts, the masked and read-only paths and the user of two configurations (that
 * of `runc spec`, and that of podman with its bind mounts), a cgroup in every v1 hierarchy that the
 * process joins itself, a seccomp filter that is compiled already. Nothing is parsed, checked,
 * recorded or kept from a hostile image: this is a measure, not a runtime. The program is
 * /bin/true.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define CGROUPS "/sys/fs/cgroup"

enum {
    FILTER_MAX = 4096,
    NAMESPACES = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS
};

static const char *const hierarchies[] = {"cpuset",  "cpu",     "cpuacct", "blkio",  "memory",
                                          "devices", "freezer", "pids",    "systemd"};
enum { HIERARCHIES = sizeof(hierarchies) / sizeof(hierarchies[0]) };

struct place {
    const char *source, *target, *type;
    unsigned long flags;
    const char *data;
};

#define SAFE (MS_NOSUID | MS_NOEXEC | MS_NODEV)

static const struct place spec_mounts[] = {
    {"proc", "proc", "proc", 0, NULL},
    {"tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"},
    {"devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
     "newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"shm", "dev/shm", "tmpfs", SAFE, "mode=1777,size=65536k"},
    {"mqueue", "dev/mqueue", "mqueue", SAFE, NULL},
    {"sysfs", "sys", "sysfs", SAFE | MS_RDONLY, NULL},
    {NULL, NULL, NULL, 0, NULL},
};

static const struct place podman_mounts[] = {
    {"proc", "proc", "proc", SAFE, NULL},
    {"tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_STRICTATIME, "mode=755,size=65536k"},
    {"sysfs", "sys", "sysfs", SAFE | MS_RDONLY, NULL},
    {"devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
     "newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"mqueue", "dev/mqueue", "mqueue", SAFE, NULL},
    {"../hosts", "etc/hosts", NULL, MS_BIND, NULL},
    {"../shm", "dev/shm", NULL, MS_BIND, NULL},
    {"../containerenv", "run/.containerenv", NULL, MS_BIND, NULL},
    {"../hostname", "etc/hostname", NULL, MS_BIND, NULL},
    {NULL, NULL, NULL, 0, NULL},
};

static const char *const masked[] = {"proc/acpi",
                                     "proc/asound",
                                     "proc/kcore",
                                     "proc/keys",
                                     "proc/latency_stats",
                                     "proc/timer_list",
                                     "proc/timer_stats",
                                     "proc/sched_debug",
                                     "proc/scsi",
                                     "sys/firmware",
                                     "sys/fs/selinux",
                                     "sys/dev/block",
                                     NULL};
static const char *const readonly[] = {"proc/bus",           "proc/fs", "proc/irq", "proc/sys",
                                       "proc/sysrq-trigger", NULL};

static const struct {
    const char *name;
    unsigned major, minor;
} devices[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
               {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static void check(int failed, const char *what)
{
    if (!failed)
        return;
    fprintf(stderr, "lower_bound: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void copy_cpuset(int fd, const char *name)
{
    char path[64], text[256];

    snprintf(path, sizeof(path), CGROUPS "/cpuset/%s", name);
    int from = open(path, O_RDONLY), to = openat(fd, name, O_WRONLY);
    ssize_t n = read(from, text, sizeof(text));
    check(n < 0 || write(to, text, (size_t)n) < 0, path);
    close(from);
    close(to);
}

static void make_cgroups(const char *name, int fds[HIERARCHIES])
{
    char path[256];

    for (int i = 0; i < HIERARCHIES; i++) {
        fds[i] = -1;
        snprintf(path, sizeof(path), CGROUPS "/%s/%s", hierarchies[i], name);
        if (mkdir(path, 0755) < 0)
            continue;
        int fd = open(path, O_PATH | O_DIRECTORY);
        if (i == 0) {
            copy_cpuset(fd, "cpuset.cpus");
            copy_cpuset(fd, "cpuset.mems");
        }
        fds[i] = openat(fd, "tasks", O_WRONLY | O_CLOEXEC);
        close(fd);
    }
}

static void join_cgroups(const int fds[HIERARCHIES])
{
    for (int i = 0; i < HIERARCHIES; i++)
        check(fds[i] >= 0 && write(fds[i], "0", 1) < 0, hierarchies[i]);
}

static void remove_cgroups(const char *name)
{
    char path[256];

    for (int i = 0; i < HIERARCHIES; i++) {
        snprintf(path, sizeof(path), CGROUPS "/%s/%s", hierarchies[i], name);
        for (int tries = 0; rmdir(path) < 0 && errno == EBUSY && tries < 10000; tries++)
            usleep(100);
    }
}

static void mount_cgroups(const char *name)
{
    char source[256], target[64];

    check(mount("tmpfs", "sys/fs/cgroup", "tmpfs", SAFE, "mode=755") < 0, "tmpfs for cgroups");
    for (int i = 0; i < HIERARCHIES; i++) {
        snprintf(source, sizeof(source), CGROUPS "/%s/%s", hierarchies[i], name);
        snprintf(target, sizeof(target), "sys/fs/cgroup/%s", hierarchies[i]);
        if (access(source, F_OK) < 0)
            continue;
        check(mkdir(target, 0755) < 0 || mount(source, target, NULL, MS_BIND, NULL) < 0 ||
                  mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | SAFE, NULL) < 0,
              target);
    }
    check(mount(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | SAFE, NULL) < 0,
          "sys/fs/cgroup");
}

static void make_devices(void)
{
    char path[64];

    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
        snprintf(path, sizeof(path), "dev/%s", devices[i].name);
        check(mknod(path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)) < 0, path);
    }
    check(symlink("/proc/self/fd", "dev/fd") < 0 || symlink("/proc/self/fd/0", "dev/stdin") < 0 ||
              symlink("/proc/self/fd/1", "dev/stdout") < 0 ||
              symlink("/proc/self/fd/2", "dev/stderr") < 0 ||
              symlink("/proc/kcore", "dev/core") < 0 || symlink("pts/ptmx", "dev/ptmx") < 0,
          "links of /dev");
}

static void cover_paths(void)
{
    struct stat status;

    for (const char *const *path = masked; *path; path++) {
        if (stat(*path, &status) < 0)
            continue;
        check(S_ISDIR(status.st_mode)
                  ? mount("tmpfs", *path, "tmpfs", MS_RDONLY | SAFE, "nr_inodes=1") < 0
                  : mount("/dev/null", *path, NULL, MS_BIND, NULL) < 0,
              *path);
    }
    for (const char *const *path = readonly; *path; path++) {
        if (access(*path, F_OK) < 0)
            continue;
        check(mount(*path, *path, NULL, MS_BIND | MS_REC, NULL) < 0 ||
                  mount(NULL, *path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | SAFE, NULL) < 0,
              *path);
    }
}

static void read_filter(const char *path, struct sock_fprog *ret)
{
    static struct sock_filter code[FILTER_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, code, sizeof(code));

    check(n <= 0, path);
    *ret =
        (struct sock_fprog){.len = (unsigned short)((size_t)n / sizeof(code[0])), .filter = code};
}

static void become_container(int podman, const char *name, const struct sock_fprog *filter)
{
    char *const arguments[] = {(char *)(uintptr_t) "true", NULL}, *const environment[] = {NULL};

    setsid();
    check(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0, "/");
    check(mount("rootfs", "rootfs", NULL, MS_BIND | MS_REC, NULL) < 0 || chdir("rootfs") < 0,
          "rootfs");
    for (const struct place *place = podman ? podman_mounts : spec_mounts; place->target; place++) {
        if (strncmp(place->target, "dev/", 4) == 0)
            mkdir(place->target, 0755);
        check(mount(place->source, place->target, place->type, place->flags, place->data) < 0,
              place->target);
    }
    mount_cgroups(name);
    make_devices();
    cover_paths();
    check(!podman && mount(NULL, ".", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0, "root");
    check(syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0,
          "pivot_root");
    check(filter->len && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                          syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter) < 0),
          "seccomp");
    execve("/bin/true", arguments, environment);
    check(1, "/bin/true");
}

static int wait_for(pid_t pid)
{
    int status = 1;

    check(waitpid(pid, &status, 0) < 0, "wait");
    return status != 0;
}

static int run(int podman, const char *bundle, const char *name, const char *filter_path)
{
    struct sock_fprog filter = {0};
    struct clone_args args = {.flags = NAMESPACES, .exit_signal = SIGCHLD};
    int fds[HIERARCHIES];

    if (filter_path)
        read_filter(filter_path, &filter);
    check(chdir(bundle) < 0, bundle);
    make_cgroups(name, fds);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    check(pid < 0, "clone3");
    if (pid == 0) {
        join_cgroups(fds);
        become_container(podman, name, &filter);
    }
    int status = wait_for(pid);
    remove_cgroups(name);
    return status;
}

static int execute(const char *target, const char *name)
{
    char path[256];
    char *const arguments[] = {(char *)(uintptr_t) "true", NULL}, *const environment[] = {NULL};
    int pidfd = (int)syscall(SYS_pidfd_open, atoi(target), 0), fds[HIERARCHIES];

    for (int i = 0; i < HIERARCHIES; i++) {
        snprintf(path, sizeof(path), CGROUPS "/%s/%s/tasks", hierarchies[i], name);
        fds[i] = open(path, O_WRONLY | O_CLOEXEC);
    }
    check(pidfd < 0 || setns(pidfd, NAMESPACES) < 0, "setns");
    pid_t pid = vfork();
    if (pid == 0) {
        join_cgroups(fds);
        execve("/bin/true", arguments, environment);
        _exit(127);
    }
    return wait_for(pid);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: lower_bound spec|podman BUNDLE CGROUP [FILTER]\n"
                        "       lower_bound exec PID CGROUP\n");
        return 2;
    }
    if (strcmp(argv[1], "exec") == 0)
        return execute(argv[2], argv[3]);
    return run(strcmp(argv[1], "podman") == 0, argv[2], argv[3], argv[4]);
}
