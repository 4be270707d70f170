/*
 * The whole Dockerfile: text -> instructions -> stages -> steps. ARG in front of the first FROM and
 * FROM itself are read here, everything else in step.c.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <dockerfile/limits.h>
#include <dockerfile/plan.h>

#include "planner.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int wrong_line(struct error *err, unsigned number)
{
    return number ? error_context(err, "dockerfile parse error line %u", number)
           : err  ? err->code
                  : 0;
}

struct oci_image_execution *config_copy(const struct oci_image_execution *config)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct oci_image_execution *copy = NULL;

    if (config)
        oci_image_execution_write(config, &text);
    if (!config || oci_image_execution_parse(text.data, text.length, NULL, &copy, NULL) < 0)
        return xnew(struct oci_image_execution);
    return copy;
}

int planner_find_stage(const struct planner *planner, const char *name, size_t before)
{
    uint64_t number;

    for (size_t i = 0; i < before; i++) {
        const char *own = planner->stages[i].plan->name;
        if (own && strcasecmp(own, name) == 0)
            return (int)i;
    }
    if (text_to_u64(name, 0, INT32_MAX, &number) == 0 && number < before)
        return (int)number;
    return -1;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int read_instructions(struct planner *planner, const char *text, size_t length,
                             struct error *err)
{
    int r = lines_read(text, length, &planner->lines, err);

    planner->instructions = xnew_array(struct instruction, planner->lines.count + 1);
    for (size_t i = 0; r == 0 && i < planner->lines.count; i++) {
        const struct line *line = &planner->lines.items[i];
        r = instruction_parse(line, planner->lines.escape,
                              &planner->instructions[planner->instructions_count++], err);
        if (r < 0)
            wrong_line(err, line->number);
    }
    if (r == 0 && planner->lines.count == 0)
        r = error_set(err, -EINVAL, "file with no instructions");
    return r;
}

/* What docker's BuildKit knows besides: an ARG of these names has a value by itself. */
static void set_platform(struct planner *planner)
{
    const char *platform = planner->options->platform;
    const char *slash = platform ? strchr(platform, '/') : NULL;

    if (!slash)
        return;
    _cleanup_free_ char *os = xstrndup(platform, (size_t)(slash - platform));
    _cleanup_free_ char *architecture = xstrdup(slash + 1);
    char *variant = strchr(architecture, '/');
    if (variant)
        *variant++ = '\0';
    for (int build = 0; build < 2; build++) {
        const char *const values[][2] = {
            {"PLATFORM", platform},
            {"OS", os},
            {"ARCH", architecture},
            {"VARIANT", variant ? variant : ""},
        };
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
            _cleanup_free_ char *name = xasprintf("%s%s", build ? "BUILD" : "TARGET", values[i][0]);
            arguments_set(&planner->global, name, values[i][1]);
        }
    }
}

static void take_given(struct planner *planner)
{
    const struct build_options *options = planner->options;

    for (size_t i = 0; i < options->arguments_count; i++) {
        const char *equals = strchr(options->arguments[i], '=');
        if (!equals)
            continue;
        _cleanup_free_ char *name =
            xstrndup(options->arguments[i], (size_t)(equals - options->arguments[i]));
        arguments_set(&planner->given, name, equals + 1);
    }
}

static char **global_environment(const struct planner *planner)
{
    const struct arguments none = {0};
    char **list = NULL;

    for (size_t i = 0; i < planner->global.count; i++) {
        const char *name = planner->global.items[i].name;
        const char *value = planner_argument(planner, &none, name);
        if (value)
            strv_take(&list, xasprintf("%s=%s", name, value));
    }
    return list;
}

static void add_heading(struct planner *planner, const struct instruction *instruction)
{
    struct build_plan *plan = planner->plan;

    strv_append(&plan->heading, instruction->text);
    plan->heading_count++;
    planner->number++;
}

static int read_global_arg(struct planner *planner, const struct instruction *instruction,
                           struct error *err)
{
    int r =
        instruction->arguments ? 0 : error_set(err, -EINVAL, "ARG requires at least one argument");

