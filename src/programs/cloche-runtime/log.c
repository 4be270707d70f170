#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cloche/runtime.h>
#include <schema/json.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>

#include "program.h"

static struct {
    int fd; /* -1: standard error only, as text */
    bool json, debug, errors_only;
} settings = {.fd = -1};

void program_log_configure(int fd, bool json, bool debug, bool errors_only)
{
    settings.fd = fd;
    settings.json = json;
    settings.debug = debug;
    settings.errors_only = errors_only;
}

static bool is_open(unsigned fd)
{
    return settings.fd != (int)fd && fcntl((int)fd, F_GETFD) >= 0;
}

int program_log_keep_off(unsigned first, unsigned listen_fds, unsigned *preserve_fds,
                         struct error *err)
{
    unsigned end = first + listen_fds + *preserve_fds;

    if (settings.fd < (int)first || settings.fd >= (int)end)
        return 0;
    int fd = fcntl(settings.fd, F_DUPFD_CLOEXEC, (int)end);
    if (fd < 0) { /* above the limit of open files: behind the last one that there is to keep */
        while (*preserve_fds && !is_open(end - 1)) {
            end--;
            --*preserve_fds;
        }
        fd = fcntl(settings.fd, F_DUPFD_CLOEXEC, (int)end);
    }
    if (fd < 0)
        return error_set(err, -EINVAL,
                         "--preserve-fds: there is no place for the log's descriptor behind %u "
                         "others",
                         listen_fds + *preserve_fds);
    close(settings.fd);
    settings.fd = fd;
    return 0;
}

/* Quoted as JSON, and without controls of ISO 6429 beyond those, U+0080 to U+009F, which terminals
 * obey, too. */
static void quote(struct buffer *line, const char *message)
{
    _cleanup_buffer_ struct buffer quoted = BUFFER_INIT;

    json_quote(&quoted, message, strlen(message));
    for (const char *c = buffer_text(&quoted); *c; c++) {
        bool wide = (unsigned char)c[0] == 0xc2 && (unsigned char)c[1] >= 0x80 &&
                    (unsigned char)c[1] < 0xa0;
        if (wide)
            buffer_printf(line, "\\u%04x", (unsigned char)*++c);
        else
            buffer_append_char(line, *c);
    }
}

static void write_line(int fd, bool json, const char *level, const char *message)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    _cleanup_free_ char *when = clock_format(clock_now());

    strcpy(when + strlen("yyyy-mm-ddThh:mm:ss"), "Z");
    if (json) {
        buffer_printf(&line, "{\"level\":\"%s\",\"msg\":", level);
        quote(&line, message);
        buffer_printf(&line, ",\"time\":\"%s\"}\n", when);
    } else {
        buffer_printf(&line, "time=\"%s\" level=%s msg=", when, level);
        quote(&line, message);
        buffer_append_char(&line, '\n');
    }
    (void)file_write_all(fd, line.data, line.length);
}

static void write_log(const char *level, const char *message)
{
    write_line(settings.fd >= 0 ? settings.fd : STDERR_FILENO, settings.json, level, message);
}

void program_debug(const char *const *steps)
{
    for (; settings.debug && *steps; steps++)
        write_log("debug", *steps);
}

void program_warn(const char *text)
{
    if (!settings.errors_only)
        write_log("warning", text);
}

void program_log(void *context _unused_, enum cloche_runtime_level level, const char *text)
{
    if (level == CLOCHE_RUNTIME_WARNING)
        program_warn(text);
    else if (settings.debug)
        write_log("debug", text);
}

/* On standard error runc's init says itself, bare, why its program did not execute. */
static bool is_of_execve(const char *message)
{
    return text_starts_with(message, "exec /");
}

/* Names that an image or a bundle gave may be in it: none of them is to drive the user's terminal,
 * or to look like a line of ours. Controls of ISO 6429 come as UTF-8, too: U+0080 to U+009F. */
static void print_plainly(const char *message)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    for (const unsigned char *c = (const unsigned char *)message; *c; c++) {
        bool wide = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0;
        if (*c == '\n')
            buffer_append(&line, "\\n", 2);
        else if (wide || *c < ' ' || *c == 0x7f)
            buffer_printf(&line, "\\x%02x", wide ? *++c : *c);
        else
            buffer_append_char(&line, (char)*c);
    }
    buffer_append_char(&line, '\n');
    (void)file_write_all(STDERR_FILENO, line.data, line.length);
}

static int fail(const char *message, const char *hint)
{
    bool bare = is_of_execve(message);

    if (settings.fd >= 0 || !bare)
        write_log("error", message);
    if (settings.fd >= 0 || bare)
        print_plainly(message);
    if (hint) {
        _cleanup_free_ char *line = xasprintf("hint: %s", hint);
        print_plainly(line);
    }
    return EXIT_CODE_FAILURE;
}

int program_fail(const struct error *err)
{
    return fail(error_message(err), err->hint);
}

int program_failed(const struct program *program)
{
    return fail(cloche_runtime_error(program->runtime), cloche_runtime_hint(program->runtime));
}

/* The words before the colon are runc's, which callers and tests look for. */
int program_failed_to(const struct program *program, const char *what)
{
    const char *message = cloche_runtime_error(program->runtime);
    _cleanup_free_ char *text =
        is_of_execve(message) ? xstrdup(message) : xasprintf("%s: %s", what, message);

    return fail(text, cloche_runtime_hint(program->runtime));
}

int program_usage_error(const struct command *command, const struct error *err)
{
    _cleanup_error_ struct error full = ERROR_INIT;

    error_set(&full, err->code, "%s: %s", command->name, error_message(err));
    error_hint(&full, "%s %s %s", PROGRAM_NAME, command->name, command->usage);
    return program_fail(&full);
}

void program_help(const struct command *command)
{
    printf("NAME:\n   %s %s - %s\n\nUSAGE:\n   %s [global options] %s %s\n", PROGRAM_NAME,
           command->name, command->summary, PROGRAM_NAME, command->name, command->usage);
}
