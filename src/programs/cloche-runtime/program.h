/*
 * What the commands of cloche-runtime share: one file a command.
 */
#ifndef CLOCHE_RUNTIME_PROGRAM_H
#define CLOCHE_RUNTIME_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

#include <cloche/runtime.h>

#include <base/error.h>

#define PROGRAM_NAME "cloche-runtime"

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_FAILURE = 1,
    EXIT_CODE_NO_COMMAND = 3,     /* as runc for an unknown command */
    EXIT_CODE_EXEC_FAILURE = 255, /* of exec, when it was not the program that failed (runc) */
};

enum {
    FIRST_PRESERVED_FD = 3,
    PRESERVE_FDS_MAX = 1 << 16,
};

struct program {
    struct cloche_runtime *runtime;
    const char *criu; /* the program, NULL: that in PATH */
    bool systemd_cgroup, no_cgroup;
};

struct command {
    const char *name;
    const char *usage;     /* arguments */
    const char *summary;   /* one line */
    bool enters_container; /* a process of ours becomes one of the container */
    /* argv[0] is the command's name. Returns the exit code. */
    int (*main)(const struct program *program, int argc, char **argv);
};

extern const struct command command_checkpoint, command_restore, command_create, command_delete,
    command_events, command_exec, command_features, command_kill, command_list, command_pause,
    command_mounts, command_ps, command_resume, command_run, command_spec, command_start,
    command_state, command_update, command_version;

/* Messages the way runc writes them, which podman and containerd read: to the log file in its
 * format if there is one, and to standard error. */
void program_log_configure(int fd, bool json, bool debug, bool errors_only);
/* Out of the way of descriptors that a program is to have, of LISTEN_FDS and --preserve-fds: where
 * the caller had none open the log may lie, which is the host's. Both at most 65536; of the latter
 * those go that are not open, where all are more than the limit of open files. */
int program_log_keep_off(unsigned first, unsigned listen_fds, unsigned *preserve_fds,
                         struct error *err);
/* Steps that nothing but --debug shows; texts that callers look for are runc's. */
void program_debug(const char *const *steps);
void program_warn(const char *text);
/* For cloche_runtime_settings. */
void program_log(void *context, enum cloche_runtime_level level, const char *text);
/* These return EXIT_CODE_FAILURE. */
int program_fail(const struct error *err);
int program_failed(const struct program *program); /* the last call of the library */
int program_failed_to(const struct program *program, const char *what);
int program_usage_error(const struct command *command, const struct error *err);
void program_help(const struct command *command);

#endif
