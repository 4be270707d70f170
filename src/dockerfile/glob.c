#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "glob.h"

bool glob_has_wildcard(const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' && text[1])
            text++;
        else if (strchr("*?[", *text))
            return true;
    }
    return false;
}

/* Behind a '[': up to its ']'. NULL: there is none. */
static const char *class_end(const char *at)
{
    if (*at == '^')
        at++;
    if (*at == ']')
        return NULL; /* an empty class is malformed to Go */
    for (; *at; at++) {
        if (*at == '\\' && at[1])
            at++;
        else if (*at == ']')
            return at;
    }
    return NULL;
}

static struct glob_token *add(struct glob *glob, enum glob_kind kind)
{
    struct glob_token *token = &glob->tokens[glob->count++];

    token->kind = kind;
    return token;
}

/* "**" also takes the slash behind it: "a" fits in it, and so does nothing. */
static const char *parse_stars(struct glob *glob, const char *at, bool deep)
{
    if (!deep || at[1] != '*') {
        add(glob, GLOB_STAR);
        return at + 1;
    }
    while (*at == '*')
        at++;
    if (*at == '/') {
        add(glob, GLOB_FOLDERS);
        return at + 1;
    }
    add(glob, GLOB_ANYTHING);
    return at;
}

bool glob_compile(struct glob *glob, const char *pattern, bool deep)
{
    const char *end;

    glob->tokens = xnew_array(struct glob_token, strlen(pattern) + 1);
    glob->count = 0;
    for (const char *at = pattern; *at;) {
        switch (*at) {
        case '*':
            at = parse_stars(glob, at, deep);
            break;
        case '?':
            add(glob, GLOB_ONE);
            at++;
            break;
        case '[':
            end = class_end(at + 1);
            if (!end)
                return false;
            *add(glob, GLOB_CLASS) = (struct glob_token){GLOB_CLASS, 0, at + 1, end};
            at = end + 1;
            break;
        case '\\':
            if (!*++at)
                return false;
            /* fall through */
        default:
            add(glob, GLOB_CHARACTER)->character = *at++;
        }
    }
    return true;
}

void glob_finish(struct glob *glob)
{
    free(glob->tokens);
}

static bool class_has(const struct glob_token *token, unsigned char c)
{
    const char *at = token->from;
    bool negated = *at == '^', found = false;

    if (negated)
        at++;
    while (at < token->to) {
        if (*at == '\\' && at + 1 < token->to)
            at++;
        unsigned char low = (unsigned char)*at++, high = low;
        if (at + 1 < token->to && *at == '-') {
            at++;
            if (*at == '\\' && at + 1 < token->to)
                at++;
            high = (unsigned char)*at++;
        }
        found = found || (c >= low && c <= high);
    }
    return found != negated;
}

static bool takes(const struct glob_token *token, char c)
{
    switch (token->kind) {
    case GLOB_CHARACTER:
        return token->character == c;
    case GLOB_ONE:
    case GLOB_STAR:
        return c != '/';
    case GLOB_CLASS:
        return c != '/' && class_has(token, (unsigned char)c);
    default:
        return true;
    }
}

static bool repeats(enum glob_kind kind)
{
    return kind == GLOB_STAR || kind == GLOB_ANYTHING || kind == GLOB_FOLDERS;
}

/* What can be skipped without taking anything. */
static void close_states(const struct glob *glob, unsigned char *states)
{
    for (size_t i = 0; i < glob->count; i++) {
        if (states[i] && repeats(glob->tokens[i].kind) &&
            (glob->tokens[i].kind != GLOB_FOLDERS || states[i] == 2))
            states[i + 1] = states[i + 1] ? states[i + 1] : 2;
    }
}

/* All places of the pattern at once; a place is 0: not reached, 1: inside of a GLOB_FOLDERS, 2:
 * reached anew. */
bool glob_matches(const struct glob *glob, const char *text)
{
    size_t size = glob->count + 2;
    _cleanup_free_ unsigned char *states = xcalloc(size, 1), *next = xcalloc(size, 1);

    states[0] = 2;
    close_states(glob, states);
    for (; *text; text++) {
        memset(next, 0, size);
        for (size_t i = 0; i < glob->count; i++) {
            const struct glob_token *token = &glob->tokens[i];
            if (!states[i] || !takes(token, *text))
                continue;
            if (!repeats(token->kind))
                next[i + 1] = 2;
            else if (token->kind == GLOB_FOLDERS)
                next[i] = *text == '/' ? 2 : (next[i] ? next[i] : 1);
            else
                next[i] = 2;
        }
        unsigned char *swap = states;
        states = next;
        next = swap;
        close_states(glob, states);
    }
    return states[glob->count] != 0;
}

bool glob_match(const char *pattern, const char *text)
{
    struct glob glob;
    bool matches = glob_compile(&glob, pattern, false) && glob_matches(&glob, text);

    glob_finish(&glob);
    return matches;
}
