#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cloche/runtime.h>

#include <base/text.h>

#include "options.h"
#include "program.h"

struct create_arguments {
    struct cloche_runtime_create_options options;
    const char *preserve_fds;
    bool no_subreaper; /* taken and without effect: a foreground run adopts nobody */
};

/* sd_listen_fds(3): only what was meant for this very process, or as crun has it for nobody by
 * name. */
static void take_listen_fds(struct cloche_runtime_create_options *options)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    uint64_t number;

    if (!count ||
        (pid && (text_to_u64(pid, 1, INT_MAX, &number) < 0 || number != (uint64_t)getpid())))
        return;
    if (text_to_u64(count, 0, PRESERVE_FDS_MAX, &number) < 0)
        return;
    options->listen_fds = (unsigned)number;
    options->listen_names = getenv("LISTEN_FDNAMES");
}

static int parse(bool run, int argc, char **argv, struct create_arguments *ret, struct error *err)
{
    struct cloche_runtime_create_options *options = &ret->options;
    const struct option_spec specs[] = {
        {.name = "bundle", .letter = 'b', .value = &options->bundle},
        {.name = "config", .letter = 'f', .value = &options->config},
        {.name = "console-socket", .value = &options->console_socket},
        {.name = "pid-file", .value = &options->pid_file},
        {.name = "no-new-keyring", .flag = &options->no_new_keyring},
        {.name = "preserve-fds", .value = &ret->preserve_fds},
        {.name = "no-pivot", .flag = &options->no_pivot},
        {.name = "pidfd-socket", .value = &options->pidfd_socket},
        {.name = "no-subreaper", .flag = &ret->no_subreaper},
        /* create ends here */
        {.name = run ? "detach" : NULL, .letter = 'd', .flag = &options->detach},
        {.name = "keep", .flag = &options->keep},
        {0},
    };
    int rest = options_parse(specs, true, argc, argv, err);

    if (rest < 0)
        return rest;
    if (rest != 1)
        return error_set(err, -1, "needs one argument: the container's ID");
    options->id = argv[1];
    take_listen_fds(options);
    options->notify_socket = getenv("NOTIFY_SOCKET");
    int r = ret->preserve_fds ? options_number("preserve-fds", ret->preserve_fds, PRESERVE_FDS_MAX,
                                               &options->preserve_fds, err)
                              : 0;
    return r < 0 ? r
                 : program_log_keep_off(FIRST_PRESERVED_FD, options->listen_fds,
                                        &options->preserve_fds, err);
}

static const char *const steps_before[] = {
    "runc exeseal: using /proc/self/exe clone: executed again from a read-only mount of it, in "
    "place of: runc exeseal: using overlayfs for sealed /proc/self/exe",
    "nsexec container setup: the state, the cgroup and the namespaces", NULL};
static const char *const steps_after[] = {
    "child process in init(): mounts, devices, user, filter and capabilities are set",
    "init: closing the pipe to signal completion", NULL};

static int create_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct create_arguments arguments = {.options.size = sizeof(arguments.options)};

    if (parse(false, argc, argv, &arguments, &err) < 0)
        return program_usage_error(&command_create, &err);
    arguments.options.systemd_cgroup = program->systemd_cgroup;
    arguments.options.no_cgroup = program->no_cgroup;
    program_debug(steps_before);
    if (cloche_runtime_create(program->runtime, &arguments.options) < 0)
        return program_failed_to(program, "runc create failed");
    program_debug(steps_after);
    return EXIT_CODE_OK;
}

static int run_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct create_arguments arguments = {.options.size = sizeof(arguments.options)};
    int exit_code;

    if (parse(true, argc, argv, &arguments, &err) < 0)
        return program_usage_error(&command_run, &err);
    arguments.options.systemd_cgroup = program->systemd_cgroup;
    arguments.options.no_cgroup = program->no_cgroup;
    program_debug(steps_before);
    if (cloche_runtime_run(program->runtime, &arguments.options, &exit_code) < 0)
        return program_failed_to(program, "runc run failed");
    program_debug(steps_after);
    return exit_code;
}

const struct command command_create = {
    .name = "create",
    .usage = "[--bundle DIR] [--config FILE] [--console-socket SOCKET] [--pidfd-socket SOCKET] "
             "[--pid-file "
             "FILE] [--preserve-fds N] "
             "[--no-new-keyring] [--no-pivot] ID",
    .summary = "make a container; its program waits for start",
    .enters_container = true,
    .main = create_main,
};

const struct command command_run = {
    .name = "run",
    .usage = "[--bundle DIR] [--config FILE] [--detach] [--console-socket SOCKET] [--pidfd-socket "
             "SOCKET] "
             "[--pid-file FILE] [--preserve-fds N] "
             "[--no-new-keyring] [--no-pivot] [--keep] ID",
    .summary = "make a container and start it",
    .enters_container = true,
    .main = run_main,
};
