/*
 * Logging of programs (library code reports through struct error instead). On a terminal: coloured
 * text. Elsewhere: one JSON object a line,
 *     {"time":"2026-11-20T10:00:00.123456789Z","level":"warning","program":"cloched","message":"..."}
 * Control characters in messages are escaped in both forms. Thread-safe: a line is one write(2).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <base/error.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

enum log_format {
    LOG_FORMAT_AUTO, /* text when the descriptor is a terminal, else JSON */
    LOG_FORMAT_TEXT,
    LOG_FORMAT_JSON,
};

/* program must stay valid. fd is not owned. Until called: stderr, LOG_INFO, auto. */
void log_configure(const char *program, int fd, enum log_level level, enum log_format format);

void log_write(enum log_level level, const char *format, ...) _printf_(2, 3);

/* "message: error message", and the hint on a terminal. */
void log_failure(enum log_level level, const struct error *err, const char *format, ...)
    _printf_(3, 4);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
