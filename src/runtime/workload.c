#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "attributes.h"
#include "environment.h"
#include "kernel.h"
#include "labels.h"
#include "listener.h"
#include "lookup.h"
#include "workload.h"

enum { FIRST_OTHER_FD = 3 };

static const struct {
    const char *name;
    int resource;
} limits[] = {
    {"RLIMIT_AS", RLIMIT_AS},
    {"RLIMIT_CORE", RLIMIT_CORE},
    {"RLIMIT_CPU", RLIMIT_CPU},
    {"RLIMIT_DATA", RLIMIT_DATA},
    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
    {"RLIMIT_NICE", RLIMIT_NICE},
    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
    {"RLIMIT_NPROC", RLIMIT_NPROC},
    {"RLIMIT_RSS", RLIMIT_RSS},
    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    {"RLIMIT_STACK", RLIMIT_STACK},
};

static int find_limit(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        if (text_equal(limits[i].name, name))
            return limits[i].resource;
    }
    return -1;
}

static int check_limits(const struct oci_process *config, struct error *err)
{
    unsigned seen = 0;

    for (size_t i = 0; i < config->rlimits_count; i++) {
        int resource = find_limit(config->rlimits[i]->type);
        if (resource < 0)
            return error_set(err, -EINVAL, "process.rlimits[%zu].type: unknown limit '%s'", i,
                             config->rlimits[i]->type);
        if (seen >> resource & 1)
            return error_set(err, -EINVAL, "process.rlimits[%zu].type: '%s' is there twice", i,
                             config->rlimits[i]->type);
        if (config->rlimits[i]->soft > config->rlimits[i]->hard)
            return error_set(err, -EINVAL, "process.rlimits[%zu]: soft is above hard", i);
        seen |= 1U << resource;
    }
    return 0;
}

/* One set, with what the kernel does not have left out and told. */
static uint64_t take_set(char *const *names, const char *field, char ***warnings)
{
    uint64_t mask = 0;

    for (size_t i = 0; names && names[i]; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        int value = capability_from_name(names[i], &err);
        if (value >= 0)
            mask |= (uint64_t)1 << value;
        else
            strv_take(warnings, xasprintf("process.capabilities.%s[%zu]: %s, left out", field, i,
                                          error_message(&err)));
    }
    return mask;
}

/* Ambient is what is permitted and inheritable (capabilities(7)). The text is runc's. */
static void tell_not_ambient(const struct capability_sets *sets, char ***warnings)
{
    uint64_t left_out = sets->ambient & ~(sets->inheritable & sets->permitted);

    for (int i = 0; i < 64 && left_out >> i; i++) {
        _cleanup_free_ char *name = left_out >> i & 1 ? capability_name(i) : NULL;
        if (name)
            strv_take(warnings, xasprintf("can't raise ambient capability %s: operation not "
                                          "permitted",
                                          name));
    }
}

/* To the kernel -1 is "unchanged" (setresuid(2)): the process would stay root. */
static int check_user(const struct oci_user *user, struct error *err)
{
    if (user && user->uid == UINT32_MAX)
        return error_set(err, -EINVAL, "process.user.uid: %u is no user", user->uid);
    if (user && user->gid == UINT32_MAX)
        return error_set(err, -EINVAL, "process.user.gid: %u is no group", user->gid);
    return 0;
}

int workload_init(struct workload *workload, const struct oci_process *config,
                  const struct oci_linux *linux, char ***warnings, struct error *err)
{
    const struct oci_capabilities *capabilities = config->capabilities;

    *workload =
        (struct workload){.config = config, .linux = linux, .proc_fd = -1, .hook_fds = {-1, -1}};
    int r = check_user(config->user, err);
    if (r == 0)
        r = check_limits(config, err);
    if (r == 0)
        r = labels_check(config, err);
    if (r < 0)
        return r;
    /* config.md: "Currently no flag values are supported." runc ignores them, too. */
    if (linux && linux->personality && linux->personality->flags_count)
        strv_take(warnings, xasprintf("linux.personality.flags[0]: '%s' is not supported, ignored",
                                      linux->personality->flags[0]));
    if (capabilities) {
        workload->capabilities = (struct capability_sets){
            .bounding = take_set(capabilities->bounding, "bounding", warnings),
            .effective = take_set(capabilities->effective, "effective", warnings),
            .permitted = take_set(capabilities->permitted, "permitted", warnings),
            .inheritable = take_set(capabilities->inheritable, "inheritable", warnings),
            .ambient = take_set(capabilities->ambient, "ambient", warnings),
        };
        tell_not_ambient(&workload->capabilities, warnings);
    }
    return 0;
}

void workload_finish(struct workload *workload)
{
    free(workload->environment);
    strv_free(workload->variables);
    free(workload->path);
    *workload = (struct workload){0};
}

