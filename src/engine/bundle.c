#include <ctype.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "bundle_internal.h"
#include "seccomp.h"
#include "seccomp_profile.h"
#include "spec.h"

#define OCI_VERSION "1.0.2"

/* --- process ---------------------------------------------------------------------------------- */

static void put_user(struct json_writer *writer, const struct user *user)
{
    begin_object(writer, "user");
    put_integer(writer, "uid", user->uid);
    put_integer(writer, "gid", user->gid);
    begin_array(writer, "additionalGids");
    for (size_t i = 0; i < user->additional_gids_count; i++)
        json_writer_integer(writer, user->additional_gids[i]);
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}

/* A user other than root starts without capabilities, as after an execve(2) of that user. */
static void put_capabilities(struct json_writer *writer, bool root, char *const *list)
{
    begin_object(writer, "capabilities");
    put_strv(writer, "bounding", list);
    if (root) {
        put_strv(writer, "effective", list);
        put_strv(writer, "permitted", list);
    }
    json_writer_object_end(writer);
}

static void put_ulimits(struct json_writer *writer, const struct api_container_spec *spec)
{
    begin_array(writer, "rlimits");
    for (size_t i = 0; i < spec->ulimits_count; i++) {
        const struct api_ulimit *limit = spec->ulimits[i];
        char type[ULIMIT_NAME_MAX + sizeof("RLIMIT_")] = "RLIMIT_";
        for (size_t j = 0; j < ULIMIT_NAME_MAX && limit->name[j]; j++)
            type[strlen("RLIMIT_") + j] = (char)toupper((unsigned char)limit->name[j]);
        json_writer_object_begin(writer);
        put_string(writer, "type", type);
        /* -1 is RLIM_INFINITY, which is the largest number here. */
        json_writer_key(writer, "soft");
        json_writer_unsigned(writer, (uint64_t)limit->soft);
        json_writer_key(writer, "hard");
        json_writer_unsigned(writer, (uint64_t)(limit->has_hard ? limit->hard : limit->soft));
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

struct process_facts {
    char **arguments;
    char **environment;
    const char *directory;
    const struct user *user;
    char *const *capabilities;
    const struct api_container_spec *spec;
    const struct security_options *security;
    const char *apparmor; /* of the machine */
    bool terminal;
    uint16_t rows, columns;
};

static void write_process(struct json_writer *writer, const struct process_facts *process)
{
    json_writer_object_begin(writer);
    put_boolean(writer, "terminal", process->terminal);
    if (process->terminal && process->rows && process->columns) {
        begin_object(writer, "consoleSize");
        put_integer(writer, "height", process->rows);
        put_integer(writer, "width", process->columns);
        json_writer_object_end(writer);
    }
    put_user(writer, process->user);
    put_strv(writer, "args", process->arguments);
    put_strv(writer, "env", process->environment);
    put_string(writer, "cwd", process->directory);
    put_capabilities(writer, process->user->uid == 0, process->capabilities);
    if (process->spec->ulimits_count)
        put_ulimits(writer, process->spec);
    if (process->security->no_new_privileges)
        put_boolean(writer, "noNewPrivileges", true);
    const char *profile = security_profile(process->spec, process->security, process->apparmor);
    if (profile)
        put_string(writer, "apparmorProfile", profile);
    if (process->spec->oom_score_adj)
        put_integer(writer, "oomScoreAdj", process->spec->oom_score_adj);
    json_writer_object_end(writer);
}

void bundle_write_process(const struct api_container_spec *effective,
                          const struct bundle_exec *exec, struct buffer *out)
{
    _cleanup_strv_ char **base = spec_environment(effective, exec->linked, exec->user->home);
    _cleanup_strv_ char **environment = environment_merge(base, exec->env);
    _cleanup_strv_ char **arguments = strv_copy(exec->command);
    _cleanup_strv_ char **capabilities =
        exec->privileged ? security_all_capabilities() : security_capabilities(effective);
    struct security_options security;
    struct process_facts process = {
        .arguments = arguments,
        .environment = environment,
        .directory = text_empty(exec->working_dir) ? effective->working_dir : exec->working_dir,
        .user = exec->user,
        .capabilities = capabilities,
        .spec = effective,
        .security = &security,
        .apparmor = exec->apparmor,
        .terminal = exec->tty,
        .rows = exec->rows,
        .columns = exec->columns,
    };
    struct json_writer writer;

    /* It was read when the container was made. */
    security_options_read(effective, &security, NULL);
    if (exec->tty && !effective->tty) {
        /* The container's own environment was made for no terminal. */
        char **with_terminal = NULL;
        strv_append(&with_terminal, "TERM=xterm");
        char **merged = environment_merge(with_terminal, environment);
        strv_free(with_terminal);
        strv_free(environment);
        environment = process.environment = merged;
    }
    json_writer_init(&writer, out, JSON_COMPACT);
    write_process(&writer, &process);
}

static char **all_arguments(const struct bundle_facts *facts)
{
    char **own = spec_arguments(facts->effective), **all = NULL;

    if (!facts->init)
        return own;
    strv_append(&all, bundle_init_path(facts->effective));
    strv_append(&all, "--");
    for (size_t i = 0; own && own[i]; i++)
        strv_append(&all, own[i]);
    strv_free(own);
    return all;
}

static void put_process(struct json_writer *writer, const struct bundle_context *context)
{
    const struct bundle_facts *facts = context->facts;
    _cleanup_strv_ char **arguments = all_arguments(facts);
    _cleanup_strv_ char **environment =
        spec_environment(facts->effective, facts->linked, facts->user->home);
    struct process_facts process = {
        .arguments = arguments,
        .environment = environment,
        .directory = facts->effective->working_dir,
        .user = facts->user,
        .capabilities = context->capabilities,
        .spec = facts->effective,
        .security = &context->security,
        .apparmor = facts->apparmor,
        .terminal = facts->effective->tty,
        .rows = facts->effective->rows,
        .columns = facts->effective->columns,
    };

    json_writer_key(writer, "process");
    write_process(writer, &process);
}

/* --- all of it -------------------------------------------------------------------------------- */

static void put_annotations(struct json_writer *writer, const struct json_string_map *annotations)
{
    if (!annotations || annotations->count == 0)
        return;
    begin_object(writer, "annotations");
    for (size_t i = 0; i < annotations->count; i++)
        put_string(writer, annotations->keys[i], annotations->values[i]);
    json_writer_object_end(writer);
}

static void put_names(struct json_writer *writer, const struct bundle_facts *facts)
{
    if (facts->uts.kind == BUNDLE_HOST)
        return;
    put_string(writer, "hostname", facts->effective->hostname);
    if (!text_empty(facts->effective->domainname))
        put_string(writer, "domainname", facts->effective->domainname);
}

static int resolve_seccomp(const struct bundle_context *context, struct buffer *out,
                           struct error *err)
{
    const char *profile = context->security.seccomp;

    if (context->security.seccomp_unconfined)
        return 0;
    if (!profile && security_capabilities_are_default(context->facts->effective))
        return 0;
    return seccomp_resolve(profile ? profile : seccomp_default_source, context->capabilities, out,
                           err);
}

int bundle_write_config(const struct bundle_facts *facts, struct buffer *out, struct error *err)
{
    _cleanup_strv_ char **capabilities = security_capabilities(facts->effective);
    _cleanup_buffer_ struct buffer seccomp = BUFFER_INIT;
    struct bundle_context context = {
        .facts = facts, .capabilities = capabilities, .seccomp = &seccomp};
    struct json_writer writer;

    int r = security_options_read(facts->effective, &context.security, err);
    if (r == 0)
        r = resolve_seccomp(&context, &seccomp, err);
    if (r < 0)
        return r;
    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    put_string(&writer, "ociVersion", OCI_VERSION);
    put_process(&writer, &context);
    begin_object(&writer, "root");
    put_string(&writer, "path", facts->rootfs);
    put_boolean(&writer, "readonly", facts->effective->read_only_root);
    json_writer_object_end(&writer);
    put_names(&writer, facts);
    put_annotations(&writer, facts->effective->annotations);
    bundle_put_mounts(&writer, &context);
    bundle_put_linux(&writer, &context);
    json_writer_object_end(&writer);
    return 0;
}
