/*
 * Strings and lists of strings. A string list is a NULL-terminated array (`char **`), both the
 * array and the strings owned; NULL is a valid empty list.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

bool text_equal(const char *a, const char *b); /* NULL equals only NULL */
bool text_empty(const char *text);             /* NULL or "" */
bool text_starts_with(const char *text, const char *prefix);
bool text_ends_with(const char *text, const char *suffix);

/* Whole-string decimal numbers within [min, max]; -EINVAL or -ERANGE otherwise, without message. */
int text_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
int text_to_i64(const char *text, int64_t min, int64_t max, int64_t *ret);

/* "64m", "1.5g", "100" (bytes), suffixes b k m g t with optional "b"/"ib", powers of 1024, as
 * docker reads them. -EINVAL or -ERANGE. */
int text_to_size(const char *text, uint64_t *ret);

/* 1500000 -> "1.5MB" (powers of 1000, as docker prints sizes). Owned by the caller. */
char *text_from_size(uint64_t bytes);

/* 2 * size hex digits into ret plus NUL. */
void text_hex(const void *data, size_t size, char *ret);

/* A random identifier of `digits` lowercase hex digits plus NUL, from getrandom(). digits <= 64. */
void text_random_hex(char *ret, size_t digits);

/* Whether text is exactly `digits` lowercase hex digits. */
bool text_is_hex(const char *text, size_t digits);

/* What a terminal would take for more than text becomes blanks: control characters (C0, DEL, and C1
 * as UTF-8 has it) and those that turn the direction of writing; bytes that are no UTF-8 become
 * '?'. Of the control characters those in `allowed` stay. NULL is fine; returns text. */
char *text_make_harmless(char *text, const char *allowed);

size_t strv_length(char *const *list);
bool strv_contains(char *const *list, const char *text);
void strv_append(char ***list, const char *text);    /* copies text */
void strv_take(char ***list, char *text);            /* takes text over */
char **strv_split(const char *text, char separator); /* "" gives an empty list (NULL) */
char *strv_join(char *const *list, const char *separator);
char **strv_copy(char *const *list);
void strv_free(char **list);

static inline void cleanup_strv_p(char ***list)
{
    strv_free(*list);
}
#define _cleanup_strv_ _cleanup_(cleanup_strv_p)

#endif