int workload_set_limits(pid_t pid, const struct workload *workload, struct error *err)
{
    const struct oci_process *config = workload->config;

    for (size_t i = 0; i < config->rlimits_count; i++) {
        const struct oci_rlimit *limit = config->rlimits[i];
        struct {
            uint64_t soft, hard;
        } value = {limit->soft, limit->hard};
        if (syscall(SYS_prlimit64, pid, find_limit(limit->type), &value, NULL) < 0)
            return error_errno(err, errno, "process.rlimits[%zu]: set %s", i, limit->type);
    }
    return attributes_set(pid, config, workload->linux, err);
}

int workload_set_oom_score(int proc_fd, pid_t pid, const struct oci_process *config,
                           struct error *err)
{
    char path[48], value[16];

    if (!config->has_oom_score_adj)
        return 0;
    snprintf(path, sizeof(path), "%d/oom_score_adj", pid);
    int length = snprintf(value, sizeof(value), "%d", config->oom_score_adj);
    int r = file_write_existing_at(proc_fd, path, value, (size_t)length, err);
    if (r < 0)
        error_context(err, "process.oomScoreAdj");
    return r;
}

int workload_set_own_oom_score(int proc_fd, const struct oci_process *config, struct error *err)
{
    char value[16];

    if (!config->has_oom_score_adj)
        return 0;
    int length = snprintf(value, sizeof(value), "%d", config->oom_score_adj);
    int r = file_write_existing_at(proc_fd, "self/oom_score_adj", value, (size_t)length, err);
    if (r == -EACCES || r == -EPERM) {
        error_finish(err);
        return 0;
    }
    if (r < 0)
        error_context(err, "process.oomScoreAdj");
    return r;
}

static bool is_null_device(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == makedev(1, 3);
}

/* The host's null device lies on a mount that the container does not have: criu cannot save it, and
 * labels that confine the program may forbid it. The container's own takes its place, if that is
 * one. */
