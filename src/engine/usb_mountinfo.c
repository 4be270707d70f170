#include "usb_mountinfo.h"

#include <string.h>

#include <base/text.h>

/* Blanks and the like are \ooo in mountinfo. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *at = text; *at; at++) {
        if (at[0] == '\\' && strspn(at + 1, "01234567") >= 3) {
            *to++ = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
            at += 3;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

static bool is_of(const char *line, const char *source)
{
    static const char type[] = " - fuse ";
    const char *at = strstr(line, type);

    if (!at || !text_starts_with(at + strlen(type), source))
        return false;
    return at[strlen(type) + strlen(source)] == ' ';
}

/* A line is: number, parent, device, root, mount point, ... */
char *usb_mountinfo_point(char *line, const char *device, const char *source)
{
    enum { DEVICE = 2, POINT = 4 };
    if (!is_of(line, source))
        return NULL;
    char *rest, *word = strtok_r(line, " ", &rest);

    for (int i = 0; word && i < POINT; i++) {
        if (i == DEVICE && !text_equal(word, device))
            return NULL;
        word = strtok_r(NULL, " ", &rest);
    }
    if (word)
        unescape(word);
    return word;
}
