/*
 * cloche-runtime: the OCI runtime's command line, compatible with runc's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cloche/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

static const struct command *const commands[] = {
    &command_checkpoint, &command_restore,  &command_create, &command_delete,  &command_events,
    &command_exec,       &command_features, &command_kill,   &command_list,    &command_pause,
    &command_ps,         &command_resume,   &command_run,    &command_spec,    &command_start,
    &command_state,      &command_update,   &command_mounts, &command_version,
};

struct globals {
    const char *root, *log, *log_format, *log_level, *rootless_text, *criu, *cgroup_manager;
    enum cloche_runtime_rootless rootless;
    bool debug, help, version, systemd_cgroup, no_cgroup;
};

/* The first lines are runc's, for callers that look which program they have. */
static int help(void)
{
    printf("NAME:\n   %s, in place of runc - Open Container Initiative runtime\n\n"
           "USAGE:\n   %s [global options] COMMAND [command options] [arguments...]\n\n"
           "COMMANDS:\n",
           PROGRAM_NAME, PROGRAM_NAME);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("   %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("   %-10s %s\n\n", "help", "show this, or how a command is used");
    printf(
        "GLOBAL OPTIONS:\n"
        "   --root DIR             state of the containers (" CLOCHE_RUNTIME_ROOT "; users:\n"
        "                          $XDG_RUNTIME_DIR/cloche-runtime)\n"
        "   --log FILE             messages, besides standard error\n"
        "   --log-format FORMAT    text or json\n"
        "   --log-level LEVEL      error, warning or debug\n"
        "   --debug                more messages\n"
        "   --rootless BOOL        go without cgroups that may not be made: true, false or auto\n"
        "   --systemd-cgroup       cgroups are scopes of systemd\n"
        "   --cgroup-manager NAME  cgroupfs, systemd (as --systemd-cgroup), or disabled: none\n"
        "   --help, -h\n"
        "   --version, -v\n");
    return EXIT_CODE_OK;
}

static int take_rootless(struct globals *globals, struct error *err)
{
    const char *value = globals->rootless_text;

    if (text_empty(value) || text_equal(value, "auto"))
        return 0;
    if (!text_equal(value, "true") && !text_equal(value, "false"))
        return error_set(err, -EINVAL, "--rootless: '%s' is not true, false or auto", value);
    globals->rootless =
        text_equal(value, "true") ? CLOCHE_RUNTIME_ROOTLESS_YES : CLOCHE_RUNTIME_ROOTLESS_NO;
    return 0;
}

/* crun's way to say it. */
static int take_cgroup_manager(struct globals *globals, struct error *err)
{
    if (text_equal(globals->cgroup_manager, "systemd")) {
        globals->systemd_cgroup = true;
        return 0;
    }
    globals->no_cgroup = text_equal(globals->cgroup_manager, "disabled");
    if (globals->cgroup_manager && !globals->no_cgroup &&
        !text_equal(globals->cgroup_manager, "cgroupfs"))
        return error_set(err, -EINVAL,
                         "--cgroup-manager: '%s' is not cgroupfs, systemd or disabled",
                         globals->cgroup_manager);
    return 0;
}

/* crun's, too. */
static int take_log_level(const struct globals *globals, struct error *err)
{
    static char *const levels[] = {"error", "warning", "debug", NULL};

    return !globals->log_level || strv_contains(levels, globals->log_level)
               ? 0
               : error_set(err, -EINVAL, "--log-level: '%s' is not error, warning or debug",
                           globals->log_level);
}

static int parse_globals(int argc, char **argv, struct globals *ret, struct error *err)
{
    const struct option_spec specs[] = {
        {.name = "root", .value = &ret->root},
        {.name = "log", .value = &ret->log},
        {.name = "log-format", .value = &ret->log_format},
        {.name = "log-level", .value = &ret->log_level},
        {.name = "rootless", .value = &ret->rootless_text},
        {.name = "criu", .value = &ret->criu},
        {.name = "cgroup-manager", .value = &ret->cgroup_manager},
        {.name = "systemd-cgroup", .flag = &ret->systemd_cgroup},
        {.name = "debug", .flag = &ret->debug},
        {.name = "help", .letter = 'h', .flag = &ret->help},
        {.name = "version", .letter = 'v', .flag = &ret->version},
        {0},
    };
    int rest = options_parse(specs, false, argc, argv, err);

    if (rest < 0)
        return rest;
    if (ret->log_format && !text_equal(ret->log_format, "text") &&
        !text_equal(ret->log_format, "json"))
        return error_set(err, -EINVAL, "invalid log-format: %s", ret->log_format);
    int r = take_rootless(ret, err);
    if (r == 0)
        r = take_cgroup_manager(ret, err);
    if (r == 0)
        r = take_log_level(ret, err);
    return r < 0 ? r : rest;
}

/* Descriptors 0 to 2 must be something, else files of ours would become the container's. */
static void fill_standard_descriptors(void)
{
    int fd;

    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
        ;
    if (fd >= 0)
        close(fd);
}

static int open_log(const struct globals *globals, struct error *err)
{
    int fd = -1;

    if (globals->log && globals->log[0]) {
        if (text_starts_with(globals->log, "syslog:") ||
            text_starts_with(globals->log, "journald:"))
            return error_set(err, -ENOTSUP, "--log %s: messages go to files only", globals->log);
        /* crun's callers may say what kind of place it is. */
        const char *path = globals->log + (text_starts_with(globals->log, "file:") ? 5 : 0);
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
        if (fd < 0)
            return error_errno(err, errno, "open the log %s", globals->log);
    }
    program_log_configure(fd, text_equal(globals->log_format, "json"),
                          globals->debug || text_equal(globals->log_level, "debug"),
                          text_equal(globals->log_level, "error"));
    return 0;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (text_equal(commands[i]->name, name))
            return commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EINVAL, "No help topic for '%s'", name);
    error_hint(&err, "%s --help lists the commands", PROGRAM_NAME);
    program_fail(&err);
    return EXIT_CODE_NO_COMMAND;
}

