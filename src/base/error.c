#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <base/alloc.h>
#include <base/error.h>

enum {
    TEXT_MAX = 4096, /* bytes of a message: it may quote values that others made long */
    HEAD_KEPT = 2048,
    TAIL_KEPT = 1024,
};

static bool is_continuation(char c) /* of a UTF-8 character */
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Takes the middle out of an overlong message: its beginning says where, its end why. */
static void shorten(char *text)
{
    size_t length = strlen(text), head = HEAD_KEPT, tail = length - TAIL_KEPT;

    if (length <= TEXT_MAX)
        return;
    while (head && is_continuation(text[head]))
        head--;
    while (is_continuation(text[tail]))
        tail++;
    memcpy(text + head, " ... ", 5);
    memmove(text + head + 5, text + tail, length - tail + 1);
}

static void replace(char **field, char *text)
{
    if (text)
        shorten(text);
    free(*field);
    *field = text;
}

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;

    if (!err)
        return code;
    va_start(args, format);
    char *message = xvasprintf(format, args); /* format may print the old message */
    va_end(args);
    replace(&err->message, message);
    replace(&err->hint, NULL);
    err->code = code;
    return code;
}

int error_errno(struct error *err, int errno_value, const char *format, ...)
{
    va_list args;

    if (!err)
        return -errno_value;
    va_start(args, format);
    _cleanup_free_ char *what = xvasprintf(format, args);
    va_end(args);
    replace(&err->message, xasprintf("%s: %s", what, strerror(errno_value)));
    replace(&err->hint, NULL);
    err->code = -errno_value;
    return -errno_value;
}

int error_context(struct error *err, const char *format, ...)
{
    va_list args;

    if (!err)
        return 0;
    va_start(args, format);
    _cleanup_free_ char *context = xvasprintf(format, args);
    va_end(args);
    replace(&err->message, xasprintf("%s: %s", context, error_message(err)));
    return err->code;
}

int error_hint(struct error *err, const char *format, ...)
{
    va_list args;

    if (!err)
        return 0;
    va_start(args, format);
    replace(&err->hint, xvasprintf(format, args));
    va_end(args);
    return err->code;
}

int error_move(struct error *to, struct error *from)
{
    int code = from->code;

    if (to) {
        error_finish(to);
        *to = *from;
        *from = (struct error)ERROR_INIT;
    } else {
        error_finish(from);
    }
    return code;
}

const char *error_message(const struct error *err)
{
    if (err->message)
        return err->message;
    return err->code ? strerror(-err->code) : "no error";
}

void error_finish(struct error *err)
{
    replace(&err->message, NULL);
    replace(&err->hint, NULL);
    err->code = 0;
}
