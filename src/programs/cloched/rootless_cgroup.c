/*
 *     SCOPE              delegated by the user's systemd; RUN/rootless.cgroup names it
 *     SCOPE/engine       daemon, holder, monitors and helpers
 *     SCOPE/containers   the containers' own cgroups
 *
 * The scope lives as long as anybody is in it, as the holder always is. Each daemon goes there,
 * since only from within what is the user's may processes be moved to the containers' cgroups
 * (cgroups(7)); one that comes from a session asks systemd for a scope first, which is the
 * instance's or is empty again at once.
 */
#include "rootless_cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/process.h>
#include <base/text.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

enum { PATH_BYTES_MAX = 4096 };

static const char variable[] = "CLOCHE_ROOTLESS_CGROUP";

static bool is_v2(void)
{
    struct statfs status;

    return statfs(CGROUP_ROOT, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC;
}

static int write_to(const char *cgroup, const char *name, const char *text, struct error *err)
{
    _cleanup_free_ char *path = xasprintf(CGROUP_ROOT "/%s/%s", cgroup, name);

    return file_write_existing_at(AT_FDCWD, path, text, strlen(text), err);
}

/* --- systemd ---------------------------------------------------------------------------------- */

static int run_helper(char *const *argv, char *answer, size_t size, struct error *err)
{
    static const char properties[] = "0 Delegate true\0000 Description 'Containers of cloche'";
    _cleanup_close_ int input = memfd_create("properties", MFD_CLOEXEC);
    _cleanup_close_ int output = memfd_create("answer", MFD_CLOEXEC);
    struct process process;
    int status = 0;

    if (input < 0 || output < 0 ||
        pwrite(input, properties, sizeof(properties), 0) != sizeof(properties))
        return error_errno(err, errno, "write to memory");
    const int fds[] = {input, output, STDERR_FILENO};
    const struct process_spec spec = {
        .path = argv[0], .argv = argv, .fds = fds, .fds_count = ARRAY_SIZE(fds)};
    int r = process_spawn(&spec, &process, err);
    if (r == 0)
        r = process_wait(&process, &status, err);
    if (r == 0 && status != 0)
        r = error_set(err, -EIO, "the user's systemd gave none");
    ssize_t length = r < 0 ? 0 : pread(output, answer, size - 1, 0);
    answer[length > 0 ? length : 0] = '\0';
    answer[strcspn(answer, "\n")] = '\0';
    return r;
}

/* A scope with the process in it. Owned by the caller, without a slash in front. */
static int ask_for_scope(const struct instance *instance, const char *libexec, pid_t process,
                         char **ret, struct error *err)
{
    const char *dash = instance->name[0] ? "-" : "";
    _cleanup_free_ char *program = xasprintf("%s/cloche-runtime-systemd", libexec);
    _cleanup_free_ char *unit =
        xasprintf("cloche%s%s-%d.scope", dash, instance->name, (int)process);
    _cleanup_free_ char *pid = xasprintf("%d", (int)process);
    char answer[PATH_BYTES_MAX];
    char *const argv[] = {
        program, (char *)"--user", (char *)"start", unit, (char *)"app.slice", pid, NULL};

    int r = run_helper(argv, answer, sizeof(answer), err);
    if (r < 0)
        return r;
    if (answer[0] != '/' || !answer[1])
        return error_set(err, -EPROTO, "systemd: no cgroup: '%s'", answer);
    *ret = xstrdup(answer + 1);
    return 0;
}

/* --- the tree --------------------------------------------------------------------------------- */

static char *record_path(const struct instance *instance)
{
    return xasprintf("%s/rootless.cgroup", instance->run);
}

static char *read_record(const struct instance *instance)
{
    _cleanup_free_ char *path = record_path(instance);
    char *text = NULL;

    if (file_read_at(AT_FDCWD, path, PATH_BYTES_MAX, &text, NULL, NULL) < 0)
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* What the scope has not got from systemd stays away: a limit that needs it is refused then. */
static void pass_controllers_on(const char *cgroup)
{
    static const char *const controllers[] = {"+cpu",    "+cpuset", "+io",
                                              "+memory", "+pids",   "+hugetlb"};

    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
        (void)write_to(cgroup, "cgroup.subtree_control", controllers[i], NULL);
}

static int make(const char *parent, const char *name, struct error *err)
{
    _cleanup_free_ char *path = xasprintf(CGROUP_ROOT "/%s/%s", parent, name);

    return mkdir(path, 0755) < 0 && errno != EEXIST ? error_errno(err, errno, "create %s", path)
                                                    : 0;
}

/* Nobody may be in a cgroup that passes controllers on: this process leaves it first. */
static int settle(const char *scope, struct error *err)
{
    _cleanup_free_ char *containers = xasprintf("%s/containers", scope);
    _cleanup_free_ char *engine = xasprintf("%s/engine", scope);
    int r = make(scope, "engine", err);

    if (r == 0)
        r = write_to(engine, "cgroup.procs", "0", err);
    if (r == 0)
        r = make(scope, "containers", err);
    if (r < 0)
        return r;
    pass_controllers_on(scope);
    pass_controllers_on(containers);
    setenv(variable, containers, 1);
    return 0;
}

/* A holder from before there was a scope: it keeps it alive from now on. Only systemd can take it
 * from where it is to what is the user's. */
static int take_holder_along(const struct instance *instance, const char *libexec, pid_t holder,
                             const char *scope, struct error *err)
{
    _cleanup_free_ char *passing = NULL, *pid = xasprintf("%d", (int)holder);
    _cleanup_free_ char *engine = xasprintf("%s/engine", scope);
    int r = ask_for_scope(instance, libexec, holder, &passing, err);

    return r < 0 ? r : write_to(engine, "cgroup.procs", pid, err);
}

static int enter(const struct instance *instance, const char *libexec, const char *recorded,
                 pid_t holder, struct error *err)
{
    _cleanup_free_ char *path = record_path(instance);
    _cleanup_free_ char *scope = NULL;

    if (recorded && settle(recorded, NULL) == 0)
        return 0;
    int r = ask_for_scope(instance, libexec, getpid(), &scope, err);
    if (r == 0)
        r = settle(recorded ? recorded : scope, err);
    if (r == 0 && !recorded && holder)
        r = take_holder_along(instance, libexec, holder, scope, err);
    if (r == 0 && !recorded)
        r = file_replace_at(AT_FDCWD, path, scope, strlen(scope), 0600, err);
    return r;
}

/* Their folders are in the holder's mounts alone; where they cannot be seen they may be there. */
static bool has_containers(const struct instance *instance, pid_t holder)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/root%s/containers", (int)holder, instance->run);
    _cleanup_closedir_ DIR *folder = opendir(path);
    const struct dirent *entry;

    while (folder && (entry = readdir(folder)))
        if (!text_equal(entry->d_name, ".") && !text_equal(entry->d_name, ".."))
            return true;
    return !folder;
}

void rootless_cgroup_enter(const struct instance *instance, const char *libexec, pid_t holder)
{
    _cleanup_free_ char *recorded = holder ? read_record(instance) : NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    unsetenv(variable);
    /* Containers that have none would have to get one. */
    if (!is_v2() || (holder && !recorded && has_containers(instance, holder)))
        return;
    if (!holder) {
        _cleanup_free_ char *path = record_path(instance);
        unlink(path);
    }
    if (enter(instance, libexec, recorded, holder, &err) < 0) {
        unsetenv(variable);
        log_failure(LOG_WARNING, &err,
                    "containers have no limits, and are not paused: there is no delegated cgroup");
    }
}

char *rootless_cgroup_parent(void)
{
    const char *parent = getenv(variable);

    return text_empty(parent) ? NULL : xstrdup(parent);
}
