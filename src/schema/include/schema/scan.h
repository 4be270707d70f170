/*
 * Tokens of JSON text (RFC 8259), for readers that know what they expect. The text is in memory,
 * is well-formed UTF-8 (utf8_check()), and is not written to.
 *
 *     struct json_scan scan = {text, text + length, NULL};
 *     json_scan_blank(&scan);
 *     if (json_scan_peek(&scan) == '"' && json_scan_string(&scan, &token)) ...
 *
 * Functions that return bool leave `at` behind what they read; false: problem says in words what is
 * wrong at `at`.
 */
#ifndef SCHEMA_SCAN_H
#define SCHEMA_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include <base/buffer.h>

struct json_scan {
    const char *at;
    const char *end;
    const char *problem; /* static */
};

/* A part of the text, not a copy. */
struct json_token {
    const char *text; /* of a string: without its quotes */
    size_t length;
    bool escaped; /* a string that has escapes: json_unescape() */
};

/* '\0' at the end of the text (and for a NUL, which begins no token). */
static inline char json_scan_peek(const struct json_scan *scan)
{
    return scan->at < scan->end ? *scan->at : '\0';
}

static inline void json_scan_blank(struct json_scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\t' || *scan->at == '\r'))
        scan->at++;
}

/* What begins with '"', with a digit or '-', with a letter. */
bool json_scan_string(struct json_scan *scan, struct json_token *ret);
bool json_scan_number(struct json_scan *scan, struct json_token *ret);
bool json_scan_literal(struct json_scan *scan, const char *literal);

/* A whole value of at most depth levels, with everything in it. Keys may stand twice. */
bool json_scan_skip(struct json_scan *scan, unsigned depth, struct json_token *ret);

struct json_problem {
    char text[64];
};

/* Appends the text of an escaped string, a token of json_scan_string(). False: it has a NUL or half
 * of a surrogate pair. */
bool json_unescape(const struct json_token *token, struct buffer *out,
                   struct json_problem *problem);

#endif
