#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include <cloche/runtime.h>

#include <base/text.h>

#include "options.h"
#include "program.h"

enum { SIGNAL_MAX = 64 };

static const struct {
    const char *name;
    int number;
} signals[] = {
    {"ABRT", SIGABRT}, {"ALRM", SIGALRM}, {"BUS", SIGBUS},       {"CHLD", SIGCHLD},
    {"CLD", SIGCHLD},  {"CONT", SIGCONT}, {"FPE", SIGFPE},       {"HUP", SIGHUP},
    {"ILL", SIGILL},   {"INT", SIGINT},   {"IO", SIGIO},         {"IOT", SIGABRT},
    {"KILL", SIGKILL}, {"PIPE", SIGPIPE}, {"POLL", SIGIO},       {"PROF", SIGPROF},
    {"PWR", SIGPWR},   {"QUIT", SIGQUIT}, {"SEGV", SIGSEGV},     {"STKFLT", SIGSTKFLT},
    {"STOP", SIGSTOP}, {"SYS", SIGSYS},   {"TERM", SIGTERM},     {"TRAP", SIGTRAP},
    {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},     {"URG", SIGURG},
    {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"VTALRM", SIGVTALRM}, {"WINCH", SIGWINCH},
    {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
};

/* The kernel's numbers: libc keeps the first two or three for itself and moves its SIGRTMIN. */
enum { KERNEL_RTMIN = 34, KERNEL_RTMAX = 64 };

static int real_time_signal(const char *name, int *ret)
{
    bool from_min = strncasecmp(name, "RTMIN", 5) == 0;
    uint64_t offset = 0;

    if (!from_min && strncasecmp(name, "RTMAX", 5) != 0)
        return -EINVAL;
    if (name[5] && (name[5] != (from_min ? '+' : '-') ||
                    text_to_u64(name + 6, 0, KERNEL_RTMAX - KERNEL_RTMIN, &offset) < 0))
        return -EINVAL;
    *ret = from_min ? KERNEL_RTMIN + (int)offset : KERNEL_RTMAX - (int)offset;
    return 0;
}

static int parse_signal(const char *text, int *ret, struct error *err)
{
    uint64_t number;
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;

    if (text_to_u64(text, 0, SIGNAL_MAX, &number) == 0) {
        *ret = (int)number;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        if (strcasecmp(signals[i].name, name) == 0) {
            *ret = signals[i].number;
            return 0;
        }
    }
    if (real_time_signal(name, ret) == 0)
        return 0;
    return error_set(err, -EINVAL, "unknown signal \"%s\"", text);
}

static int kill_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    bool all = false;
    int number = SIGTERM;
    const struct option_spec specs[] = {{.name = "all", .letter = 'a', .flag = &all}, {0}};
    int rest = options_parse(specs, true, argc, argv, &err);

    if (rest >= 0 && (rest < 1 || rest > 2))
        rest = error_set(&err, -EINVAL, "needs the container's ID and at most a signal");
    if (rest < 0)
        return program_usage_error(&command_kill, &err);
    if (rest == 2 && parse_signal(argv[2], &number, &err) < 0)
        return program_fail(&err);
    int r =
        cloche_runtime_kill(program->runtime, argv[1], number, all ? CLOCHE_RUNTIME_KILL_ALL : 0);
    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

const struct command command_kill = {
    .name = "kill",
    .usage = "[--all] ID [SIGNAL]",
    .summary = "send a signal to a container",
    .main = kill_main,
};
