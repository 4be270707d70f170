#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <schema/build.h>

#include "instruction.h"

/* How what stands behind the word is read. */
enum form {
    FORM_TEXT,          /* as it stands */
    FORM_WORDS,         /* cut at blanks */
    FORM_JSON_OR_TEXT,  /* ["a", "b"], else as it stands */
    FORM_JSON_OR_WORDS, /* ["a", "b"], else cut at blanks */
    FORM_PAIRS,         /* a=b c="d e", or a b c: name, value, name, value */
    FORM_NAMES,         /* a, a=b: each as it stands, with its quotes */
};

static const struct {
    const char *name;
    enum form form;
} words[WORD_COUNT] = {
    [WORD_ADD] = {"ADD", FORM_JSON_OR_WORDS},
    [WORD_ARG] = {"ARG", FORM_NAMES},
    [WORD_CMD] = {"CMD", FORM_JSON_OR_TEXT},
    [WORD_COPY] = {"COPY", FORM_JSON_OR_WORDS},
    [WORD_ENTRYPOINT] = {"ENTRYPOINT", FORM_JSON_OR_TEXT},
    [WORD_ENV] = {"ENV", FORM_PAIRS},
    [WORD_EXPOSE] = {"EXPOSE", FORM_WORDS},
    [WORD_FROM] = {"FROM", FORM_WORDS},
    [WORD_HEALTHCHECK] = {"HEALTHCHECK", FORM_TEXT},
    [WORD_LABEL] = {"LABEL", FORM_PAIRS},
    [WORD_MAINTAINER] = {"MAINTAINER", FORM_TEXT},
    [WORD_ONBUILD] = {"ONBUILD", FORM_TEXT},
    [WORD_RUN] = {"RUN", FORM_JSON_OR_TEXT},
    [WORD_SHELL] = {"SHELL", FORM_JSON_OR_TEXT},
    [WORD_STOPSIGNAL] = {"STOPSIGNAL", FORM_TEXT},
    [WORD_USER] = {"USER", FORM_TEXT},
    [WORD_VOLUME] = {"VOLUME", FORM_JSON_OR_WORDS},
    [WORD_WORKDIR] = {"WORKDIR", FORM_TEXT},
};

static char *trimmed(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1]))
        length--;
    return xstrndup(text, length);
}

static char **cut_at_blanks(const char *text)
{
    char **list = NULL;

    for (;;) {
        while (isspace((unsigned char)*text))
            text++;
        if (!*text)
            return list;
        const char *start = text;
        while (*text && !isspace((unsigned char)*text))
            text++;
        strv_take(&list, xstrndup(start, (size_t)(text - start)));
    }
}

/* Cut at blanks that are neither quoted nor escaped; quotes and escapes stay. */
static char **cut_at_open_blanks(const char *text, char escape)
{
    struct buffer word = BUFFER_INIT;
    char **list = NULL;
    char quote = 0;

    for (; *text; text++) {
        if (!quote && isspace((unsigned char)*text)) {
            if (word.length)
                strv_append(&list, buffer_text(&word));
            buffer_clear(&word);
            continue;
        }
        if (!quote && (*text == '"' || *text == '\''))
            quote = *text;
        else if (quote && *text == quote)
            quote = 0;
        else if (*text == escape && quote != '\'' && text[1])
            buffer_append_char(&word, *text++);
        buffer_append_char(&word, *text);
    }
    if (word.length)
        strv_append(&list, buffer_text(&word));
    buffer_finish(&word);
    return list;
}

/* --- flags ------------------------------------------------------------------------------------ */

/* --name=value in front, in quotes where blanks are in it; "--" alone ends them. */
static const char *take_flags(struct instruction *instruction, const char *at, char escape)
{
    for (;;) {
        at += strspn(at, " \t");
        if (strncmp(at, "--", 2) != 0)
            return at;
        struct buffer flag = BUFFER_INIT;
        char quote = 0;
        for (; *at && (quote || !isspace((unsigned char)*at)); at++) {
            if (*at == escape && at[1])
                buffer_append_char(&flag, *++at);
            else if (quote ? *at == quote : *at == '"' || *at == '\'')
                quote = quote ? 0 : *at;
            else
                buffer_append_char(&flag, *at);
        }
        bool last = flag.length == 2;
        if (!last)
            strv_append(&instruction->flags, buffer_text(&flag) + 2);
        buffer_finish(&flag);
        if (last)
            return at + strspn(at, " \t");
    }
}

const char *instruction_flag(const struct instruction *instruction, const char *name)
{
    size_t length = strlen(name);

    for (char *const *flag = instruction->flags; flag && *flag; flag++) {
        if (strncmp(*flag, name, length) == 0 && ((*flag)[length] == '=' || !(*flag)[length]))
            return (*flag)[length] ? *flag + length + 1 : "";
    }
    return NULL;
}

