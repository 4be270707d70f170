#include <errno.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <dockerfile/change.h>

#include "planner.h"

/* What makes files, or a stage, is no change. */
static const bool allowed[WORD_COUNT] = {
    [WORD_CMD] = true,     [WORD_ENTRYPOINT] = true,  [WORD_ENV] = true,
    [WORD_EXPOSE] = true,  [WORD_HEALTHCHECK] = true, [WORD_LABEL] = true,
    [WORD_ONBUILD] = true, [WORD_SHELL] = true,       [WORD_STOPSIGNAL] = true,
    [WORD_USER] = true,    [WORD_VOLUME] = true,      [WORD_WORKDIR] = true,
};

static int refuse(const char *name, struct error *err)
{
    _cleanup_free_ char *word = xstrdup(name);

    for (char *at = word; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return error_set(err, -EINVAL, "%s is not a valid change command", word);
}

static int apply(struct planner *planner, struct stage *stage, const struct line *line,
                 struct error *err)
{
    struct instruction instruction;
    struct build_step *step = NULL;
    int r = instruction_parse(line, planner->lines.escape, &instruction, err);

    if (r == 0 && !allowed[instruction.word])
        r = refuse(instruction.name, err);
    if (r == 0)
        r = step_make(planner, stage, &instruction, &step, err);
    build_step_free(step);
    instruction_finish(&instruction);
    return r;
}

int dockerfile_change(char *const *texts, struct oci_image_execution *config, struct error *err)
{
    const struct build_options options = {.dockerfile = NULL};
    struct planner planner = {.options = &options};
    struct stage stage = {.config = config};
    _cleanup_free_ char *text = strv_join(texts, "\n");
    int r = text ? lines_read(text, strlen(text), &planner.lines, err) : 0;

    for (size_t i = 0; r == 0 && i < planner.lines.count; i++)
        r = apply(&planner, &stage, &planner.lines.items[i], err);
    lines_finish(&planner.lines);
    arguments_finish(&stage.declared);
    strv_free(planner.used);
    return r;
}
