#include <string.h>

#include <base/text.h>

#include "commands.h"
#include "usb.h"

const struct command_group command_groups[] = {
    {"builder", "Manage what builds leave"},
    {"container", "Manage containers"},
    {"image", "Manage images"},
    {"network", "Manage networks"},
    {"rpc", "Use the management socket"},
    {"system", "Manage the engine"},
    {"usb", "Manage USB sticks"},
    {"volume", "Manage volumes"},
    {NULL, NULL},
};

const struct spelling spellings[] = {
    {NULL, "run", &run_command},
    {NULL, "exec", &exec_command},
    {NULL, "ps", &ps_command},
    {NULL, "images", &images_command},
    {NULL, "pull", &pull_command},
    {NULL, "push", &push_command},
    {NULL, "search", &search_command},
    {NULL, "login", &login_command},
    {NULL, "logout", &logout_command},
    {NULL, "version", &version_command},
    {NULL, "info", &info_command},
    {NULL, "attach", &attach_command},
    {NULL, "build", &build_command},
    {NULL, "commit", &commit_command},
    {NULL, "cp", &cp_command},
    {NULL, "create", &create_command},
    {NULL, "diff", &diff_command},
    {NULL, "events", &events_command},
    {NULL, "export", &export_command},
    {NULL, "help", &help_page_command},
    {NULL, "history", &history_command},
    {NULL, "import", &import_command},
    {NULL, "inspect", &inspect_command},
    {NULL, "kill", &kill_command},
    {NULL, "load", &load_command},
    {NULL, "logs", &logs_command},
    {NULL, "pause", &pause_command},
    {NULL, "port", &port_command},
    {NULL, "rename", &rename_command},
    {NULL, "restart", &restart_command},
    {NULL, "rm", &rm_command},
    {NULL, "rmi", &rmi_command},
    {NULL, "save", &save_command},
    {NULL, "start", &start_command},
    {NULL, "stats", &stats_command},
    {NULL, "stop", &stop_command},
    {NULL, "tag", &tag_command},
    {NULL, "top", &top_command},
    {NULL, "unpause", &unpause_command},
    {NULL, "update", &update_command},
    {NULL, "wait", &wait_command},
    {NULL, "__complete", &complete_command},
    {"builder", "build", &build_command},
    {"builder", "prune", &builder_prune_command},
    {"container", "attach", &attach_command},
    {"container", "commit", &commit_command},
    {"container", "cp", &cp_command},
    {"container", "create", &create_command},
    {"container", "diff", &diff_command},
    {"container", "exec", &exec_command},
    {"container", "export", &export_command},
    {"container", "inspect", &container_inspect_command},
    {"container", "kill", &kill_command},
    {"container", "logs", &logs_command},
    {"container", "port", &port_command},
    {"container", "ls", &ps_command},
    {"container", "list", &ps_command, .synonym = true},
    {"container", "ps", &ps_command, .synonym = true},
    {"container", "pause", &pause_command},
    {"container", "prune", &container_prune_command},
    {"container", "rename", &rename_command},
    {"container", "restart", &restart_command},
    {"container", "rm", &rm_command},
    {"container", "remove", &rm_command, .synonym = true},
    {"container", "run", &run_command},
    {"container", "start", &start_command},
    {"container", "stats", &stats_command},
    {"container", "stop", &stop_command},
    {"container", "top", &top_command},
    {"container", "unpause", &unpause_command},
    {"container", "update", &update_command},
    {"container", "wait", &wait_command},
    {"image", "build", &build_command},
    {"image", "history", &history_command},
    {"image", "import", &import_command},
    {"image", "inspect", &image_inspect_command},
    {"image", "load", &load_command},
    {"image", "ls", &images_command},
    {"image", "list", &images_command, .synonym = true},
    {"image", "prune", &image_prune_command},
    {"image", "pull", &pull_command},
    {"image", "push", &push_command},
    {"image", "rm", &rmi_command},
    {"image", "remove", &rmi_command, .synonym = true},
    {"image", "save", &save_command},
    {"image", "tag", &tag_command},
    {"network", "connect", &network_connect_command},
    {"network", "create", &network_create_command},
    {"network", "disconnect", &network_disconnect_command},
    {"network", "inspect", &network_inspect_command},
    {"network", "ls", &network_ls_command},
    {"network", "list", &network_ls_command, .synonym = true},
    {"network", "prune", &network_prune_command},
    {"network", "rm", &network_rm_command},
    {"network", "remove", &network_rm_command, .synonym = true},
    {"rpc", "call", &rpc_call_command},
    {"rpc", "methods", &rpc_methods_command},
    {"rpc", "ping", &rpc_ping_command},
    {"rpc", "stats", &rpc_stats_command},
    {"rpc", "watch", &rpc_watch_command},
    {"system", "check", &system_check_command},
    {"system", "df", &system_df_command},
    {"system", "events", &events_command},
    {"system", "info", &info_command},
    {"system", "prune", &system_prune_command},
    {"system", "remove", &system_remove_command},
    {"usb", "attach", &usb_attach_command},
    {"usb", "check", &usb_check_command},
    {"usb", "detach", &usb_detach_command},
    {"usb", "eject", &usb_eject_command},
    {"usb", "format", &usb_format_command},
    {"usb", "inspect", &usb_inspect_command},
    {"usb", "ls", &usb_ls_command},
    {"usb", "list", &usb_ls_command, .synonym = true},
    {"usb", "policy", &usb_policy_command},
    {"usb", "stats", &usb_stats_command},
    {"volume", "create", &volume_create_command},
    {"volume", "inspect", &volume_inspect_command},
    {"volume", "ls", &volume_ls_command},
    {"volume", "list", &volume_ls_command, .synonym = true},
    {"volume", "prune", &volume_prune_command},
    {"volume", "rm", &volume_rm_command},
    {"volume", "remove", &volume_rm_command, .synonym = true},
    {.name = NULL},
};

