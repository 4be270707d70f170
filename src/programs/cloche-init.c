/*
 * The first process of a container that was asked for one (--init): starts the container's program,
 * passes signals on to it, reaps what it leaves behind, and ends as it ends.
 *
 *     cloche-init -- PROGRAM [ARGUMENTS]
 *
 * It runs in the container, with whatever rights that has, and of any image: it is linked
 * statically and opens no file. System calls: rt_sigprocmask, rt_sigaction, clone, setpgid, ioctl,
 * execve, rt_sigtimedwait, kill, wait4, write, exit_group.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EXIT_NO_PROGRAM = 127, /* as a shell, and docker */
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_USAGE = 2,
    EXIT_SIGNAL_BASE = 128,
};

static void complain(const char *what, const char *why)
{
    dprintf(STDERR_FILENO, "cloche-init: %s: %s\n", what, why);
}

/* Everything is waited for, but what a fault of our own raises. */
static void make_mask(sigset_t *ret)
{
    static const int faults[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};

    sigfillset(ret);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(ret, faults[i]);
}

/* In a process group of its own, which is the terminal's where there is one: ^C is for it then. */
static _Noreturn void run_program(char **argv, const sigset_t *mask)
{
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpgrp()); /* ENOTTY: no terminal */
    signal(SIGTTIN, SIG_DFL);
    signal(SIGTTOU, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(argv[0], argv);
    int failure = errno;
    complain(argv[0], strerror(failure));
    _exit(failure == ENOENT ? EXIT_NO_PROGRAM : EXIT_NOT_EXECUTABLE);
}

/* Reaps all that has ended; whether the program was among them. */
static bool reap(pid_t program, int *ret_code)
{
    bool ended = false;
    int status;

    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid != program)
            continue;
        ended = true;
        *ret_code = WIFSIGNALED(status) ? EXIT_SIGNAL_BASE + WTERMSIG(status) : WEXITSTATUS(status);
    }
    return ended;
}

static int serve(pid_t program, const sigset_t *mask)
{
    int code = 0;

    while (!reap(program, &code)) {
        int number = sigwaitinfo(mask, NULL);
        if (number > 0 && number != SIGCHLD)
            kill(program, number);
    }
    return code;
}

int main(int argc, char **argv)
{
    sigset_t mask, before;

    argv++;
    if (*argv && strcmp(*argv, "--") == 0)
        argv++;
    if (argc < 2 || !*argv) {
        complain("usage", "cloche-init -- PROGRAM [ARGUMENTS]");
        return EXIT_USAGE;
    }
    make_mask(&mask);
    sigprocmask(SIG_SETMASK, &mask, &before);
    /* Else taking the terminal would stop us. */
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    pid_t program = fork();
    if (program < 0) {
        complain("fork", strerror(errno));
        return EXIT_NOT_EXECUTABLE;
    }
    if (program == 0)
        run_program(argv, &before);
    return serve(program, &mask);
}