    for (char **at = instruction->arguments; r == 0 && at && *at; at++) {
        _cleanup_strv_ char **env = global_environment(planner);
        const struct words_rules rules = {.env = env, .escape = planner->lines.escape};
        char *equals = strchr(*at, '=');
        _cleanup_free_ char *name = equals ? xstrndup(*at, (size_t)(equals - *at)) : xstrdup(*at);
        _cleanup_free_ char *value = NULL;
        if (!name[0])
            return error_set(err, -EINVAL, "ARG names can not be blank");
        if (equals)
            r = words_expand(equals + 1, &rules, &value, err);
        if (r == 0 && (value || !arguments_find(&planner->global, name)))
            arguments_set(&planner->global, name, value);
        strv_append(&planner->used, name);
    }
    add_heading(planner, instruction);
    return r;
}

/* --- FROM ------------------------------------------------------------------------------------- */

static int check_stage_name(const char *name, struct error *err)
{
    bool good = isalpha((unsigned char)name[0]);

    for (const char *at = name; *at && good; at++)
        good = isalnum((unsigned char)*at) || strchr("-_.", *at);
    return good ? 0
                : error_set(err, -EINVAL,
                            "invalid name for build stage: \"%.64s\", name can't start with a "
                            "number or contain symbols",
                            name);
}

static int check_name_is_free(const struct planner *planner, const char *name, struct error *err)
{
    for (size_t i = 0; i < planner->stages_count; i++) {
        const char *own = planner->stages[i].plan->name;
        if (own && strcasecmp(own, name) == 0)
            return error_set(err, -EINVAL, "%.128s stage name already used", name);
    }
    return 0;
}

static struct stage *add_stage(struct planner *planner)
{
    struct build_plan *plan = planner->plan;

    planner->stages =
        xrealloc(planner->stages, planner->stages_count + 1, sizeof(*planner->stages));
    plan->stages = xrealloc(plan->stages, plan->stages_count + 1, sizeof(*plan->stages));
    struct stage *stage = &planner->stages[planner->stages_count++];
    *stage = (struct stage){.plan = xnew(struct build_stage)};
    plan->stages[plan->stages_count++] = stage->plan;
    stage->plan->steps = xnew_array(struct build_step *, 1);
    return stage;
}

static int set_base(struct planner *planner, struct stage *stage, const char *base,
                    struct error *err)
{
    int earlier;

    if (!base[0])
        return error_set(err, -EINVAL, "base name should not be blank");
    if (text_equal(base, "scratch"))
        return 0;
    /* By name alone: FROM 0 is an image. */
    earlier = isdigit((unsigned char)base[0])
                  ? -1
                  : planner_find_stage(planner, base, planner->stages_count - 1);
    if (earlier >= 0) {
        stage->plan->stage = (uint32_t)earlier;
        stage->plan->has_stage = true;
        return 0;
    }
    stage->plan->image = xstrdup(base);
    return 0;
}

static int read_from(struct planner *planner, size_t index, struct error *err)
{
    static const char *const known[] = {"platform", NULL};
    const struct instruction *instruction = &planner->instructions[index];
    size_t count = strv_length(instruction->arguments);
    char *const *arguments = instruction->arguments;
    _cleanup_strv_ char **env = global_environment(planner);
    const struct words_rules rules = {.env = env, .escape = planner->lines.escape};
    _cleanup_free_ char *base = NULL;
    const char *platform = instruction_flag(instruction, "platform");

    if (planner->stages_count >= DOCKERFILE_STAGES_MAX)
        return error_set(err, -EFBIG, "more than %d stages", DOCKERFILE_STAGES_MAX);
    int r = instruction_check_flags(instruction, known, err);
    if (r == 0 && count != 1 && (count != 3 || strcasecmp(arguments[1], "as") != 0))
        r = error_set(err, -EINVAL, "FROM requires either one or three arguments");
    if (r == 0 && count == 3)
        r = check_stage_name(arguments[2], err);
    if (r == 0 && count == 3)
        r = check_name_is_free(planner, arguments[2], err);
    if (r == 0)
        r = words_expand(arguments[0], &rules, &base, err);
    if (r < 0)
        return r;
    struct stage *stage = add_stage(planner);
    stage->first = index + 1;
    stage->plan->text = xstrdup(instruction->text);
    stage->plan->number = 0;
    if (platform)
        r = words_expand(platform, &rules, &stage->plan->platform, err);
    if (r == 0)
        r = set_base(planner, stage, base, err);
    if (r == 0 && count == 3) {
        stage->plan->name = xstrdup(arguments[2]);
        for (char *at = stage->plan->name; *at; at++)
            *at = (char)tolower((unsigned char)*at);
    }
    return r;
}

