#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "filename.h"

/* The last component; NULL where the path ends in a slash, or where it is none. Owned. */
static char *last_component(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    const char *name = slash ? slash + 1 : path;

    if (text_empty(name) || strlen(name) > FILENAME_MAX_BYTES || text_equal(name, ".") ||
        text_equal(name, ".."))
        return NULL;
    return xstrdup(name);
}

static bool is_token(char c)
{
    return (unsigned char)c > ' ' && c != 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

/* A value as a token or "in \"quotes\"" (RFC 2183, RFC 822). Owned; *at is behind it. NULL: it is
 * neither. */
static char *take_value(const char **at)
{
    struct buffer value = BUFFER_INIT;
    const char *c = *at;

    if (*c != '"') {
        size_t length = 0;
        while (is_token(c[length]))
            length++;
        *at = c + length;
        return xstrndup(c, length);
    }
    for (c++; *c && *c != '"'; c++) {
        if (*c == '\\' && c[1])
            c++;
        buffer_append_char(&value, *c);
    }
    if (*c != '"') {
        buffer_finish(&value);
        return NULL;
    }
    *at = c + 1;
    return value.length ? buffer_steal(&value) : xstrdup("");
}

/* attachment; filename="a b.tar"; size=3. Owned; NULL: it says none. */
static char *disposition_name(const char *disposition)
{
    static const char filename[] = "filename";
    const char *at = disposition ? strchr(disposition, ';') : NULL;

    while (at && *at == ';') {
        at += 1 + strspn(at + 1, " \t");
        size_t length = 0;
        while (is_token(at[length]))
            length++;
        bool wanted = length == strlen(filename) && strncasecmp(at, filename, length) == 0;
        at += length + strspn(at + length, " \t");
        if (!length || *at != '=')
            return NULL;
        at += 1 + strspn(at + 1, " \t");
        char *value = take_value(&at);
        if (!value || wanted)
            return value;
        free(value);
        at += strspn(at, " \t");
    }
    return NULL;
}

char *filename_choose(const char *path, const char *disposition)
{
    char *name = last_component(path);

    if (name)
        return name;
    _cleanup_free_ char *said = disposition_name(disposition);
    return last_component(said);
}