const struct option_group global_options[] = {
    {
        .options =
            (const struct option[]){
                {
                    .name = "instance",
                    .kind = OPTION_TEXT,
                    .offset = offsetof(struct global_values, instance),
                    .argument = "string",
                    .help = "Name of the private engine to talk to (default: $CLOCHE_INSTANCE, "
                            "else the machine's own)",
                },
                {
                    .name = "host",
                    .short_name = 'H',
                    .kind = OPTION_TEXT,
                    .offset = offsetof(struct global_values, dial.host),
                    .argument = "string",
                    .help = "Daemon to talk to: unix:///PATH, tcp://HOST:PORT or tls://HOST:PORT",
                },
                {
                    .name = "tlscacert",
                    .kind = OPTION_TEXT,
                    .offset = offsetof(struct global_values, dial.ca),
                    .argument = "string",
                    .help = "Authority of the daemon's certificate (default: those of the system)",
                    .complete = COMPLETE_FILES,
                },
                {
                    .name = "tlscert",
                    .kind = OPTION_TEXT,
                    .offset = offsetof(struct global_values, dial.cert),
                    .argument = "string",
                    .help = "Certificate to show there",
                    .complete = COMPLETE_FILES,
                },
                {
                    .name = "tlskey",
                    .kind = OPTION_TEXT,
                    .offset = offsetof(struct global_values, dial.key),
                    .argument = "string",
                    .help = "Its key",
                    .complete = COMPLETE_FILES,
                },
                {
                    .name = "version",
                    .short_name = 'v',
                    .kind = OPTION_FLAG,
                    .offset = offsetof(struct global_values, version),
                    .help = "Print the version and end",
                },
                {.name = NULL},
            },
    },
    {.options = NULL},
};

const struct spelling *command_find(const char *group, const char *name)
{
    for (const struct spelling *spelling = spellings; spelling->command; spelling++) {
        if (text_equal(spelling->group, group) && text_equal(spelling->name, name))
            return spelling;
    }
    return NULL;
}

const struct command_group *command_group_find(const char *name)
{
    for (const struct command_group *group = command_groups; group->name; group++) {
        if (text_equal(group->name, name))
            return group;
    }
    return NULL;
}

/* Keeps the nearer of *best and known. */
static void consider(const char *typed, const char *known, const char **best)
{
    if (word_is_near(typed, known) &&
        (!*best || word_distance(typed, known) < word_distance(typed, *best)))
        *best = known;
}

const char *command_suggest(const char *group, const char *typed)
{
    const char *best = NULL;

    for (const struct spelling *spelling = spellings; spelling->command; spelling++) {
        if (text_equal(spelling->group, group) && !spelling->command->hidden)
            consider(typed, spelling->name, &best);
    }
    for (const struct command_group *known = command_groups; !group && known->name; known++)
        consider(typed, known->name, &best);
    return best;
}