static int read_stages(struct planner *planner, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < planner->instructions_count; i++) {
        const struct instruction *instruction = &planner->instructions[i];
        if (instruction->word == WORD_FROM)
            r = read_from(planner, i, err);
        else if (planner->stages_count)
            planner->stages[planner->stages_count - 1].count++;
        else if (instruction->word == WORD_ARG)
            r = read_global_arg(planner, instruction, err);
        else
            r = error_set(err, -EINVAL, "no build stage in current context");
        if (r < 0)
            wrong_line(err, instruction->number);
    }
    return r == 0 && !planner->stages_count
               ? error_set(err, -EINVAL, "no build stage in current context")
               : r;
}

/* The stages behind the target are left out. */
static int cut_at_target(struct planner *planner, struct error *err)
{
    const char *target = planner->options->target;

    if (text_empty(target))
        return 0;
    int index = planner_find_stage(planner, target, planner->stages_count);
    if (index < 0)
        return error_set(err, -EINVAL, "failed to reach build target %.128s in Dockerfile", target);
    while (planner->plan->stages_count > (size_t)index + 1)
        build_stage_free(planner->plan->stages[--planner->plan->stages_count]);
    while (planner->stages_count > (size_t)index + 1)
        planner->stages_count--;
    return 0;
}

static void number_stages(struct planner *planner)
{
    const struct json_string_map *labels = planner->options->labels;
    uint32_t number = planner->number;

    for (size_t i = 0; i < planner->stages_count; i++) {
        planner->stages[i].plan->number = ++number;
        number += (uint32_t)planner->stages[i].count;
    }
    planner->plan->total = number + (labels ? (uint32_t)labels->count : 0);
}

/* --- steps ------------------------------------------------------------------------------------ */

static int add_step(struct planner *planner, struct stage *stage,
                    const struct instruction *instruction, uint32_t number, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct build_step *step = NULL;
    int r = step_make(planner, stage, instruction, &step, err);

    if (r < 0)
        return wrong_line(err, instruction->number), r;
    step->number = number;
    build_step_write(step, &text);
    planner->bytes += text.length;
    stage->plan->steps =
        xrealloc(stage->plan->steps, stage->plan->steps_count + 1, sizeof(struct build_step *));
    stage->plan->steps[stage->plan->steps_count++] = step;
    if (text.length > DOCKERFILE_CONFIG_MAX || planner->bytes > DOCKERFILE_PLAN_MAX)
        return error_set(err, -EFBIG, "the steps of the Dockerfile are larger than %d bytes",
                         DOCKERFILE_PLAN_MAX);
    return 0;
}

/* What the image wants to happen where it is built upon. */
static int add_triggers(struct planner *planner, struct stage *stage, struct error *err)
{
    _cleanup_strv_ char **triggers = strv_copy(stage->config->on_build);
    int r = 0;

    strv_free(stage->config->on_build);
    stage->config->on_build = NULL;
    stage->config->on_build_count = 0;
    for (size_t i = 0; r == 0 && triggers && triggers[i]; i++) {
        struct lines lines = {0};
        struct instruction instruction = {0};
        r = lines_read(triggers[i], strlen(triggers[i]), &lines, err);
        if (r == 0 && lines.count != 1)
            r = error_set(err, -EINVAL, "onbuild trigger should be a single expression");
        if (r == 0)
            r = instruction_parse(&lines.items[0], '\\', &instruction, err);
        instruction.number = 0;
        if (r == 0)
            r = add_step(planner, stage, &instruction, 0, err);
        instruction_finish(&instruction);
        lines_finish(&lines);
        stage->plan->triggers++;
        stage->plan->has_triggers = true;
    }
    return r;
}

static const struct oci_image_execution *find_base(const struct planner *planner,
                                                   const struct build_stage *stage)
{
    for (size_t i = 0; i < planner->options->bases_count; i++) {
        const struct build_base *base = planner->options->bases[i];
        if (text_equal(base->name, stage->image) && text_equal(base->platform, stage->platform))
            return base->config;
    }
    return NULL;
}

