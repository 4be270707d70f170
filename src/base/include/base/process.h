/*
 * Child processes by pidfd (clone3 CLONE_PIDFD, Linux 5.3) and vfork semantics: cheap from a large
 * parent, no descriptor leaks into the child but those listed.
 */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

struct process_spec {
    const char *path;         /* executable; searched in PATH when it holds no slash */
    char *const *argv;        /* NULL-terminated */
    char *const *environment; /* NULL-terminated; NULL: the caller's */
    const int *fds;           /* fds[i] becomes descriptor i in the child; -1: /dev/null. All others
                               * are closed */
    int fds_count;            /* at least 3 */
    const int *cgroups;       /* files of cgroups (tasks, cgroup.procs) that it joins */
    int cgroups_count;
    const char *directory;   /* working directory; NULL: the caller's */
    bool new_session;        /* setsid() */
    int parent_death_signal; /* PR_SET_PDEATHSIG, 0: none */
};

struct process {
    pid_t pid;
    int pidfd; /* owned; readable (POLLIN) when the process has ended */
};

/* Starts it. Signals: default dispositions and an empty mask in the child. A failure to execute
 * is reported here (-ENOENT, -EACCES ...), not by an exit status. */
int process_spawn(const struct process_spec *spec, struct process *ret, struct error *err);

/* Blocks until it ends. ret_status as in wait(2). Closes the pidfd. */
int process_wait(struct process *process, int *ret_status, struct error *err);

/* Field `number` (4 or more) of /proc/PID/stat, a number, and the process's state letter:
 * proc_pid_stat(5). -ESRCH: there is none. */
int process_stat(pid_t pid, int number, char *ret_state, uint64_t *ret);

/* When a process began, in clock ticks since the boot: with its number it tells it from others that
 * had or get the number. -ESRCH: there is none, or it has ended. */
int process_start_time(pid_t pid, uint64_t *ret);

/* wait(2) status -> shell convention: exit code, or 128 + signal. */
int process_exit_code(int status);

#endif
