/*
 * Errors with context.
 *
 * A function that can fail returns 0 (or something useful and non-negative) or -errno, and takes a
 * trailing `struct error *err`. The message is for a person and is built once, where the failure
 * is known: what was being done, to what, why it failed. Callers on the way up add context in front
 * ("load shop.tar: layer 3: ...") and may add a hint, which says what to try next.
 *
 * err may be NULL: the code is still returned. A struct error starts as ERROR_INIT and is finished
 * with error_finish(), best by `_cleanup_error_ struct error err = ERROR_INIT;`.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

#include <base/cleanup.h>

struct error {
    int code;      /* negative errno, 0 when unset */
    char *message; /* owned; one line, no trailing newline or full stop */
    char *hint;    /* owned; may be NULL: what to try next */
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        0, NULL, NULL                                                                              \
    }

/* Sets code (negative errno) and message; what was there before is
 * replaced. Returns code. */
int error_set(struct error *err, int code, const char *format, ...) _printf_(3, 4);

/* As error_set, with ": " and the text of the errno appended. errno_value is positive. Returns
 * -errno_value. Typical: return error_errno(err, errno, "open %s", path); */
int error_errno(struct error *err, int errno_value, const char *format, ...) _printf_(3, 4);

/* Puts "context: " in front of the message. Returns err->code (0 when err is NULL): use the code
 * in hand when err may be NULL. */
int error_context(struct error *err, const char *format, ...) _printf_(2, 3);

/* Sets or replaces the hint. Returns err->code. */
int error_hint(struct error *err, const char *format, ...) _printf_(2, 3);

/* Moves from into to (to may be NULL: from is then released). Returns the code moved. */
int error_move(struct error *to, struct error *from);

/* The message, never NULL. */
const char *error_message(const struct error *err);

void error_finish(struct error *err);

#define _cleanup_error_ _cleanup_(error_finish)

#endif
