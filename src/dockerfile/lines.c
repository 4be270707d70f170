/*
 * Lines, directives, comments, continuations, heredocs: buildkit's frontend/dockerfile/parser says
 * what they are.
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
#include <dockerfile/words.h>

#include "lines.h"

struct input {
    const char *at, *end;
    unsigned number; /* of the line that was read last */
    bool directives; /* still possible */
    struct lines *lines;
};

/* The next line without its end. */
static bool next_line(struct input *input, const char **ret, size_t *ret_length)
{
    if (input->at >= input->end)
        return false;
    const char *newline = memchr(input->at, '\n', (size_t)(input->end - input->at));
    const char *end = newline ? newline : input->end;
    *ret = input->at;
    *ret_length = (size_t)(end - input->at);
    input->at = newline ? newline + 1 : input->end;
    input->number++;
    if (*ret_length && (*ret)[*ret_length - 1] == '\r')
        (*ret_length)--;
    return true;
}

static void skip_blanks(const char **text, size_t *length)
{
    while (*length && isspace((unsigned char)**text)) {
        (*text)++;
        (*length)--;
    }
}

static bool is_comment(const char *text, size_t length)
{
    skip_blanks(&text, &length);
    return length && *text == '#';
}

static bool is_blank(const char *text, size_t length)
{
    skip_blanks(&text, &length);
    return length == 0;
}

/* --- directives ------------------------------------------------------------------------------- */

static int set_escape(struct input *input, const char *value, struct error *err)
{
    if (!text_equal(value, "\\") && !text_equal(value, "`"))
        return error_set(err, -EINVAL,
                         "dockerfile parse error line %u: invalid ESCAPE '%.32s'. Must be ` or \\",
                         input->number, value);
    input->lines->escape = value[0];
    return 0;
}

/* "# name = value" on top of the file; anything else ends them. */
static int read_directive(struct input *input, const char *text, size_t length, unsigned *seen,
                          struct error *err)
{
    static const char *const names[] = {"escape", "syntax", "check"};
    _cleanup_free_ char *line = xstrndup(text, length);
    char *at = line, *name, *value;

    input->directives = false;
    at += strspn(at, " \t");
    if (*at++ != '#')
        return 0;
    name = at += strspn(at, " \t");
    at += strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    size_t name_length = (size_t)(at - name);
    at += strspn(at, " \t");
    if (!name_length || *at++ != '=')
        return 0;
    value = at + strspn(at, " \t");
    for (char *end = value + strlen(value); end > value && isspace((unsigned char)end[-1]);)
        *--end = '\0';
    name[name_length] = '\0';
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcasecmp(names[i], name) != 0)
            continue;
        if (*seen & 1U << i)
            return error_set(err, -EINVAL,
                             "dockerfile parse error line %u: only one %s parser directive can be "
                             "used",
                             input->number, names[i]);
        *seen |= 1U << i;
        input->directives = true;
        return i == 0 ? set_escape(input, value, err) : 0;
    }
    return 0;
}

/* --- heredocs --------------------------------------------------------------------------------- */

void heredoc_finish(struct heredoc *heredoc)
{
    free(heredoc->name);
    free(heredoc->content);
    *heredoc = (struct heredoc){0};
}

bool heredoc_parse(const char *word, struct heredoc *ret, bool *ret_strip)
{
    const struct words_rules rules = {.escape = '\\'};
    const char *at = word + strspn(word, "0123456789");

    if (strncmp(at, "<<", 2) != 0)
        return false;
    at += 2;
    bool strip = *at == '-';
    if (strip)
        at++;
    if (!*at || strchr(at, '<'))
        return false;
    struct heredoc heredoc = {.expand = !strpbrk(at, "'\"\\")};
    if (words_expand(at, &rules, &heredoc.name, NULL) < 0 || !heredoc.name[0] ||
        strpbrk(heredoc.name, " \t\n")) {
        heredoc_finish(&heredoc);
        return false;
    }
    *ret = heredoc;
    *ret_strip = strip;
    return true;
}

static bool may_have_heredocs(const char *text)
{
    static const char *const words[] = {"ADD", "COPY", "RUN"};

    text += strspn(text, " \t");
    if (strncasecmp(text, "ONBUILD", 7) == 0 && isspace((unsigned char)text[7]))
        text += 7 + strspn(text + 7, " \t");
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        size_t length = strlen(words[i]);
        if (strncasecmp(text, words[i], length) == 0 && isspace((unsigned char)text[length]))
            return strstr(text, "<<") != NULL;
    }
    return false;
}

