/*
 * Children of the monitor: the runtime while it works, the container's init and exec processes,
 * which become ours when the runtime has ended, and whatever else the sandbox leaves to us.
 *
 * A process of the sandbox can end before we know its number: the runtime tells it in a file when
 * it ends itself. So while a runtime is at work, only processes with known numbers are reaped; the
 * others wait as zombies.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <base/alloc.h>
#include <base/file.h>

#include "monitor_internal.h"

enum { CHILDREN_FILE_MAX = 64 * 1024 };

static bool reap(pid_t pid, int *ret_status)
{
    return pid > 0 && waitpid(pid, ret_status, WNOHANG) == pid;
}

static bool reap_session_helper(struct session *session, int *ret_status)
{
    if (!reap(session->helper.pid, ret_status))
        return false;
    session->helper.pid = 0;
    return true;
}

static bool reap_check(struct monitor *monitor)
{
    struct session *session = &monitor->health.session;
    int status;

    if (reap_session_helper(session, &status))
        health_helper_ended(monitor, status);
    else if (reap(session->pid, &status))
        health_process_ended(monitor, status);
    else
        return false;
    return true;
}

static bool reap_exec(struct monitor *monitor)
{
    int status;

    for (struct session *session = monitor->execs; session; session = session->next) {
        if (reap_session_helper(session, &status)) {
            exec_helper_ended(monitor, session, status);
            return true;
        }
        if (reap(session->pid, &status)) {
            exec_process_ended(monitor, session, status);
            return true;
        }
    }
    return false;
}

/* Handles one end, which may free sessions and start children; whether there was one. */
static bool reap_one(struct monitor *monitor)
{
    int status;

    if (reap_exec(monitor) || reap_check(monitor))
        return true;
    if (reap_session_helper(&monitor->container, &status)) {
        container_helper_ended(monitor, status);
    } else if (reap(monitor->container.pid, &status)) {
        container_init_ended(monitor, status);
    } else if (reap(monitor->deleting.pid, &status)) {
        monitor->deleting.pid = 0;
        container_delete_ended(monitor, status);
    } else if (reap(monitor->packing.process.pid, &status)) {
        monitor->packing.process.pid = 0;
        packing_ended(monitor, status);
    } else {
        return false;
    }
    return true;
}

static bool runtime_at_work(const struct monitor *monitor)
{
    bool at_work = monitor->container.helper.pid > 0 || monitor->health.session.helper.pid > 0;

    for (const struct session *session = monitor->execs; session; session = session->next)
        at_work = at_work || session->helper.pid > 0;
    return at_work;
}

static bool is_known(const struct monitor *monitor, pid_t pid)
{
    bool known = pid == monitor->container.pid || pid == monitor->deleting.pid ||
                 pid == monitor->health.session.pid || pid == monitor->packing.process.pid;

    for (const struct session *session = monitor->execs; session; session = session->next)
        known = known || pid == session->pid;
    return known;
}

void children_reap(struct monitor *monitor)
{
    siginfo_t info;

    do {
        while (reap_one(monitor))
            ;
        if (runtime_at_work(monitor))
            return;
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        /* One of ours that ended just now is handled by the next turn. */
        if (!is_known(monitor, info.si_pid))
            waitpid(info.si_pid, NULL, WNOHANG);
    } while (true);
}

/* Each of them at the latest becomes ours when its parent has gone (isolate.c). What the first
 * process of a PID namespace has started ends with it. */
void children_kill(void)
{
    _cleanup_free_ char *text = NULL; /* numbers with a space behind each */
    char *at, *end;

    if (file_read_at(AT_FDCWD, "/proc/thread-self/children", CHILDREN_FILE_MAX, &text, NULL, NULL) <
        0)
        return;
    for (at = text; *at; at = end) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            return;
        /* Our child: its number is not given away before we have reaped it. */
        if (pid > 1)
            kill((pid_t)pid, SIGKILL);
    }
}
