/*
 * One instruction: what it changes in its stage's configuration, and docker's words for the
 * history (builder/dockerfile/dispatchers.go of moby).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <schema/image_set.h>

#include "planner.h"

struct making {
    struct planner *planner;
    struct stage *stage;
    const struct instruction *instruction;
    struct words_rules rules;
    struct oci_image_execution *config; /* the stage's */
    struct build_step *step;
};

static char **shell_of(const struct stage *stage)
{
    char **shell = NULL;

    if (stage->config->shell_count)
        return strv_copy(stage->config->shell);
    strv_append(&shell, "/bin/sh");
    strv_append(&shell, "-c");
    return shell;
}

char *step_comment(const struct stage *stage, const char *format, ...)
{
    _cleanup_strv_ char **shell = shell_of(stage);
    _cleanup_free_ char *words = strv_join(shell, " ");
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *text = xvasprintf(format, args);
    va_end(args);
    return xasprintf("%s #(nop) %s", words, text);
}

/* Docker's comment is a word of its own here: two blanks. */
static void set_comment(struct making *making, const char *format, ...) _printf_(2, 3);
static void set_comment(struct making *making, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *text = xvasprintf(format, args);
    va_end(args);
    free(making->step->created_by);
    making->step->created_by = step_comment(making->stage, " %s", text);
}

static int no_flags(const struct making *making, struct error *err)
{
    return instruction_check_flags(making->instruction, (const char *const[]){NULL}, err);
}

static int exactly_one(const struct making *making, struct error *err)
{
    if (strv_length(making->instruction->arguments) == 1)
        return 0;
    return error_set(err, -EINVAL, "%s requires exactly one argument", making->instruction->name);
}

static int at_least_one(const struct making *making, struct error *err)
{
    if (strv_length(making->instruction->arguments) >= 1)
        return 0;
    return error_set(err, -EINVAL, "%s requires at least one argument", making->instruction->name);
}

/* The one argument with its variables replaced. */
static int expand_one(struct making *making, char **ret, struct error *err)
{
    int r = exactly_one(making, err);

    return r < 0 ? r : words_expand(making->instruction->arguments[0], &making->rules, ret, err);
}

/* The arguments as a command: JSON as it is, a text behind the shell. */
static char **command_of(const struct making *making)
{
    if (making->instruction->json)
        return strv_copy(making->instruction->arguments);
    char **command = shell_of(making->stage);
    strv_append(&command, making->instruction->rest);
    return command;
}

/* --- ENV, LABEL, ARG, MAINTAINER -------------------------------------------------------------- */

static void set_env(struct oci_image_execution *config, const char *name, const char *value)
{
    char *variable = xasprintf("%s=%s", name, value);
    size_t length = strlen(name) + 1;

    for (size_t i = 0; i < config->env_count; i++) {
        if (strncmp(config->env[i], variable, length) == 0) {
            free(config->env[i]);
            config->env[i] = variable;
            return;
        }
    }
    strv_take(&config->env, variable);
    config->env_count++;
}

/* Names and values, each with its variables replaced by what they were before the line. */
static int make_pairs(struct making *making, struct error *err)
{
    const struct instruction *instruction = making->instruction;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = no_flags(making, err);

    if (r == 0)
        r = at_least_one(making, err);
    buffer_append_text(&text, instruction->name);
    for (char **at = instruction->arguments; r == 0 && at && *at; at += 2) {
        _cleanup_free_ char *name = NULL, *value = NULL;
        r = words_expand(at[0], &making->rules, &name, err);
        if (r == 0)
            r = words_expand(at[1], &making->rules, &value, err);
        if (r < 0)
            break;
        if (!name[0])
            return error_set(err, -EINVAL, "%s names can not be blank", instruction->name);
        buffer_printf(&text, " %s=%s", name, value);
        if (instruction->word == WORD_ENV)
            set_env(making->config, name, value);
        else
            json_string_map_set(&making->config->labels, name, value);
    }
    set_comment(making, "%s", buffer_text(&text));
    return r;
}

static int make_arg(struct making *making, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = no_flags(making, err);

    if (r == 0)
        r = at_least_one(making, err);
    buffer_append_text(&text, "ARG");
    for (char **at = making->instruction->arguments; r == 0 && at && *at; at++) {
        char *equals = strchr(*at, '=');
        _cleanup_free_ char *name = equals ? xstrndup(*at, (size_t)(equals - *at)) : xstrdup(*at);
        _cleanup_free_ char *value = NULL;
        if (!name[0])
            return error_set(err, -EINVAL, "ARG names can not be blank");
        if (equals)
            r = words_expand(equals + 1, &making->rules, &value, err);
        if (r < 0)
            break;
        arguments_set(&making->stage->declared, name, value);
        strv_append(&making->planner->used, name);
        buffer_printf(&text, " %s%s%s", name, value ? "=" : "", value ? value : "");
    }
    set_comment(making, "%s", buffer_text(&text));
    return r;
}

