#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <base/buffer.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/log.h>

static struct {
    const char *program;
    int fd;
    enum log_level level;
    enum log_format format;
} config = {"cloche", STDERR_FILENO, LOG_INFO, LOG_FORMAT_AUTO};

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARNING] = "warning",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

void log_configure(const char *program, int fd, enum log_level level, enum log_format format)
{
    if (format == LOG_FORMAT_AUTO)
        format = isatty(fd) ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
    config.program = program;
    config.fd = fd;
    config.level = level;
    config.format = format;
}

static bool is_text(void)
{
    if (config.format == LOG_FORMAT_AUTO)
        config.format = isatty(config.fd) ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
    return config.format == LOG_FORMAT_TEXT;
}

/* JSON string escapes serve the terminal too: nothing foreign can move its cursor. */
static void append_escaped(struct buffer *line, const char *text, bool json)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (json && (*c == '"' || *c == '\\'))
            buffer_printf(line, "\\%c", *c);
        else if (*c == '\n')
            buffer_append_text(line, "\\n");
        else if (*c < 0x20 || *c == 0x7f)
            buffer_printf(line, "\\u%04x", *c);
        else
            buffer_append_char(line, (char)*c);
    }
}

static void append_json(struct buffer *line, enum log_level level, const char *message)
{
    _cleanup_free_ char *time = clock_format(clock_now());

    buffer_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"", time,
                  level_names[level]);
    append_escaped(line, config.program, true);
    buffer_append_text(line, "\",\"message\":\"");
    append_escaped(line, message, true);
    buffer_append_text(line, "\"}\n");
}

static void append_text(struct buffer *line, enum log_level level, const char *message)
{
    static const char *const colours[] = {[LOG_ERROR] = "\033[31m",
                                          [LOG_WARNING] = "\033[33m",
                                          [LOG_INFO] = "",
                                          [LOG_DEBUG] = "\033[2m"};
    bool colour = isatty(config.fd) && colours[level][0];

    if (colour)
        buffer_append_text(line, colours[level]);
    buffer_printf(line, "%s: ", config.program);
    if (level != LOG_INFO)
        buffer_printf(line, "%s: ", level_names[level]);
    append_escaped(line, message, false);
    buffer_append_text(line, colour ? "\033[0m\n" : "\n");
}

static void write_line(enum log_level level, const char *message)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    if (is_text())
        append_text(&line, level, message);
    else
        append_json(&line, level, message);
    file_write_all(config.fd, line.data, line.length);
}

void log_write(enum log_level level, const char *format, ...)
{
    _cleanup_buffer_ struct buffer message = BUFFER_INIT;
    va_list args;

    if (level > config.level)
        return;
    va_start(args, format);
    buffer_vprintf(&message, format, args);
    va_end(args);
    write_line(level, buffer_text(&message));
}

void log_failure(enum log_level level, const struct error *err, const char *format, ...)
{
    _cleanup_buffer_ struct buffer message = BUFFER_INIT;
    va_list args;

    if (level > config.level)
        return;
    va_start(args, format);
    buffer_vprintf(&message, format, args);
    va_end(args);
    buffer_printf(&message, ": %s", error_message(err));
    if (err->hint)
        buffer_printf(&message, is_text() ? " (%s)" : "; %s", err->hint);
    write_line(level, buffer_text(&message));
}