static void take_own_null(int fd)
{
    struct stat status;
    int mode = fcntl(fd, F_GETFL);

    if (mode < 0 || lstat("/dev/null", &status) < 0 || !is_null_device(&status))
        return;
    _cleanup_close_ int own_fd = open("/dev/null", (mode & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC);
    if (own_fd < 0 || fstat(own_fd, &status) < 0 || !is_null_device(&status) ||
        fcntl(own_fd, F_SETFL, mode) < 0)
        return;
    dup2(own_fd, fd);
}

/* The program may open its /dev/stdout again, which for a pipe asks for the owner's rights. Not for
 * files and terminals of the caller, which are none of the container's. */
static void own_standard_descriptors(uid_t uid, gid_t gid)
{
    for (int fd = 0; fd < FIRST_OTHER_FD; fd++) {
        struct stat status;
        if (fstat(fd, &status) < 0)
            continue;
        if (is_null_device(&status))
            take_own_null(fd);
        if (S_ISFIFO(status.st_mode) && status.st_uid != uid && fchown(fd, uid, gid) < 0)
            (void)!fchown(fd, uid, (gid_t)-1);
    }
}

static int set_groups(const struct oci_user *user, struct error *err)
{
    if (setgroups(user->additional_gids_count, user->additional_gids) == 0 ||
        (!user->additional_gids_count && errno == EPERM))
        return 0;
    return errno == EPERM
               ? error_set(err, -EPERM,
                           "process.user.additionalGids: cannot set any additional groups in a "
                           "rootless container that maps its own group alone")
               : error_errno(err, errno, "process.user.additionalGids: setgroups");
}

static int become_user(const struct oci_process *config, bool keeps_groups, struct error *err)
{
    const struct oci_user none = {0}, *user = config->user ? config->user : &none;
    int r = 0;

    own_standard_descriptors(user->uid, user->gid);
    if (config->terminal)
        (void)!fchown(0, user->uid, (gid_t)-1);
    if (!keeps_groups)
        r = set_groups(user, err);
    if (r < 0)
        return r;
    if (syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0)
        return error_errno(err, errno, "process.user.gid: setresgid %u", user->gid);
    if (syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
        return error_errno(err, errno, "process.user.uid: setresuid %u", user->uid);
    if (user->has_umask)
        umask(user->umask & 0777);
    else
        umask(0022);
    return 0;
}

/* The runtime may enter what the program's user may not, and without capabilities the other way
 * round: whoever can. A descriptor that leaked in from the host can be the working directory
 * through /proc/self/fd (CVE-2024-21626): the kernel then cannot name it from this root. Returns
 * whether it is entered. */
static int enter_working_directory(const char *path, bool last_try, struct error *err)
{
    char name[PATH_MAX];

    if (chdir(path) < 0)
        return !last_try && (errno == EACCES || errno == EPERM)
                   ? 0
                   : error_errno(err, errno, "process.cwd: chdir to %s", path);
    if (syscall(SYS_getcwd, name, sizeof(name)) < 0 || name[0] != '/')
        return error_set(err, -EPERM, "process.cwd: %s is outside of the container's root", path);
    return 1;
}

static void close_range_of(unsigned first, unsigned last)
{
    /* Linux 5.9 has the call. */
    if (kernel_close_range(first, last, 0) != -ENOSYS)
        return;
    unsigned open_max = (unsigned)sysconf(_SC_OPEN_MAX);
    for (unsigned fd = first; fd <= last && fd < open_max; fd++)
        close((int)fd);
}

/* All from first on but the few in keep (-1: none), which is sorted for that. */
static void close_others(unsigned first, int *keep, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        for (size_t k = i; k > 0 && keep[k] < keep[k - 1]; k--) {
            int other = keep[k];
            keep[k] = keep[k - 1];
            keep[k - 1] = other;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < (int)first)
            continue;
        if (keep[i] > (int)first)
            close_range_of(first, (unsigned)keep[i] - 1);
        first = (unsigned)keep[i] + 1;
    }
    close_range_of(first, UINT32_MAX);
}

/* The preserved ones stay, and until the execution sockets, pipes and files to write to.
 * Nothing else, and above all no directory: until the kernel has opened the program, and its
 * interpreter, those would be ways to the host's (CVE-2024-21626, "/proc/self/fd/7/../../bin/sh").
 */
static void seal_descriptors(const struct workload *workload, int sync_fd, int keep_fd)
{
    unsigned first = FIRST_OTHER_FD + workload->preserved->count;
    int keep[] = {sync_fd, keep_fd, workload->hook_fds[0], workload->hook_fds[1]};

    close_others(first, keep, ARRAY_SIZE(keep));
    preserved_release(workload->preserved);
}

/* sd_listen_fds(3): the number is that of the process as it sees itself. */
static void build_environment(struct workload *workload)
{
    const struct oci_process *config = workload->config;

    if (workload->listen_fds) {
        strv_take(&workload->variables, xasprintf("LISTEN_FDS=%u", workload->listen_fds));
        strv_take(&workload->variables, xasprintf("LISTEN_PID=%d", getpid()));
    }
    workload->environment =
        environment_build(config->env, workload->variables, config->user ? config->user->uid : 0);
}

int workload_become(struct workload *workload, struct error *err)
{
    const struct oci_process *config = workload->config;
    int r = attributes_adopt(workload->linux, err);

    if (r == 0)
        r = labels_set_exec(workload->proc_fd, config, err);
    if (r < 0)
        return r;
    if (config->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "process.noNewPrivileges");
    r = capability_limit_bounding(workload->capabilities.bounding, err);
    if (r < 0)
        return r;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "keep capabilities");
    int entered = enter_working_directory(config->cwd, false, err);
    if (entered < 0)
        return entered;
    r = become_user(config, workload->keeps_groups, err);
    if (r < 0)
        return r;
    /* Nobody in the container may look into this process while it still has descriptors of the
     * host (the change of user sets it back). */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (!entered)
        r = enter_working_directory(config->cwd, true, err);
    if (r < 0)
        return r;
    build_environment(workload);
    bool overrides = workload->capabilities.effective & (UINT64_C(1) << CAP_DAC_OVERRIDE);
    return lookup_executable(config->args[0], workload->environment, overrides, &workload->path,
                             err);
}

void workload_show(unsigned preserve_fds, int sync_fd, int keep_fd)
{
    close_others(FIRST_OTHER_FD + preserve_fds, (int[]){sync_fd, keep_fd}, 2);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static int install_filter(struct workload *workload, const struct filter *filter,
                          size_t filter_size, int sync_fd, int keep_fd, struct error *err)
{
    int listener_fd;

    if (filter_has_listener(filter) && !workload->stays_hidden)
        workload_show(workload->preserved->count, sync_fd, keep_fd);
    int r = filter_install(filter, filter_size, &listener_fd, err);
    return r < 0 || listener_fd < 0 ? r : listener_give(sync_fd, listener_fd, err);
}

int workload_confine(struct workload *workload, const struct filter *filter, size_t filter_size,
                     int sync_fd, int keep_fd, struct error *err)
{
    /* Without no_new_privs the filter takes CAP_SYS_ADMIN: then setting the capabilities comes
     * after it, and the profile must allow that, as with runc. */
    bool filter_last = workload->config->no_new_privileges;
    uint64_t have = 0;
    int r = capability_raise_permitted(&have, err);

    seal_descriptors(workload, sync_fd, keep_fd);
    if (r == 0 && !filter_last)
        r = install_filter(workload, filter, filter_size, sync_fd, keep_fd, err);
    if (r == 0)
        r = capability_apply(&workload->capabilities, have, err);
    if (r == 0 && filter_last)
        r = install_filter(workload, filter, filter_size, sync_fd, keep_fd, err);
    return r;
}

int workload_execute(struct workload *workload, struct error *err)
{
    execve(workload->path, workload->config->args, workload->environment);
    return error_set(err, -errno, "exec %s: %s", workload->path, lookup_error_text(-errno));
}
