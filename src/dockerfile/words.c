#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <dockerfile/limits.h>
#include <dockerfile/words.h>

#include "glob.h"

/* Goes through a text from front to back. */
struct reader {
    const char *at;
    const struct words_rules *rules;
    unsigned depth; /* of ${...} */
    /* Splitting: words get finished where an unquoted blank is. */
    char ***words; /* NULL: not wanted */
    struct buffer word;
    bool in_word;
};

const char *words_variable(char *const *env, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; env && env[i]; i++) {
        if (strncmp(env[i], name, length) == 0 && env[i][length] == '=')
            return env[i] + length + 1;
    }
    return NULL;
}

/* --- words ------------------------------------------------------------------------------------ */

static void end_word(struct reader *reader)
{
    if (reader->words && reader->in_word)
        strv_append(reader->words, buffer_text(&reader->word));
    buffer_clear(&reader->word);
    reader->in_word = false;
}

static void add_raw(struct reader *reader, const char *text, size_t length)
{
    if (!reader->words)
        return;
    buffer_append(&reader->word, text, length);
    reader->in_word = true;
}

/* What is neither quoted nor escaped. */
static void add_open(struct reader *reader, const char *text)
{
    for (; reader->words && *text; text++) {
        if (isspace((unsigned char)*text))
            end_word(reader);
        else
            add_raw(reader, text, 1);
    }
}

/* --- ${...} ----------------------------------------------------------------------------------- */

static int read_until(struct reader *reader, char stop, bool raw_escapes, struct buffer *out,
                      struct error *err);

/* A name; or a number, or one of a shell's special characters, which are never set. */
static char *read_name(struct reader *reader)
{
    const char *start = reader->at;

    if (isdigit((unsigned char)*start)) {
        while (isdigit((unsigned char)*reader->at))
            reader->at++;
    } else if (*start && strchr("@*#?-$!", *start)) {
        reader->at++;
    } else {
        while (isalnum((unsigned char)*reader->at) || *reader->at == '_')
            reader->at++;
    }
    return xstrndup(start, (size_t)(reader->at - start));
}

/* Of value, the shortest or longest beginning or end that fits the pattern, as [*from, *to). False:
 * none. Patterns of ${...} know * and ?, which also stand for slashes. */
static bool find_fit(const char *value, const char *pattern, char kind, bool longest, size_t *from,
                     size_t *to)
{
    size_t length = strlen(value);
    struct glob glob;
    bool found = false;

    if (!glob_compile(&glob, pattern, false))
        length = 0;
    for (size_t i = 0; i < glob.count; i++) {
        if (glob.tokens[i].kind == GLOB_STAR)
            glob.tokens[i].kind = GLOB_ANYTHING;
    }
    for (size_t n = 0; n <= length && !found; n++) {
        size_t size = longest ? length - n : n;
        size_t start = kind == '#' ? 0 : length - size;
        _cleanup_free_ char *part = xstrndup(value + start, size);
        if (glob_matches(&glob, part)) {
            *from = start;
            *to = start + size;
            found = true;
        }
    }
    glob_finish(&glob);
    return found;
}

/* ${name#pattern}, ${name%pattern}: at is behind the first of these characters. */
static int cut_value(struct reader *reader, const char *value, char kind, struct buffer *out,
                     struct error *err)
{
    _cleanup_buffer_ struct buffer pattern = BUFFER_INIT;
    bool longest = *reader->at == kind;
    size_t from, to;

    if (longest)
        reader->at++;
    int r = read_until(reader, '}', true, &pattern, err);
    if (r < 0 || !value)
        return r;
    if (!find_fit(value, buffer_text(&pattern), kind, longest, &from, &to))
        buffer_append_text(out, value);
    else if (kind == '#')
        buffer_append_text(out, value + to);
    else
        buffer_append(out, value, from);
    return 0;
}

/* ${name/text/word}, ${name//text/word} with a plain text. */
static int replace_value(struct reader *reader, const char *value, struct buffer *out,
                         struct error *err)
{
    _cleanup_buffer_ struct buffer pattern = BUFFER_INIT, word = BUFFER_INIT;
    bool all = *reader->at == '/';

