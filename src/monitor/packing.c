/*
 * Files of the log that are full, packed by cloche-logpack: PATH.N becomes PATH.N.gz. One at a
 * time, the oldest first; what an earlier monitor has not come to is packed by the next one.
 *
 * A file is packed into PATH.packing, which takes its name when it is whole and on the disk; only
 * then the other goes. Killed in between, there are both, and the one that is not packed counts.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>

#include "monitor_internal.h"

static char *temporary_path(const struct monitor *monitor)
{
    return xasprintf("%s.packing", monitor->log.path);
}

static char *path_of(const struct monitor *monitor, int64_t number)
{
    return xasprintf("%s.%d", monitor->log.path, (int)number);
}

static int spawn(struct monitor *monitor, int from, int to, struct error *err)
{
    char name[] = "cloche-logpack";
    char *const argv[] = {name, NULL};
    const int fds[] = {from, to, STDERR_FILENO};
    const struct process_spec spec = {
        .path = monitor->options->log_packer,
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
        .parent_death_signal = SIGKILL,
    };

    isolate_begin_child();
    int r = process_spawn(&spec, &monitor->packing.process, err);
    isolate_end_child();
    if (r == 0)
        close_fd(steal_fd(&monitor->packing.process.pidfd));
    return r;
}

/* 0: there is no such file. */
static int pack(struct monitor *monitor, int64_t number, struct error *err)
{
    _cleanup_free_ char *path = path_of(monitor, number), *temporary = temporary_path(monitor);
    _cleanup_close_ int from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    _cleanup_close_ int to = -1;

    if (from < 0)
        return 0;
    unlink(temporary);
    to = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (to < 0)
        return error_errno(err, errno, "create %s", temporary);
    int r = spawn(monitor, from, to, err);
    if (r < 0)
        return r;
    monitor->packing.number = monitor->log.file->number - number;
    return 1;
}

static void complain(struct monitor *monitor, const char *why)
{
    if (!monitor->packing.failing)
        log_error("the container's log is not compressed: %s", why);
    monitor->packing.failing = true;
}

void packing_begin(struct monitor *monitor)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = 0;

    monitor->log.rotated = false;
    if (!monitor->options->log_packer || !monitor->log.file || monitor->packing.process.pid)
        return;
    for (int64_t number = monitor->log.max_files - 1; r == 0 && number > 0; number--)
        r = pack(monitor, number, &err);
    if (r < 0)
        complain(monitor, error_message(&err));
}

/* The file has another number by now where the log was rotated meanwhile, or is no more. */
static bool take_over(struct monitor *monitor)
{
    int64_t number = monitor->log.file->number - monitor->packing.number;
    _cleanup_free_ char *temporary = temporary_path(monitor), *path = path_of(monitor, number);
    _cleanup_free_ char *packed = xasprintf("%s.gz", path);

    if (number >= monitor->log.max_files)
        return unlink(temporary) == 0;
    return rename(temporary, packed) == 0 && unlink(path) == 0;
}

void packing_ended(struct monitor *monitor, int status)
{
    _cleanup_free_ char *temporary = temporary_path(monitor);

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && monitor->log.file && take_over(monitor)) {
        monitor->packing.failing = false;
        packing_begin(monitor);
        return;
    }
    unlink(temporary);
    complain(monitor, "cloche-logpack has failed"); /* tried again with the next rotation */
}

/* What another monitor has left. */
void packing_open(struct monitor *monitor)
{
    _cleanup_free_ char *temporary = temporary_path(monitor);

    unlink(temporary);
    packing_begin(monitor);
}