static int help_command(const char *name)
{
    const struct command *command = name ? find_command(name) : NULL;

    if (!name)
        return help();
    if (!command)
        return unknown_command(name);
    program_help(command);
    return EXIT_CODE_OK;
}

/* exec learns only from the container's state whether it has to ask a user's systemd; engines do
 * not say --systemd-cgroup then. */
static int seal(const struct globals *globals, const struct command *command, char **argv,
                struct error *err)
{
    bool systemd = globals->systemd_cgroup || command == &command_exec;
    unsigned flags = systemd ? CLOCHE_RUNTIME_SEAL_KEEP_FOLDER : 0;
    int r = cloche_runtime_seal(argv, flags);

    return r < 0
               ? error_errno(err, -r, "execute a copy of the runtime that no container can change")
               : 0;
}

static int open_runtime(const struct globals *globals, struct cloche_runtime **ret,
                        struct error *err)
{
    _cleanup_free_ char *folder = NULL, *absolute = NULL;
    struct cloche_runtime_settings settings = {
        .size = sizeof(settings),
        .root = text_empty(globals->root) ? NULL : globals->root,
        .direct = true,
        .rootless = globals->rootless,
        .log = program_log,
    };

    if (settings.root && settings.root[0] != '/') {
        folder = getcwd(NULL, 0);
        if (!folder)
            return error_errno(err, errno, "--root: find the current directory");
        settings.root = absolute = xasprintf("%s/%s", folder, globals->root);
    }
    int r = cloche_runtime_open(&settings, ret);
    return r < 0 ? error_errno(err, -r, "--root: %s", globals->root) : 0;
}

static int run_command(const struct globals *globals, int argc, char **argv, char **full_argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct program program = {.criu = globals->criu,
                              .systemd_cgroup = globals->systemd_cgroup,
                              .no_cgroup = globals->no_cgroup};

    if (argc == 0)
        return help();
    if (text_equal(argv[0], "help") || text_equal(argv[0], "h"))
        return help_command(argv[1]);
    const struct command *command = find_command(argv[0]);
    if (!command)
        return unknown_command(argv[0]);
    for (int k = 1; k < argc && argv[k][0] == '-'; k++) {
        if (text_equal(argv[k], "--help") || text_equal(argv[k], "-h"))
            return help_command(argv[0]);
    }
    int r = command->enters_container ? seal(globals, command, full_argv, &err) : 0;
    if (r == 0)
        r = open_runtime(globals, &program.runtime, &err);
    if (r < 0)
        return program_fail(&err);
    int code = command->main(&program, argc, argv);
    cloche_runtime_close(program.runtime);
    return code;
}

int main(int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct globals globals = {0};

    /* Parsing moves the arguments about. */
    _cleanup_free_ char **full_argv = xmemdup(argv, ((size_t)argc + 1) * sizeof(*argv));
    fill_standard_descriptors();
    int rest = parse_globals(argc, argv, &globals, &err);
    if (rest >= 0 && open_log(&globals, &err) < 0)
        rest = -1;
    if (rest < 0)
        return program_fail(&err);
    if (globals.help)
        return help();
    if (globals.version)
        return command_version.main(NULL, 0, NULL);
    return run_command(&globals, rest, argv + 1, full_argv);
}