static int make_maintainer(struct making *making, struct error *err)
{
    int r = no_flags(making, err);

    if (r == 0)
        r = exactly_one(making, err);
    if (r == 0) {
        set_text(&making->step->author, making->instruction->arguments[0]);
        set_comment(making, "MAINTAINER %s", making->instruction->arguments[0]);
    }
    return r;
}

/* --- CMD, ENTRYPOINT, SHELL, HEALTHCHECK ------------------------------------------------------ */

static int make_command(struct making *making, struct error *err)
{
    struct oci_image_execution *config = making->config;
    bool is_command = making->instruction->word == WORD_CMD;
    int r = no_flags(making, err);

    if (r < 0)
        return r;
    char **command =
        making->instruction->json || making->instruction->rest[0] ? command_of(making) : NULL;
    _cleanup_free_ char *quoted = list_quoted(command);
    if (is_command) {
        set_list(&config->cmd, &config->cmd_count, command);
        making->stage->has_command = making->stage->has_command || command;
    } else {
        set_list(&config->entrypoint, &config->entrypoint_count, command);
        if (!making->stage->has_command) {
            strv_free(config->cmd);
            config->cmd = NULL;
            config->cmd_count = 0;
        }
    }
    set_comment(making, "%s %s", making->instruction->name, quoted);
    return 0;
}

static int make_shell(struct making *making, struct error *err)
{
    const struct instruction *instruction = making->instruction;
    int r = no_flags(making, err);

    if (r == 0)
        r = at_least_one(making, err);
    if (r == 0 && !instruction->json)
        r = error_set(err, -EINVAL, "SHELL requires the arguments to be in JSON form");
    if (r < 0)
        return r;
    set_list(&making->config->shell, &making->config->shell_count,
             strv_copy(instruction->arguments));
    _cleanup_free_ char *words = strv_join(instruction->arguments, " ");
    set_comment(making, "SHELL [%s]", words);
    return 0;
}

static int take_duration(const struct making *making, const char *flag, const char *name,
                         int64_t *ret, struct error *err)
{
    const char *text = instruction_flag(making->instruction, flag);
    int r = text_empty(text) ? 0 : duration_parse(text, ret, err);

    if (r == 0 && *ret < 0)
        return error_set(err, -EINVAL, "%s \"%s\" must be positive", name, text);
    if (r == 0 && *ret && *ret < 1000000)
        return error_set(err, -EINVAL, "%s \"%s\" cannot be less than 1ms", name, text);
    return r;
}

static int take_probe_flags(const struct making *making, struct oci_image_healthcheck *check,
                            struct error *err)
{
    const char *text = instruction_flag(making->instruction, "retries");
    int r = take_duration(making, "interval", "Interval", &check->interval, err);

    if (r == 0)
        r = take_duration(making, "timeout", "Timeout", &check->timeout, err);
    if (r == 0)
        r = take_duration(making, "start-period", "Start period", &check->start_period, err);
    if (r == 0)
        r = take_duration(making, "start-interval", "Start interval", &check->start_interval, err);
    if (r == 0 && !text_empty(text) && text_to_i64(text, INT32_MIN, INT32_MAX, &check->retries) < 0)
        return error_set(err, -EINVAL, "strconv.ParseInt: parsing \"%.32s\": invalid syntax", text);
    if (r == 0 && !text_empty(text) && check->retries < 1)
        return error_set(err, -EINVAL, "--retries must be at least 1 (not %lld)",
                         (long long)check->retries);
    check->has_interval = check->interval != 0;
    check->has_timeout = check->timeout != 0;
    check->has_start_period = check->start_period != 0;
    check->has_start_interval = check->start_interval != 0;
    check->has_retries = check->retries != 0;
    return r;
}

/* What stands behind the CMD of a probe, read as an instruction of its own. */
static int take_probe(struct making *making, struct oci_image_healthcheck *check, struct error *err)
{
    struct line line = {.text = making->instruction->rest};
    struct instruction command;
    char **test = NULL;
    int r = instruction_parse(&line, making->rules.escape, &command, err);

    if (r == 0 && !command.arguments)
        r = error_set(err, -EINVAL, "Missing command after HEALTHCHECK CMD");
    if (r == 0) {
        strv_append(&test, command.json ? "CMD" : "CMD-SHELL");
        for (char **at = command.arguments; *at; at++)
            strv_append(&test, *at);
        set_list(&check->test, &check->test_count, test);
    }
    instruction_finish(&command);
    return r;
}

