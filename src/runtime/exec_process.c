#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "exec_process.h"
#include "state.h"

static int parse_user(const char *text, struct oci_user *user, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(text, ':');
    uint64_t uid, gid = user->gid;

    if (strv_length(parts) < 1 || strv_length(parts) > 2 ||
        text_to_u64(parts[0], 0, UINT32_MAX, &uid) < 0 ||
        (parts[1] && text_to_u64(parts[1], 0, UINT32_MAX, &gid) < 0))
        return error_set(err, -EINVAL, "--user: '%s' is not a number or two (uid[:gid])", text);
    user->uid = (uint32_t)uid;
    user->gid = (uint32_t)gid;
    return 0;
}

/* --cap: bounding, effective and permitted, as runc has it since CVE-2022-29162 (not inheritable),
 * and ambient what the container's processes may inherit. */
static void add_capabilities(struct oci_process *process, char *const *names)
{
    if (!process->capabilities)
        process->capabilities = xnew(struct oci_capabilities);
    struct oci_capabilities *sets = process->capabilities;
    struct {
        char ***list;
        size_t *count;
    } targets[] = {{&sets->bounding, &sets->bounding_count},
                   {&sets->effective, &sets->effective_count},
                   {&sets->permitted, &sets->permitted_count}};

    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        for (char *const *name = names; *name; name++)
            strv_append(targets[i].list, *name);
        *targets[i].count = strv_length(*targets[i].list);
    }
    for (char *const *name = names; *name; name++) {
        if (strv_contains(sets->inheritable, *name))
            strv_append(&sets->ambient, *name);
    }
    sets->ambient_count = strv_length(sets->ambient);
}

static void add_groups(struct oci_user *user, const uint32_t *gids, size_t count)
{
    if (!count)
        return;
    size_t had = user->additional_gids_count;
    user->additional_gids =
        xrealloc(user->additional_gids, had + count, sizeof(*user->additional_gids));
    memcpy(user->additional_gids + had, gids, count * sizeof(*gids));
    user->additional_gids_count = had + count;
}

static void replace(char **field, const char *value)
{
    if (text_empty(value))
        return;
    free(*field);
    *field = xstrdup(value);
}

/* The container's own process with what the command line says instead. */
static int adapt(struct oci_process *process, const struct cloche_runtime_exec_options *options,
                 struct error *err)
{
    strv_free(process->args);
    process->args = strv_copy(options->args);
    process->args_count = strv_length(process->args);
    process->terminal = options->terminal;
    oci_box_free(process->console_size);
    process->console_size = NULL;
    replace(&process->cwd, options->cwd);
    replace(&process->apparmor_profile, options->apparmor_profile);
    replace(&process->selinux_label, options->selinux_label);
    for (char *const *item = options->environment; item && *item; item++)
        strv_append(&process->env, *item);
    process->env_count = strv_length(process->env);
    if (options->no_new_privileges)
        process->no_new_privileges = true;
    if (options->capabilities)
        add_capabilities(process, options->capabilities);
    if (!process->user)
        process->user = xnew(struct oci_user);
    add_groups(process->user, options->additional_gids, options->additional_gids_count);
    return text_empty(options->user) ? 0 : parse_user(options->user, process->user, err);
}

/* What the file does not say is what the container has, as with runc: all that confines a process
 * (but for noNewPrivileges, whose absence says "no"), and how it is scheduled. */
static void inherit(struct oci_process *process, struct oci_process *from)
{
    if (!process->capabilities)
        process->capabilities = steal_ptr(from->capabilities);
    if (!process->rlimits_count) {
        process->rlimits = steal_ptr(from->rlimits);
        process->rlimits_count = from->rlimits_count;
        from->rlimits_count = 0;
    }
    if (text_empty(process->apparmor_profile))
        process->apparmor_profile = steal_ptr(from->apparmor_profile);
    if (text_empty(process->selinux_label))
        process->selinux_label = steal_ptr(from->selinux_label);
    if (!process->scheduler)
        process->scheduler = steal_ptr(from->scheduler);
    if (!process->io_priority)
        process->io_priority = steal_ptr(from->io_priority);
    if (!process->exec_cpu_affinity)
        process->exec_cpu_affinity = steal_ptr(from->exec_cpu_affinity);
    if (!process->has_oom_score_adj) {
        process->oom_score_adj = from->oom_score_adj;
        process->has_oom_score_adj = from->has_oom_score_adj;
    }
    if (!process->user)
        process->user = xnew(struct oci_user);
    if (!process->user->has_umask && from->user) {
        process->user->umask = from->user->umask;
        process->user->has_umask = from->user->has_umask;
    }
}

int exec_process_read(const struct cloche_runtime_exec_options *options, struct oci_config *config,
                      struct oci_process **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;

    if (!options->process_file && !config->process)
        return error_set(err, -EINVAL,
                         "the container has no process of its own to go by: --process FILE gives "
                         "one");
    if (!options->process_file) {
        *ret = steal_ptr(config->process);
        return adapt(*ret, options, err);
    }
    int r = file_read_at(AT_FDCWD, options->process_file, CONFIG_FILE_MAX, &text, &length, err);
    if (r == 0)
        r = oci_process_parse(text, length, options->process_file, ret, err);
    if (r < 0)
        return r;
    if (options->terminal)
        (*ret)->terminal = true;
    if (config->process)
        inherit(*ret, config->process);
    return 0;
}
