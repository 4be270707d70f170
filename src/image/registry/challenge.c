#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "challenge.h"

void challenge_finish(struct challenge *challenge)
{
    free(challenge->realm);
    free(challenge->service);
    free(challenge->scope);
    *challenge = (struct challenge){0};
}

/* RFC 9110 5.6.2. */
static size_t token_length(const char *at)
{
    return strspn(at, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                      "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

static const char *skip_blanks(const char *at)
{
    return at + strspn(at, " \t");
}

/* A quoted string or a token. Returns what stands behind it, NULL when it is neither. */
static const char *read_value(const char *at, char **ret)
{
    _cleanup_buffer_ struct buffer value = BUFFER_INIT;

    if (*at != '"') {
        size_t length = token_length(at);
        if (!length)
            return NULL;
        *ret = xstrndup(at, length);
        return at + length;
    }
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            at++;
        buffer_append_char(&value, *at);
    }
    if (*at != '"')
        return NULL;
    *ret = buffer_steal(&value);
    return at + 1;
}

static void set_parameter(struct challenge *challenge, const char *name, size_t length, char *value)
{
    static const char *const names[] = {"realm", "service", "scope"};
    char **const places[] = {&challenge->realm, &challenge->service, &challenge->scope};

    for (size_t i = 0; i < 3; i++) {
        if (strlen(names[i]) == length && strncasecmp(names[i], name, length) == 0 && !*places[i]) {
            *places[i] = value;
            return;
        }
    }
    free(value);
}

static enum challenge_scheme scheme_of(const char *name, size_t length)
{
    if (length == strlen("Bearer") && strncasecmp(name, "Bearer", length) == 0)
        return CHALLENGE_BEARER;
    if (length == strlen("Basic") && strncasecmp(name, "Basic", length) == 0)
        return CHALLENGE_BASIC;
    return CHALLENGE_NONE;
}

/* A bearer challenge without a service to go to is of no use. */
static void keep_better(struct challenge *best, struct challenge *read)
{
    if (read->scheme > best->scheme &&
        (read->scheme != CHALLENGE_BEARER || !text_empty(read->realm))) {
        challenge_finish(best);
        *best = *read;
        *read = (struct challenge){0};
    }
    challenge_finish(read);
}

void challenge_parse(const char *text, struct challenge *ret)
{
    struct challenge current = {0};
    const char *at = strnlen(text, CHALLENGE_MAX) < CHALLENGE_MAX ? text : "";

    for (;;) {
        at += strspn(at, " \t,");
        const char *name = at;
        size_t length = token_length(at);
        if (!length)
            break;
        at = skip_blanks(at + length);
        if (*at == '=') {
            char *value = NULL;
            at = read_value(skip_blanks(at + 1), &value);
            if (!at)
                break;
            set_parameter(&current, name, length, value);
        } else {
            keep_better(ret, &current);
            current.scheme = scheme_of(name, length);
        }
    }
    keep_better(ret, &current);
}