static void comment_healthcheck(struct making *making, const struct oci_image_healthcheck *check)
{
    _cleanup_free_ char *test = list_quoted(check->test);
    _cleanup_free_ char *interval = duration_text(check->interval);
    _cleanup_free_ char *timeout = duration_text(check->timeout);
    _cleanup_free_ char *start = duration_text(check->start_period);

    set_comment(making, "HEALTHCHECK &{%s \"%s\" \"%s\" \"%s\" '\\x%02x'}", test, interval, timeout,
                start, (unsigned)check->retries & 0xff);
}

/* A part that is not named stays what it was. */
static void keep_number(int64_t *number, bool *has, int64_t before)
{
    if (!*number)
        *number = before;
    *has = *number != 0;
}

static void keep_parts(struct oci_image_healthcheck *check,
                       const struct oci_image_healthcheck *before)
{
    if (!before)
        return;
    keep_number(&check->interval, &check->has_interval, before->interval);
    keep_number(&check->timeout, &check->has_timeout, before->timeout);
    keep_number(&check->start_period, &check->has_start_period, before->start_period);
    keep_number(&check->start_interval, &check->has_start_interval, before->start_interval);
    keep_number(&check->retries, &check->has_retries, before->retries);
}

static int make_healthcheck(struct making *making, struct error *err)
{
    static const char *const flags[] = {"interval",       "timeout", "start-period",
                                        "start-interval", "retries", NULL};
    const char *rest = making->instruction->rest;
    struct oci_image_healthcheck *check = xnew(struct oci_image_healthcheck);
    size_t length = strcspn(rest, " \t\v\f\r\n");
    int r = instruction_check_flags(making->instruction, flags, err);

    _cleanup_oci_image_healthcheck_ struct oci_image_healthcheck *before =
        making->config->healthcheck;
    making->config->healthcheck = check;
    making->config->null_healthcheck = false;
    if (r < 0)
        return r;
    if (length == 4 && strncasecmp(rest, "NONE", 4) == 0) {
        char **test = NULL;
        if (rest[4])
            return error_set(err, -EINVAL, "HEALTHCHECK NONE takes no arguments");
        strv_append(&test, "NONE");
        set_list(&check->test, &check->test_count, test);
    } else if (length == 3 && strncasecmp(rest, "CMD", 3) == 0) {
        r = take_probe_flags(making, check, err);
        if (r == 0)
            r = take_probe(making, check, err);
    } else if (!length) {
        return error_set(err, -EINVAL, "HEALTHCHECK requires at least one argument");
    } else {
        return error_set(err, -EINVAL, "Unknown type \"%.*s\" in HEALTHCHECK (try CMD)",
                         (int)length, rest);
    }
    if (r == 0) {
        comment_healthcheck(making, check);
        keep_parts(check, before);
    }
    return r;
}

/* --- EXPOSE, VOLUME, USER, WORKDIR, STOPSIGNAL ------------------------------------------------ */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int make_expose(struct making *making, struct error *err)
{
    char *const *arguments = making->instruction->arguments;
    _cleanup_strv_ char **sorted = NULL;
    int r = no_flags(making, err);

    if (r == 0)
        r = at_least_one(making, err);
    for (size_t i = 0; r == 0 && arguments[i]; i++) {
        _cleanup_strv_ char **ports = NULL;
        r = words_split(arguments[i], &making->rules, &ports, err);
        for (size_t p = 0; r == 0 && ports && ports[p]; p++) {
            r = ports_add(&making->config->exposed_ports, ports[p], err);
            strv_append(&sorted, ports[p]);
        }
    }
    if (sorted)
        qsort(sorted, strv_length(sorted), sizeof(char *), compare_texts);
    _cleanup_free_ char *words = strv_join(sorted, " ");
    set_comment(making, "EXPOSE %s", words ? words : "");
    return r;
}

