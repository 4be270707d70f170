/* start, delete, pause, resume and state: one argument each. */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

#include <cloche/runtime.h>

#include <base/text.h>

#include "options.h"
#include "program.h"

static int parse_id(const struct option_spec *specs, int argc, char **argv, struct error *err)
{
    int rest = options_parse(specs, true, argc, argv, err);

    if (rest >= 0 && rest != 1)
        return error_set(err, -1, "needs one argument: the container's ID");
    return rest;
}

static const struct option_spec no_options[] = {{0}};

static int start_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct cloche_runtime_start_options options = {.size = sizeof(options),
                                                         .notify_socket = getenv("NOTIFY_SOCKET")};

    if (parse_id(no_options, argc, argv, &err) < 0)
        return program_usage_error(&command_start, &err);
    int r = cloche_runtime_start(program->runtime, argv[1], &options);
    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

static int delete_one(const struct program *program, const char *id, bool force)
{
    int r = cloche_runtime_delete(program->runtime, id, force ? CLOCHE_RUNTIME_DELETE_FORCE : 0);

    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

/* As crun has it: the pattern may match anywhere in the name. Goes on after a failure. */
static int delete_matching(const struct program *program, const char *pattern, bool force)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    char **names = NULL;
    int code = EXIT_CODE_OK;
    regex_t regex;

    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0) {
        error_set(&err, -EINVAL, "invalid regular expression '%s'", pattern);
        return program_fail(&err);
    }
    if (cloche_runtime_list(program->runtime, &names) < 0)
        code = program_failed(program);
    for (char **name = names; name && *name; name++) {
        if (regexec(&regex, *name, 0, NULL, 0) == 0 &&
            delete_one(program, *name, force) != EXIT_CODE_OK)
            code = EXIT_CODE_FAILURE;
    }
    cloche_runtime_list_free(names);
    regfree(&regex);
    return code;
}

static int delete_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    bool force = false, regex = false;
    const struct option_spec specs[] = {{.name = "force", .letter = 'f', .flag = &force},
                                        {.name = "regex", .letter = 'r', .flag = &regex},
                                        {0}};

    if (parse_id(specs, argc, argv, &err) < 0)
        return program_usage_error(&command_delete, &err);
    return regex ? delete_matching(program, argv[1], force) : delete_one(program, argv[1], force);
}

static int pause_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (parse_id(no_options, argc, argv, &err) < 0)
        return program_usage_error(&command_pause, &err);
    int r = cloche_runtime_pause(program->runtime, argv[1]);
    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

static int resume_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (parse_id(no_options, argc, argv, &err) < 0)
        return program_usage_error(&command_resume, &err);
    int r = cloche_runtime_resume(program->runtime, argv[1]);
    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

static int state_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *json = NULL;
    struct cloche_runtime_info *info;

    if (parse_id(no_options, argc, argv, &err) < 0)
        return program_usage_error(&command_state, &err);
    if (cloche_runtime_state(program->runtime, argv[1], &info) < 0)
        return program_failed(program);
    json = cloche_runtime_info_json(info, true);
    cloche_runtime_info_free(info);
    puts(json);
    return EXIT_CODE_OK;
}

const struct command command_start = {
    .name = "start",
    .usage = "ID",
    .summary = "let the program of a created container run",
    .main = start_main,
};

const struct command command_delete = {
    .name = "delete",
    .usage = "[--force] [--regex] ID",
    .summary = "remove a stopped container",
    .main = delete_main,
};

const struct command command_pause = {
    .name = "pause",
    .usage = "ID",
    .summary = "freeze the processes of a container",
    .main = pause_main,
};

const struct command command_resume = {
    .name = "resume",
    .usage = "ID",
    .summary = "let the processes of a paused container go on",
    .main = resume_main,
};

const struct command command_state = {
    .name = "state",
    .usage = "ID",
    .summary = "print the state of a container as JSON",
    .main = state_main,
};