int instruction_check_flags(const struct instruction *instruction, const char *const *known,
                            struct error *err)
{
    for (size_t i = 0; instruction->flags && instruction->flags[i]; i++) {
        const char *flag = instruction->flags[i];
        size_t length = strcspn(flag, "=");
        bool found = false;
        for (const char *const *name = known; *name && !found; name++)
            found = strlen(*name) == length && strncmp(*name, flag, length) == 0;
        if (!found)
            return error_set(err, -EINVAL, "Unknown flag: %.*s", (int)length, flag);
        for (size_t other = 0; other < i; other++) {
            if (strncmp(instruction->flags[other], flag, length) == 0 &&
                strcspn(instruction->flags[other], "=") == length)
                return error_set(err, -EINVAL, "Duplicate flag specified: %.*s", (int)length, flag);
        }
    }
    return 0;
}

/* --- forms ------------------------------------------------------------------------------------ */

/* 1: it is one; 0: it is to be read as text. */
static int parse_json(struct instruction *instruction, struct error *err)
{
    struct build_strings *strings = NULL;
    struct build_any *any = NULL;
    const char *text = instruction->rest;

    if (text[0] != '[')
        return 0;
    if (build_strings_parse(text, strlen(text), NULL, &strings, NULL) == 0) {
        instruction->arguments = strv_copy(strings->items);
        if (!instruction->arguments)
            instruction->arguments = xnew_array(char *, 1);
        build_strings_free(strings);
        instruction->json = true;
        return 1;
    }
    _cleanup_free_ char *document = xasprintf("{\"value\":%s}", text);
    if (build_any_parse(document, strlen(document), NULL, &any, NULL) < 0)
        return 0;
    build_any_free(any);
    return error_set(err, -EINVAL,
                     "When using JSON array syntax, arrays must be comprised of strings only.");
}

static void take_text(struct instruction *instruction)
{
    if (instruction->rest[0])
        strv_append(&instruction->arguments, instruction->rest);
}

/* Names and values in turns. The old form has one name, and the rest of the line is its value. */
static int parse_pairs(struct instruction *instruction, char escape, struct error *err)
{
    _cleanup_strv_ char **list = cut_at_open_blanks(instruction->rest, escape);

    if (!list)
        return 0;
    if (!strchr(list[0], '=')) {
        const char *value = instruction->rest + strcspn(instruction->rest, " \t\v\f\r\n");
        if (!*value)
            return error_set(err, -EINVAL, "%s must have two arguments", instruction->name);
        strv_append(&instruction->arguments, list[0]);
        strv_append(&instruction->arguments, value + strspn(value, " \t\v\f\r\n"));
        return 0;
    }
    for (size_t i = 0; list[i]; i++) {
        char *equals = strchr(list[i], '=');
        if (!equals)
            return error_set(err, -EINVAL,
                             "Syntax error - can't find = in \"%.128s\". Must be of the form: "
                             "name=value",
                             list[i]);
        strv_take(&instruction->arguments, xstrndup(list[i], (size_t)(equals - list[i])));
        strv_append(&instruction->arguments, equals + 1);
    }
    return 0;
}

static int parse_form(struct instruction *instruction, char escape, struct error *err)
{
    enum form form = words[instruction->word].form;
    int r = 0;

    if (form == FORM_PAIRS)
        return parse_pairs(instruction, escape, err);
    if (form == FORM_NAMES) {
        instruction->arguments = cut_at_open_blanks(instruction->rest, escape);
        return 0;
    }
    if (form == FORM_JSON_OR_TEXT || form == FORM_JSON_OR_WORDS)
        r = parse_json(instruction, err);
    if (r != 0)
        return r < 0 ? r : 0;
    if (form == FORM_WORDS || form == FORM_JSON_OR_WORDS)
        instruction->arguments = cut_at_blanks(instruction->rest);
    else
        take_text(instruction);
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

const char *instruction_behind_word(const char *text)
{
    text += strspn(text, " \t");
    while (*text && !isspace((unsigned char)*text))
        text++;
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

int instruction_parse(const struct line *line, char escape, struct instruction *ret,
                      struct error *err)
{
    *ret = (struct instruction){
        .number = line->number,
        .text = trimmed(line->text),
        .heredocs = line->heredocs,
        .heredocs_count = line->heredocs_count,
    };
    size_t length = strcspn(ret->text, " \t\v\f\r\n");
    for (unsigned i = 0; i < WORD_COUNT; i++) {
        if (strlen(words[i].name) != length || strncasecmp(words[i].name, ret->text, length) != 0)
            continue;
        ret->word = (enum word)i;
        ret->name = words[i].name;
        const char *rest = take_flags(ret, instruction_behind_word(ret->text), escape);
        ret->rest = trimmed(rest);
        return parse_form(ret, escape, err);
    }
    _cleanup_free_ char *word = xstrndup(ret->text, length);
    for (char *at = word; *at; at++)
        *at = (char)toupper((unsigned char)*at);
    return error_set(err, -EINVAL, "unknown instruction: %.128s", word);
}

void instruction_finish(struct instruction *instruction)
{
    free(instruction->text);
    free(instruction->rest);
    strv_free(instruction->flags);
    strv_free(instruction->arguments);
    *instruction = (struct instruction){0};
}