static int make_volume(struct making *making, struct error *err)
{
    char *const *arguments = making->instruction->arguments;
    _cleanup_strv_ char **volumes = NULL;
    int r = no_flags(making, err);

    if (r == 0)
        r = at_least_one(making, err);
    for (size_t i = 0; r == 0 && arguments[i]; i++) {
        char *volume = NULL;
        r = words_expand(arguments[i], &making->rules, &volume, err);
        if (r < 0)
            break;
        strv_take(&volumes, volume);
        if (!volume[strspn(volume, " \t")])
            return error_set(err, -EINVAL, "VOLUME specified can not be an empty string");
        oci_image_set_add(&making->config->volumes, volume);
    }
    _cleanup_free_ char *words = strv_join(volumes, " ");
    set_comment(making, "VOLUME [%s]", words ? words : "");
    return r;
}

static int make_user(struct making *making, struct error *err)
{
    _cleanup_free_ char *user = NULL;
    int r = no_flags(making, err);

    if (r == 0)
        r = expand_one(making, &user, err);
    if (r == 0) {
        set_text(&making->config->user, user);
        set_comment(making, "USER %s", user);
    }
    return r;
}

static int make_workdir(struct making *making, struct error *err)
{
    struct oci_image_execution *config = making->config;
    _cleanup_free_ char *path = NULL, *joined = NULL;
    int r = no_flags(making, err);

    if (r == 0)
        r = expand_one(making, &path, err);
    if (r < 0)
        return r;
    if (!path[0])
        return error_set(err, -EINVAL, "cannot normalize nothing");
    joined = path[0] == '/' || text_empty(config->working_dir)
                 ? xasprintf("/%s", path)
                 : xasprintf("%s/%s", config->working_dir, path);
    free(config->working_dir);
    config->working_dir = path_absolute(joined);
    making->step->folder = xstrdup(config->working_dir);
    free(making->step->created_by);
    making->step->created_by = step_comment(making->stage, "WORKDIR %s", config->working_dir);
    return 0;
}

static int make_stopsignal(struct making *making, struct error *err)
{
    _cleanup_free_ char *name = NULL;
    int r = no_flags(making, err);

    if (r == 0)
        r = expand_one(making, &name, err);
    if (r == 0)
        r = signal_check(name, err);
    if (r == 0) {
        set_text(&making->config->stop_signal, name);
        set_comment(making, "STOPSIGNAL %s", name);
    }
    return r;
}

/* --- ONBUILD ---------------------------------------------------------------------------------- */

/* What the trigger is read from later: with its heredocs behind it. Owned. */
static char *trigger_text(const struct instruction *instruction)
{
    struct buffer text = BUFFER_INIT;

    buffer_append_text(&text, instruction->rest);
    for (size_t i = 0; i < instruction->heredocs_count; i++)
        buffer_printf(&text, "\n%s%s", instruction->heredocs[i].content,
                      instruction->heredocs[i].name);
    return buffer_steal(&text);
}

static int make_onbuild(struct making *making, struct error *err)
{
    static const char *const refused[] = {"FROM", "MAINTAINER"};
    const char *trigger = making->instruction->rest;
    size_t length = strcspn(trigger, " \t\v\f\r\n");
    int r = no_flags(making, err);

    if (r < 0)
        return r;
    if (!length)
        return error_set(err, -EINVAL, "ONBUILD requires at least one argument");
    if (length == 7 && strncasecmp(trigger, "ONBUILD", 7) == 0)
        return error_set(err, -EINVAL, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (strlen(refused[i]) == length && strncasecmp(trigger, refused[i], length) == 0)
            return error_set(err, -EINVAL, "%s isn't allowed as an ONBUILD trigger", refused[i]);
    }
    struct line line = {.text = (char *)trigger};
    struct instruction instruction;
    r = instruction_parse(&line, making->rules.escape, &instruction, err);
    instruction_finish(&instruction);
    if (r < 0)
        return r;
    strv_take(&making->config->on_build, trigger_text(making->instruction));
    making->config->on_build_count++;
    set_comment(making, "ONBUILD %s", trigger);
    return 0;
}

/* --- RUN -------------------------------------------------------------------------------------- */

/* A heredoc alone is the shell's script, or a file that is executed where it begins with #!; with
 * words beside it the shell reads it. */
static void take_heredocs(struct making *making, struct build_run *run)
{
    const struct instruction *instruction = making->instruction;
    const struct heredoc *first = &instruction->heredocs[0];
    struct heredoc mark = {0};
    bool strip;
    char **command = shell_of(making->stage);
    bool alone = heredoc_parse(instruction->rest, &mark, &strip);

    heredoc_finish(&mark);
    if (alone && text_starts_with(first->content, "#!")) {
        run->script = xnew(struct build_file);
        run->script->name = xstrdup(first->name);
        run->script->content = xstrdup(first->content);
        strv_free(command);
        command = NULL;
        strv_take(&command, xasprintf("/dev/pipes/%s", first->name));
    } else if (alone) {
        strv_append(&command, first->content);
    } else {
        struct buffer text = BUFFER_INIT;
        buffer_append_text(&text, instruction->rest);
        for (size_t i = 0; i < instruction->heredocs_count; i++)
            buffer_printf(&text, "\n%s%s", instruction->heredocs[i].content,
                          instruction->heredocs[i].name);
        strv_take(&command, buffer_steal(&text));
    }
    set_list(&run->arguments, &run->arguments_count, command);
}

