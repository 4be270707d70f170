/*
 * Keys that part a client from a container's terminal, found in what is typed.
 */
#ifndef BASE_DETACH_KEYS_H
#define BASE_DETACH_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

/* "ctrl-p,ctrl-q" and the like, as docker names them. */
enum { DETACH_KEYS_MAX = 16 };
struct detach_keys {
    unsigned char keys[DETACH_KEYS_MAX];
    unsigned count;
    unsigned matched; /* of the sequence, at the end of what was read so far */
};
#define DETACH_KEYS_DEFAULT "ctrl-p,ctrl-q"

/* text "" gives none: nothing detaches. */
int detach_keys_parse(const char *text, struct detach_keys *ret, struct error *err);

/* Filters what was typed: of the bytes in data, those that are not (or not any more) part of the
 * sequence are written to out (room for length + DETACH_KEYS_MAX) and their number to *ret_length.
 * Returns true when the sequence was completed; what follows it is dropped. */
bool detach_keys_filter(struct detach_keys *keys, const unsigned char *data, size_t length,
                        unsigned char *out, size_t *ret_length);

#endif
