/* COPY and ADD. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "planner.h"

char *path_absolute(const char *path)
{
    _cleanup_strv_ char **parts = strv_split(path, '/');
    struct buffer out = BUFFER_INIT;

    for (size_t i = 0; parts && parts[i]; i++) {
        if (!parts[i][0] || text_equal(parts[i], "."))
            continue;
        if (!text_equal(parts[i], "..")) {
            buffer_printf(&out, "/%s", parts[i]);
            continue;
        }
        while (out.length && out.data[--out.length] != '/')
            ;
        if (out.data)
            out.data[out.length] = '\0';
    }
    if (!out.length)
        buffer_append_char(&out, '/');
    return buffer_steal(&out);
}

/* Absolute, as docker has it: only a relative one is made clean. A slash at its end counts. */
static char *destination_of(const struct stage *stage, const char *path)
{
    if (path[0] == '/')
        return xstrdup(path);
    _cleanup_free_ char *joined =
        xasprintf("%s/%s", stage->config->working_dir ? stage->config->working_dir : "", path);
    char *clean = path_absolute(joined);
    if (!text_ends_with(path, "/") || text_ends_with(clean, "/"))
        return clean;
    char *folder = xasprintf("%s/", clean);
    free(clean);
    return folder;
}

static const struct heredoc *find_heredoc(const struct instruction *instruction, const char *word)
{
    struct heredoc mark = {0};
    const struct heredoc *found = NULL;
    bool strip;

    if (!instruction->heredocs_count || !heredoc_parse(word, &mark, &strip))
        return NULL;
    for (size_t i = 0; i < instruction->heredocs_count && !found; i++) {
        if (text_equal(instruction->heredocs[i].name, mark.name))
            found = &instruction->heredocs[i];
    }
    heredoc_finish(&mark);
    return found;
}

static int add_heredoc(const struct heredoc *heredoc, const struct words_rules *rules,
                       struct build_copy *copy, struct error *err)
{
    struct build_file *file = xnew(struct build_file);

    copy->files = xrealloc(copy->files, copy->files_count + 1, sizeof(struct build_file *));
    copy->files[copy->files_count++] = file;
    file->name = xstrdup(heredoc->name);
    if (heredoc->expand)
        return words_expand_content(heredoc->content, rules, &file->content, err);
    file->content = xstrdup(heredoc->content);
    return 0;
}

static bool is_address(const char *source)
{
    return text_starts_with(source, "http://") || text_starts_with(source, "https://");
}

/* Takes source over. */
static int add_source(const struct instruction *instruction, char *source, char ***sources,
                      struct build_copy *copy, struct error *err)
{
    if (!is_address(source)) {
        strv_take(sources, source);
        return 0;
    }
    strv_take(&copy->remotes, source);
    copy->remotes_count++;
    if (instruction->word == WORD_ADD)
        return 0;
    return error_set(err, -EINVAL, "COPY failed: source can't be a URL for COPY");
}

static int take_paths(struct stage *stage, const struct instruction *instruction,
                      const struct words_rules *rules, struct build_copy *copy, struct error *err)
{
    size_t count = strv_length(instruction->arguments);
    char **sources = NULL;
    int r = 0;

    if (count < 2)
        return error_set(err, -EINVAL,
                         "%s requires at least two arguments, but only one was provided. "
                         "Destination could not be determined.",
                         instruction->name);
    for (size_t i = 0; r == 0 && i + 1 < count; i++) {
        const struct heredoc *heredoc = find_heredoc(instruction, instruction->arguments[i]);
        char *source = NULL;
        if (heredoc)
            r = add_heredoc(heredoc, rules, copy, err);
        else
            r = words_expand(instruction->arguments[i], rules, &source, err);
        if (source)
            r = add_source(instruction, source, &sources, copy, err);
    }
    set_list(&copy->sources, &copy->sources_count, sources);
    _cleanup_free_ char *last = NULL;
    if (r == 0)
        r = words_expand(instruction->arguments[count - 1], rules, &last, err);
    if (r == 0)
        copy->destination = destination_of(stage, last);
    copy->shown = xstrdup(last);
    if (r == 0 && copy->sources_count + copy->files_count + copy->remotes_count > 1 &&
        !text_ends_with(copy->destination, "/"))
        r = error_set(err, -EINVAL,
                      "When using %s with more than one source file, the destination must be a "
                      "directory and end with a /",
                      instruction->name);
    return r;
}

static int take_from(struct planner *planner, struct stage *stage, const char *from,
                     struct build_copy *copy, struct error *err)
{
    size_t current = (size_t)(stage - planner->stages);
    uint64_t number;
    int index = planner_find_stage(planner, from, current);

    if (index >= 0) {
        copy->from_stage = (uint32_t)index;
        copy->has_from_stage = true;
        return 0;
    }
    if (text_to_u64(from, 0, UINT32_MAX, &number) == 0)
        return error_set(err, -EINVAL, "invalid from flag value %s: invalid stage index %s", from,
                         from);
    if (text_empty(from))
        return error_set(err, -EINVAL, "invalid from flag value: it is empty");
    copy->from_image = xstrdup(from);
    return 0;
}

static int take_flags(struct planner *planner, struct stage *stage,
                      const struct instruction *instruction, const struct words_rules *rules,
                      struct build_copy *copy, struct error *err)
{
    static const char *const known[] = {"chown", "chmod", "from", "link", NULL};
    static const char *const known_of_add[] = {"chown", "chmod", "link", NULL};
    const char *chown = instruction_flag(instruction, "chown");
    const char *chmod = instruction_flag(instruction, "chmod");
    const char *from = instruction_flag(instruction, "from");
    int r = instruction_check_flags(instruction, copy->extract ? known_of_add : known, err);

    if (r == 0 && chown)
        r = words_expand(chown, rules, &copy->chown, err);
    if (r == 0 && chmod) {
        _cleanup_free_ char *text = NULL;
        r = words_expand(chmod, rules, &text, err);
        size_t digits = r == 0 ? strspn(text, "01234567") : 0;
        if (r == 0 && (!digits || text[digits] || digits > 5 || strtoul(text, NULL, 8) > 07777))
            return error_set(err, -EINVAL,
                             "invalid chmod parameter: '%.32s'. it should be octal string and "
                             "between 0 and 07777",
                             text);
        if (r == 0) {
            copy->chmod = (uint32_t)strtoul(text, NULL, 8);
            copy->has_chmod = true;
        }
    }
    if (r == 0 && from)
        r = take_from(planner, stage, from, copy, err);
    return r;
}

int step_copy(struct planner *planner, struct stage *stage, const struct instruction *instruction,
              const struct words_rules *rules, struct build_step *step, struct error *err)
{
    struct build_copy *copy = step->copy = xnew(struct build_copy);

    copy->word = xstrdup(instruction->name);
    copy->extract = copy->has_extract = instruction->word == WORD_ADD;
    int r = take_flags(planner, stage, instruction, rules, copy, err);
    if (r == 0)
        r = take_paths(stage, instruction, rules, copy, err);
    if (r == 0)
        step->created_by =
            step_comment(stage, "%s %s%s", instruction->name, copy->chown ? "--chown=" : "",
                         copy->chown ? copy->chown : "");
    return r;
}
