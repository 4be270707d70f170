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

#endif