static int read_heredoc(struct input *input, struct heredoc *heredoc, bool strip, struct error *err)
{
    _cleanup_buffer_ struct buffer content = BUFFER_INIT;
    const char *start = input->at, *text;
    size_t length;

    while (next_line(input, &text, &length)) {
        size_t raw = (size_t)(input->at - start);
        const char *from = start;
        while (strip && length && *text == '\t') {
            text++;
            length--;
            from++;
            raw--;
        }
        if (length == strlen(heredoc->name) && memcmp(text, heredoc->name, length) == 0) {
            heredoc->content = buffer_steal(&content);
            return 0;
        }
        buffer_append(&content, from, raw);
        start = input->at;
    }
    return error_set(err, -EINVAL, "dockerfile parse error line %u: unterminated heredoc",
                     input->number);
}

static int read_heredocs(struct input *input, struct line *line, struct error *err)
{
    const struct words_rules rules = {.escape = input->lines->escape, .raw = true};
    _cleanup_strv_ char **words = NULL;
    int r = 0;

    if (!may_have_heredocs(line->text) || words_split(line->text, &rules, &words, NULL) < 0)
        return 0;
    for (size_t i = 0; r == 0 && words && words[i]; i++) {
        struct heredoc heredoc = {0};
        bool strip;
        if (!heredoc_parse(words[i], &heredoc, &strip))
            continue;
        r = read_heredoc(input, &heredoc, strip, err);
        line->heredocs = xrealloc(line->heredocs, line->heredocs_count + 1, sizeof(heredoc));
        line->heredocs[line->heredocs_count++] = heredoc;
    }
    return r;
}

/* --- instructions ----------------------------------------------------------------------------- */

/* Takes an escape at the end of the line off. Blanks may stand behind it; two of them are not one.
 */
static bool goes_on(const struct input *input, const char *text, size_t *length)
{
    size_t end = *length;

    while (end && (text[end - 1] == ' ' || text[end - 1] == '\t'))
        end--;
    if (!end || text[end - 1] != input->lines->escape ||
        (end > 1 && text[end - 2] == input->lines->escape))
        return false;
    *length = end - 1;
    return true;
}

static int add_line(struct input *input, const struct buffer *text, unsigned number,
                    struct error *err)
{
    struct lines *lines = input->lines;

    if (is_blank(buffer_text(text), text->length))
        return 0;
    if (lines->count >= DOCKERFILE_INSTRUCTIONS_MAX)
        return error_set(err, -EFBIG, "more than %d instructions", DOCKERFILE_INSTRUCTIONS_MAX);
    lines->items = xrealloc(lines->items, lines->count + 1, sizeof(*lines->items));
    struct line *line = &lines->items[lines->count++];
    *line = (struct line){.text = xstrdup(buffer_text(text)), .number = number};
    return read_heredocs(input, line, err);
}

/* The line that was read is the first one of an instruction. */
static int read_instruction(struct input *input, const char *text, size_t length, struct error *err)
{
    _cleanup_buffer_ struct buffer whole = BUFFER_INIT;
    unsigned number = input->number;

    skip_blanks(&text, &length);
    bool more = goes_on(input, text, &length);
    buffer_append(&whole, text, length);
    while (more && next_line(input, &text, &length)) {
        if (is_comment(text, length) || is_blank(text, length))
            continue;
        more = goes_on(input, text, &length);
        buffer_append(&whole, text, length);
    }
    return add_line(input, &whole, number, err);
}

int lines_read(const char *text, size_t length, struct lines *ret, struct error *err)
{
    struct input input = {.at = text, .end = text + length, .directives = true, .lines = ret};
    unsigned seen = 0;
    const char *line;
    size_t line_length;
    int r = 0;

    *ret = (struct lines){.escape = '\\'};
    if (length > DOCKERFILE_MAX)
        return error_set(err, -EFBIG, "a Dockerfile of more than %d bytes", DOCKERFILE_MAX);
    if (memchr(text, '\0', length))
        return error_set(err, -EINVAL, "a Dockerfile with a zero byte in it is none");
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        input.at += 3;
    while (r == 0 && next_line(&input, &line, &line_length)) {
        if (input.directives)
            r = read_directive(&input, line, line_length, &seen, err);
        if (r == 0 && !is_comment(line, line_length) && !is_blank(line, line_length))
            r = read_instruction(&input, line, line_length, err);
    }
    return r;
}

void lines_finish(struct lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        for (size_t h = 0; h < lines->items[i].heredocs_count; h++)
            heredoc_finish(&lines->items[i].heredocs[h]);
        free(lines->items[i].heredocs);
        free(lines->items[i].text);
    }
    free(lines->items);
    *lines = (struct lines){0};
}
