#include <limits.h>
#include <stdint.h>
#include <stdlib.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

struct exec_arguments {
    struct cloche_runtime_exec_options options;
    const char *preserve_fds;
    char **environment, **capabilities, **groups; /* owned */
    uint32_t *gids;                               /* owned */
    bool ignore_paused;
};

static void finish(struct exec_arguments *arguments)
{
    strv_free(arguments->environment);
    strv_free(arguments->capabilities);
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
        {.name = "process-label", .refused = "is not supported yet"},
        {.name = "apparmor", .refused = "is not supported yet"},
        {.name = "cgroup", .refused = "is not supported yet"},
        {.name = "ignore-paused", .refused = "is not supported yet"},
        {.name = "pidfd-socket", .refused = "is not supported yet"},
        {0},
    };
    int rest = options_parse(specs, false, argc, argv, err);

    if (rest < 0)
        return rest;
    if (rest < 1)
        return error_set(err, -1, "needs the container's ID");
    if (!options->process_file && rest < 2)
        return error_set(err, -1, "process args cannot be empty");
    if (options->process_file && rest > 1)
        return error_set(err, -1, "--process does not go together with a command");
    options->id = argv[1];
    options->args = options->process_file ? NULL : argv + 2;
    options->environment = ret->environment;
    options->capabilities = ret->capabilities;
    int r = take_groups(ret, err);
    if (r == 0 && ret->preserve_fds)
        r = options_number("preserve-fds", ret->preserve_fds, INT_MAX, &options->preserve_fds, err);
    return r;
}

static int exec_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct exec_arguments arguments = {0};
    char **warnings = NULL;
    int exit_code = EXIT_CODE_EXEC_FAILURE;

    if (parse(argc, argv, &arguments, &err) < 0) {
        program_usage_error(&command_exec, &err);
    } else {
        int r = runtime_exec(program->root, &arguments.options, &warnings, &exit_code, &err);
        program_warn(warnings);
        if (r < 0) {
            program_fail(&err);
            exit_code = EXIT_CODE_EXEC_FAILURE;
        }
    }
    finish(&arguments);
    return exit_code;
}

const struct command command_exec = {
    .name = "exec",
    .usage = "[-t] [-d] [-u UID[:GID]] [-g GID]... [-e NAME=VALUE]... [-c CAP]... [--cwd DIR]\n"
             "    [--no-new-privs] [--console-socket SOCKET] [--pid-file FILE] [--preserve-fds N]\n"
             "    ID COMMAND [ARGUMENT...] | -p process.json ID",
    .summary = "run a further process in a container",
    .enters_container = true,
    .main = exec_main,
};
