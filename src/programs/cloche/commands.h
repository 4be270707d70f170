/*
 * A command of `cloche` is a struct command in a file of its own: its words for --help, its
 * options as a table, and a function. commands.c lists them; nothing else knows their number.
 */
#ifndef CLOCHE_COMMANDS_H
#define CLOCHE_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>

#include "dial.h"
#include "options.h"

/* Exit codes that are not a container's own. docker's. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,         /* a command on the engine failed; wrong number of operands */
    EXIT_ENGINE = 125,       /* `run` failed before the container's program; unknown flags */
    EXIT_NOT_EXECUTED = 126, /* the container's program cannot be executed */
    EXIT_NOT_FOUND = 127,    /* the container's program does not exist */
};

struct cli;

struct command {
    const char *name;                       /* "ps" */
    const char *usage;                      /* "[OPTIONS] CONTAINER [CONTAINER...]" */
    const char *summary;                    /* one line, imperative, without full stop */
    const char *details;                    /* further lines for --help; NULL: none */
    const struct option_group *options;     /* NULL: none */
    size_t values_size;                     /* of the struct the options are kept in */
    void (*set_defaults)(void *values);     /* NULL: all zero */
    int minimum_operands, maximum_operands; /* maximum < 0: any number */
    bool stop_at_operand; /* options behind the first operand belong to the container's command */
    bool common;          /* listed first in `cloche --help` */
    bool hidden;
    enum complete complete; /* what the operands are */
    int (*run)(struct cli *cli, const void *values, char *const *operands);
};

/* A word under which a command is found: "ps", or "container ls". */
struct spelling {
    const char *group; /* NULL: top level */
    const char *name;
    const struct command *command;
    bool synonym; /* of the one before it: not listed */
};

struct command_group {
    const char *name; /* "container" */
    const char *summary;
};

extern const struct spelling spellings[];           /* command NULL ends it */
extern const struct command_group command_groups[]; /* name NULL ends it */

/* NULL when there is none. group may be NULL. */
const struct spelling *command_find(const char *group, const char *name);
const struct command_group *command_group_find(const char *name);

/* The known word nearest to what was typed, NULL when none is near. */
const char *command_suggest(const char *group, const char *typed);

extern const struct option_group global_options[];
struct global_values {
    const char *instance;
    struct dial_options dial;
    bool version;
};

extern const struct command attach_command;
extern const struct command build_command;
extern const struct command builder_prune_command;
extern const struct command commit_command;
extern const struct command complete_command;
extern const struct command container_inspect_command;
extern const struct command container_prune_command;
extern const struct command cp_command;
extern const struct command create_command;
extern const struct command diff_command;
extern const struct command events_command;
extern const struct command exec_command;
extern const struct command export_command;
extern const struct command help_page_command;
extern const struct command history_command;
extern const struct command image_inspect_command;
extern const struct command image_prune_command;
extern const struct command images_command;
extern const struct command import_command;
extern const struct command info_command;
extern const struct command inspect_command;
extern const struct command kill_command;
extern const struct command load_command;
extern const struct command login_command;
extern const struct command logout_command;
extern const struct command logs_command;
extern const struct command network_connect_command;
extern const struct command network_create_command;
extern const struct command network_disconnect_command;
extern const struct command network_inspect_command;
extern const struct command network_ls_command;
extern const struct command network_prune_command;
extern const struct command network_rm_command;
extern const struct command pause_command;
extern const struct command port_command;
extern const struct command ps_command;
extern const struct command pull_command;
extern const struct command push_command;
extern const struct command rename_command;
extern const struct command restart_command;
extern const struct command rm_command;
extern const struct command rmi_command;
extern const struct command rpc_call_command;
extern const struct command rpc_methods_command;
extern const struct command rpc_ping_command;
extern const struct command rpc_stats_command;
extern const struct command rpc_watch_command;
extern const struct command run_command;
extern const struct command save_command;
extern const struct command search_command;
extern const struct command start_command;
extern const struct command stats_command;
extern const struct command stop_command;
extern const struct command system_check_command;
extern const struct command system_df_command;
extern const struct command system_prune_command;
extern const struct command system_remove_command;
extern const struct command tag_command;
extern const struct command top_command;
extern const struct command unpause_command;
extern const struct command version_command;
extern const struct command update_command;
extern const struct command volume_create_command;
extern const struct command volume_inspect_command;
extern const struct command volume_ls_command;
extern const struct command volume_prune_command;
extern const struct command volume_rm_command;
extern const struct command wait_command;

#endif