    if (all)
        reader->at++;
    int r = read_until(reader, '/', true, &pattern, err);
    if (r == 0)
        r = read_until(reader, '}', true, &word, err);
    if (r < 0 || !value)
        return r;
    size_t length = pattern.length;
    const char *hit;
    while (length && (hit = strstr(value, buffer_text(&pattern))) &&
           out->length <= DOCKERFILE_WORD_MAX) {
        buffer_append(out, value, (size_t)(hit - value));
        buffer_append_text(out, buffer_text(&word));
        value = hit + length;
        if (!all)
            break;
    }
    buffer_append_text(out, value);
    return 0;
}

/* ${name-word} and its like. */
static int choose_value(struct reader *reader, const char *name, const char *value, char kind,
                        struct buffer *out, struct error *err)
{
    _cleanup_buffer_ struct buffer word = BUFFER_INIT;
    int r = read_until(reader, '}', false, &word, err);

    if (r < 0)
        return r;
    if (kind == '?' && !value)
        return error_set(err, -EINVAL, "%s: %s", name,
                         word.length ? buffer_text(&word) : "is not allowed to be unset");
    if (kind == '+')
        buffer_append_text(out, value ? buffer_text(&word) : "");
    else
        buffer_append_text(out, value ? value : buffer_text(&word));
    return 0;
}

/* Behind "${". */
static int read_braces(struct reader *reader, struct buffer *out, struct error *err)
{
    if (!*reader->at)
        return error_set(err, -EINVAL, "syntax error: missing '}'");
    if (strchr("{}:", *reader->at))
        return error_set(err, -EINVAL, "syntax error: bad substitution");
    _cleanup_free_ char *name = read_name(reader);
    const char *value = words_variable(reader->rules->env, name);
    char kind = *reader->at ? *reader->at++ : '\0';
    if (kind == '}') {
        buffer_append_text(out, value ? value : "");
        return 0;
    }
    bool colon = kind == ':';
    if (colon) {
        kind = *reader->at ? *reader->at++ : '\0';
        value = text_empty(value) ? NULL : value;
    }
    if (kind && strchr("-+?", kind))
        return choose_value(reader, name, value, kind, out, err);
    if (!colon && kind && strchr("#%", kind))
        return cut_value(reader, value, kind, out, err);
    if (!colon && kind == '/')
        return replace_value(reader, value, out, err);
    if (!kind)
        return error_set(err, -EINVAL, "syntax error: missing '}'");
    return error_set(err, -EINVAL, "unsupported modifier (%s%c) in substitution", colon ? ":" : "",
                     kind);
}

/* At a '$'. */
static int read_variable(struct reader *reader, struct buffer *out, struct error *err)
{
    reader->at++;
    if (*reader->at != '{') {
        _cleanup_free_ char *name = read_name(reader);
        const char *value = words_variable(reader->rules->env, name);
        buffer_append_text(out, name[0] ? (value ? value : "") : "$");
        return 0;
    }
    reader->at++;
    if (++reader->depth > DOCKERFILE_NESTING_MAX)
        return error_set(err, -EFBIG, "variables are nested more than %d deep",
                         DOCKERFILE_NESTING_MAX);
    /* What is inside of the braces makes no words of its own. */
    char ***words = reader->words;
    reader->words = NULL;
    int r = read_braces(reader, out, err);
    reader->words = words;
    reader->depth--;
    return r;
}

/* --- quotes ----------------------------------------------------------------------------------- */

static int read_single_quotes(struct reader *reader, struct buffer *out, struct error *err)
{
    const char *start = reader->at + 1, *end = strchr(start, '\'');

    if (!end)
        return error_set(err, -EINVAL,
                         "unexpected end of statement while looking for matching single-quote");
    if (reader->rules->raw) {
        start--;
        end++;
    }
    buffer_append(out, start, (size_t)(end - start));
    reader->at = end + (reader->rules->raw ? 0 : 1);
    return 0;
}