static void begin_stage(struct planner *planner, struct stage *stage)
{
    const struct build_stage *plan = stage->plan;

    stage->config = config_copy(plan->has_stage ? planner->stages[plan->stage].config
                                : plan->image   ? find_base(planner, plan)
                                                : NULL);
    if (!words_variable(stage->config->env, "PATH")) {
        strv_append(&stage->config->env, DEFAULT_PATH);
        stage->config->env_count++;
    }
    stage->config->has_open_stdin = stage->config->has_stdin_once = false;
}

/* --label: steps of the last stage, sorted by name. */
static int add_labels(struct planner *planner, uint32_t number, struct error *err)
{
    const struct json_string_map *labels = planner->options->labels;
    struct stage *stage = &planner->stages[planner->stages_count - 1];
    _cleanup_strv_ char **names = NULL;
    int r = 0;

    for (size_t i = 0; labels && i < labels->count; i++) {
        size_t at = strv_length(names);
        strv_append(&names, labels->keys[i]);
        for (; at && strcmp(names[at - 1], names[at]) > 0; at--) {
            char *swap = names[at];
            names[at] = names[at - 1];
            names[at - 1] = swap;
        }
    }
    for (size_t i = 0; r == 0 && names && names[i]; i++) {
        const char *value = json_string_map_get(labels, names[i]);
        struct build_step *step = xnew(struct build_step);
        json_string_map_set(&stage->config->labels, names[i], value);
        step->number = ++number;
        step->text = xasprintf("LABEL %s=%s", names[i], value);
        step->created_by = step_comment(stage, " LABEL %s=%s", names[i], value);
        step->config = config_copy(stage->config);
        struct build_stage *plan = stage->plan;
        plan->steps = xrealloc(plan->steps, plan->steps_count + 1, sizeof(step));
        plan->steps[plan->steps_count++] = step;
    }
    return r;
}

static int make_steps(struct planner *planner, struct error *err)
{
    uint32_t number = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < planner->stages_count; i++) {
        struct stage *stage = &planner->stages[i];
        number = stage->plan->number;
        begin_stage(planner, stage);
        r = add_triggers(planner, stage, err);
        for (size_t n = 0; r == 0 && n < stage->count; n++)
            r = add_step(planner, stage, &planner->instructions[stage->first + n], ++number, err);
    }
    return r < 0 ? r : add_labels(planner, number, err);
}

static void find_unused(struct planner *planner)
{
    static const char *const always[] = {"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY",
                                         "ALL_PROXY"};

    for (size_t i = 0; i < planner->given.count; i++) {
        const char *name = planner->given.items[i].name;
        bool used = strv_contains(planner->used, name);
        for (size_t p = 0; p < ARRAY_SIZE(always); p++)
            used = used || strcasecmp(always[p], name) == 0;
        if (used)
            continue;
        strv_append(&planner->plan->unused_arguments, name);
        planner->plan->unused_arguments_count++;
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

static void planner_finish(struct planner *planner)
{
    for (size_t i = 0; i < planner->instructions_count; i++)
        instruction_finish(&planner->instructions[i]);
    free(planner->instructions);
    lines_finish(&planner->lines);
    arguments_finish(&planner->given);
    arguments_finish(&planner->global);
    for (size_t i = 0; i < planner->stages_count; i++) {
        oci_image_execution_free(planner->stages[i].config);
        arguments_finish(&planner->stages[i].declared);
    }
    free(planner->stages);
    strv_free(planner->used);
    build_plan_free(planner->plan);
}

int plan_make(const char *text, size_t length, const struct build_options *options,
              struct build_plan **ret, struct error *err)
{
    struct planner planner = {.options = options, .plan = xnew(struct build_plan)};

    planner.plan->stages = xnew_array(struct build_stage *, 1);
    take_given(&planner);
    set_platform(&planner);
    int r = read_instructions(&planner, text, length, err);
    if (r == 0)
        r = read_stages(&planner, err);
    if (r == 0)
        r = cut_at_target(&planner, err);
    if (r == 0) {
        number_stages(&planner);
        if (options->bases)
            r = make_steps(&planner, err);
    }
    if (r == 0) {
        find_unused(&planner);
        *ret = steal_ptr(planner.plan);
    }
    planner_finish(&planner);
    return r;
}
