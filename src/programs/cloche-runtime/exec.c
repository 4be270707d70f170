#include <limits.h>
#include <stdint.h>
#include <stdlib.h>

#include <cloche/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

struct exec_arguments {
    struct cloche_runtime_exec_options options;
    const char *preserve_fds;
    char **environment, **capabilities, **groups, **cgroups; /* owned */
    uint32_t *gids;                                          /* owned */
};

static void finish(struct exec_arguments *arguments)
{
    strv_free(arguments->environment);
    strv_free(arguments->capabilities);
    strv_free(arguments->cgroups);
    strv_free(arguments->groups);
    free(arguments->gids);
}

static int take_groups(struct exec_arguments *arguments, struct error *err)
{
    size_t count = strv_length(arguments->groups);

    arguments->gids = xnew_array(uint32_t, count);
    for (size_t i = 0; i < count; i++) {
        unsigned value;
        int r = options_number("additional-gids", arguments->groups[i], UINT32_MAX, &value, err);
        if (r < 0)
            return r;
        arguments->gids[i] = value;
    }
    arguments->options.additional_gids = arguments->gids;
    arguments->options.additional_gids_count = count;
    return 0;
}

static int parse(int argc, char **argv, struct exec_arguments *ret, struct error *err)
{
    struct cloche_runtime_exec_options *options = &ret->options;
    const struct option_spec specs[] = {
        {.name = "console-socket", .value = &options->console_socket},
        {.name = "cwd", .value = &options->cwd},
        {.name = "env", .letter = 'e', .list = &ret->environment},
        {.name = "tty", .letter = 't', .flag = &options->terminal},
        {.name = "user", .letter = 'u', .value = &options->user},
        {.name = "additional-gids", .letter = 'g', .list = &ret->groups},
        {.name = "process", .letter = 'p', .value = &options->process_file},
        {.name = "detach", .letter = 'd', .flag = &options->detach},
        {.name = "pid-file", .value = &options->pid_file},
        {.name = "no-new-privs", .flag = &options->no_new_privileges},
        {.name = "cap", .letter = 'c', .list = &ret->capabilities},
        {.name = "preserve-fds", .value = &ret->preserve_fds},
        {.name = "process-label", .value = &options->selinux_label},
        {.name = "apparmor", .value = &options->apparmor_profile},
        {.name = "cgroup", .list = &ret->cgroups},
        {.name = "ignore-paused", .flag = &options->ignore_paused},
        {.name = "pidfd-socket", .value = &options->pidfd_socket},
        {.name = "exec-wait-fifo", .value = &options->wait_fifo},
        {0},
    };
    int rest = options_parse(specs, false, argc, argv, err);

    if (rest < 0)
        return rest;
    if (rest < 1)
        return error_set(err, -1, "needs the container's ID");
    if (!options->process_file && rest < 2)
        return error_set(err, -1, "process args cannot be empty");
    options->id = argv[1];
    /* As with runc, a command beside --process does not count. */
    options->args = options->process_file ? NULL : argv + 2;
    if (options->args && rest > 2 && text_equal(argv[2], "--"))
        options->args++;
    options->cgroups = ret->cgroups;
    options->environment = ret->environment;
    options->capabilities = ret->capabilities;
    int r = take_groups(ret, err);
    if (r == 0 && ret->preserve_fds)
        r = options_number("preserve-fds", ret->preserve_fds, PRESERVE_FDS_MAX,
                           &options->preserve_fds, err);
    return r < 0 ? r : program_log_keep_off(FIRST_PRESERVED_FD, 0, &options->preserve_fds, err);
}

static int exec_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct exec_arguments arguments = {.options.size = sizeof(arguments.options)};
    int exit_code = EXIT_CODE_EXEC_FAILURE;

    if (parse(argc, argv, &arguments, &err) < 0)
        program_usage_error(&command_exec, &err);
    else if (cloche_runtime_exec(program->runtime, &arguments.options, &exit_code) < 0)
        program_failed(program);
    finish(&arguments);
    return exit_code;
}

const struct command command_exec = {
    .name = "exec",
    .usage =
        "[--tty] [--detach] [--user UID[:GID]] [--additional-gids GID]... [--env NAME=VALUE]... "
        "[--cap CAP]... [--cwd DIR]\n"
        "    [--no-new-privs] [--apparmor PROFILE] [--process-label LABEL] [--ignore-paused]\n"
        "    [--cgroup [CONTROLLERS:]PATH]... [--console-socket SOCKET] [--pidfd-socket SOCKET]\n"
        "    [--pid-file FILE] [--preserve-fds N] [--exec-wait-fifo FIFO]\n"
        "    ID COMMAND [ARGUMENT...] | --process process.json ID",
    .summary = "run a further process in a container",
    .enters_container = true,
    .main = exec_main,
};