/* The build arguments show in front of the command: |2 A=b C=d /bin/sh -c ... Hidden ones are not
 * counted, but that there are arguments shows. */
static void comment_run(struct making *making, const struct build_run *run)
{
    struct buffer text = BUFFER_INIT;

    if (run->env_count || run->hidden_count)
        buffer_printf(&text, "|%zu ", run->env_count);
    for (size_t i = 0; i < run->env_count; i++)
        buffer_printf(&text, "%s ", run->env[i]);
    for (size_t i = 0; i < run->arguments_count; i++)
        buffer_printf(&text, "%s%s", i ? " " : "", run->arguments[i]);
    making->step->created_by = buffer_steal(&text);
}

static int make_run(struct making *making, struct error *err)
{
    static const char *const known[] = {"network", NULL};
    const struct instruction *instruction = making->instruction;
    const char *network = instruction_flag(instruction, "network");
    struct build_run *run = making->step->run = xnew(struct build_run);
    char **shown = NULL, **hidden = NULL;

    if (instruction_flag(instruction, "mount"))
        return error_set(err, -EOPNOTSUPP, "the --mount option requires BuildKit");
    int r = instruction_check_flags(instruction, known, err);
    if (r == 0)
        r = at_least_one(making, err);
    if (r < 0)
        return r;
    if (network && !text_equal(network, "default") && !text_equal(network, "none") &&
        !text_equal(network, "host"))
        return error_set(err, -EINVAL, "invalid network mode: \"%.64s\"", network);
    run->network = network && !text_equal(network, "default") ? xstrdup(network) : NULL;
    planner_run_arguments(making->planner, making->stage, &shown, &hidden);
    set_list(&run->env, &run->env_count, shown);
    set_list(&run->hidden, &run->hidden_count, hidden);
    if (instruction->heredocs_count && !instruction->json)
        take_heredocs(making, run);
    else
        set_list(&run->arguments, &run->arguments_count, command_of(making));
    comment_run(making, run);
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int make_copy(struct making *making, struct error *err)
{
    return step_copy(making->planner, making->stage, making->instruction, &making->rules,
                     making->step, err);
}

static int make_from(struct making *making, struct error *err)
{
    return error_set(err, -EINVAL, "FROM isn't allowed here");
}

static int (*const makers[WORD_COUNT])(struct making *making, struct error *err) = {
    [WORD_ADD] = make_copy,
    [WORD_ARG] = make_arg,
    [WORD_CMD] = make_command,
    [WORD_COPY] = make_copy,
    [WORD_ENTRYPOINT] = make_command,
    [WORD_ENV] = make_pairs,
    [WORD_EXPOSE] = make_expose,
    [WORD_FROM] = make_from,
    [WORD_HEALTHCHECK] = make_healthcheck,
    [WORD_LABEL] = make_pairs,
    [WORD_MAINTAINER] = make_maintainer,
    [WORD_ONBUILD] = make_onbuild,
    [WORD_RUN] = make_run,
    [WORD_SHELL] = make_shell,
    [WORD_STOPSIGNAL] = make_stopsignal,
    [WORD_USER] = make_user,
    [WORD_VOLUME] = make_volume,
    [WORD_WORKDIR] = make_workdir,
};

int step_make(struct planner *planner, struct stage *stage, const struct instruction *instruction,
              struct build_step **ret, struct error *err)
{
    _cleanup_strv_ char **env = planner_environment(planner, stage);
    size_t total = 0; /* one value may be large, but not a thousand of them in one line */
    struct making making = {
        .planner = planner,
        .stage = stage,
        .instruction = instruction,
        .rules = {.env = env, .escape = planner->lines.escape, .total = &total},
        .config = stage->config,
        .step = xnew(struct build_step),
    };
    int r = makers[instruction->word](&making, err);

    if (r == 0) {
        making.step->text = xstrdup(instruction->text);
        making.step->config = config_copy(stage->config);
        *ret = making.step;
    } else {
        build_step_free(making.step);
    }
    return r;
}
