/*
 * The user's terminal: its size, and raw mode that is undone whatever way the program ends.
 */
#ifndef CLOCHE_TERMINAL_H
#define CLOCHE_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>

/* 0, or -ENOTTY, or -ENODATA when the terminal says 0 x 0 (a serial line). */
int terminal_size(int fd, uint16_t *ret_rows, uint16_t *ret_columns);

/* Puts fd into raw mode: keys go to the container, ^C and ^Z too. Undone by terminal_restore(), at
 * exit(), and on abort() and faults. One terminal at a time. */
int terminal_make_raw(int fd, struct error *err);

/* Nothing to undo is nothing to do. Async-signal-safe. */
void terminal_restore(void);

/* Keys that detach: "ctrl-p,ctrl-q" and the like, as docker names them. */
enum { DETACH_KEYS_MAX = 8 };
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