static int read_double_quotes(struct reader *reader, struct buffer *out, struct error *err)
{
    const struct words_rules *rules = reader->rules;

    reader->at++;
    if (rules->raw)
        buffer_append_char(out, '"');
    for (;;) {
        char c = *reader->at;
        if (!c)
            return error_set(err, -EINVAL,
                             "unexpected end of statement while looking for matching double-quote");
        if (c == '$' && !rules->raw) {
            int r = read_variable(reader, out, err);
            if (r < 0)
                return r;
            continue;
        }
        reader->at++;
        if (c == '"')
            break;
        /* Only these can be escaped here; any other escape stays as it is. */
        if (c == rules->escape && *reader->at &&
            (strchr("\"$", *reader->at) || *reader->at == rules->escape)) {
            if (rules->raw)
                buffer_append_char(out, c);
            c = *reader->at++;
        }
        buffer_append_char(out, c);
    }
    if (rules->raw)
        buffer_append_char(out, '"');
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int read_quotes(struct reader *reader, struct buffer *out, struct error *err)
{
    size_t before = out->length;
    int r = *reader->at == '"' ? read_double_quotes(reader, out, err)
                               : read_single_quotes(reader, out, err);

    if (r == 0)
        add_raw(reader, buffer_text(out) + before, out->length - before);
    return r;
}

static int read_open_variable(struct reader *reader, struct buffer *out, struct error *err)
{
    size_t before = out->length;
    int r = read_variable(reader, out, err);

    if (r == 0)
        add_open(reader, buffer_text(out) + before);
    return r;
}

/* One character that is nothing special, or an escaped one. False: an escape at the very end. */
static bool read_character(struct reader *reader, bool raw_escapes, struct buffer *out)
{
    char c = *reader->at++;

    if (c == reader->rules->escape && !raw_escapes) {
        if (reader->rules->raw) {
            buffer_append_char(out, c);
            add_raw(reader, &c, 1);
        }
        if (!*reader->at)
            return false;
        c = *reader->at++;
        add_raw(reader, &c, 1);
    } else {
        add_open(reader, (char[]){c, '\0'});
    }
    buffer_append_char(out, c);
    return true;
}

/* Up to and with stop; '\0': to the end. */
static int read_until(struct reader *reader, char stop, bool raw_escapes, struct buffer *out,
                      struct error *err)
{
    for (;;) {
        char c = *reader->at;
        int r = 0;
        if (out->length > DOCKERFILE_WORD_MAX)
            return error_set(err, -EFBIG, "a word of more than %d bytes", DOCKERFILE_WORD_MAX);
        if (c == stop) {
            if (c)
                reader->at++;
            return 0;
        }
        if (!c)
            break;
        if (c == '$' && !reader->rules->raw)
            r = read_open_variable(reader, out, err);
        else if (c == '"' || c == '\'')
            r = read_quotes(reader, out, err);
        else if (!read_character(reader, raw_escapes, out))
            break;
        if (r < 0)
            return r;
    }
    return stop ? error_set(err, -EINVAL,
                            "unexpected end of statement while looking for matching %c", stop)
                : 0;
}

static int read_all(const char *text, const struct words_rules *rules, char ***words,
                    struct buffer *out, struct error *err)
{
    struct reader reader = {.at = text, .rules = rules, .words = words};
    int r = read_until(&reader, '\0', false, out, err);

    if (r < 0)
        error_context(err, "failed to process \"%.200s\"", text);
    else
        end_word(&reader);
    buffer_finish(&reader.word);
    return r;
}

int words_expand(const char *text, const struct words_rules *rules, char **ret, struct error *err)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    int r = read_all(text, rules, NULL, &out, err);

    if (r == 0 && rules->total && (*rules->total += out.length) > DOCKERFILE_CONFIG_MAX)
        r = error_set(err, -EFBIG, "words of more than %d bytes", DOCKERFILE_CONFIG_MAX);
    if (r == 0)
        *ret = buffer_steal(&out);
    return r;
}

int words_split(const char *text, const struct words_rules *rules, char ***ret, struct error *err)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_strv_ char **words = NULL;
    int r = read_all(text, rules, &words, &out, err);

    if (r == 0)
        *ret = steal_ptr(words);
    return r;
}

int words_expand_content(const char *text, const struct words_rules *rules, char **ret,
                         struct error *err)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    struct reader reader = {.at = text, .rules = rules};

    while (*reader.at) {
        char c = *reader.at;
        if (out.length > DOCKERFILE_MAX)
            return error_set(err, -EFBIG, "a heredoc of more than %d bytes", DOCKERFILE_MAX);
        if (c == '$') {
            int r = read_variable(&reader, &out, err);
            if (r < 0)
                return r;
            continue;
        }
        if (c == rules->escape && (reader.at[1] == '$' || reader.at[1] == rules->escape))
            reader.at++;
        buffer_append_char(&out, *reader.at++);
    }
    *ret = buffer_steal(&out);
    return 0;
}
