#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

bool text_equal(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool text_empty(const char *text)
{
    return !text || !text[0];
}

bool text_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool text_ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);

    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

int text_to_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*end)
        return -EINVAL;
    if (errno || value < min || value > max)
        return -ERANGE;
    *ret = value;
    return 0;
}

int text_to_i64(const char *text, int64_t min, int64_t max, int64_t *ret)
{
    const char *digits = text[0] == '-' ? text + 1 : text;
    char *end;

    if (!isdigit((unsigned char)digits[0]))
        return -EINVAL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*end)
        return -EINVAL;
    if (errno || value < min || value > max)
        return -ERANGE;
    *ret = value;
    return 0;
}

/* "", "b", "k", "kb", "kib" ... -> number of times 1024; -1 when it is none of these. */
static int size_suffix_power(const char *suffix)
{
    static const char letters[] = "bkmgtp";

    if (!suffix[0])
        return 0;
    const char *letter = strchr(letters, tolower((unsigned char)suffix[0]));
    if (!letter)
        return -1;
    const char *rest = suffix + 1;
    if (letter != letters && tolower((unsigned char)rest[0]) == 'i')
        rest++;
    else if (letter == letters)
        return rest[0] ? -1 : 0;
    if (tolower((unsigned char)rest[0]) == 'b')
        rest++;
    return rest[0] ? -1 : (int)(letter - letters);
}

int text_to_size(const char *text, uint64_t *ret)
{
    char *end;

    if (!isdigit((unsigned char)text[0]) || text[strspn(text, "0123456789.")] == 'x')
        return -EINVAL;
    errno = 0;
    unsigned long long whole = strtoull(text, &end, 10);
    if (errno)
        return -ERANGE;
    double fraction = 0;
    if (*end == '.') {
        double scale = 0.1;
        for (end++; isdigit((unsigned char)*end); end++, scale /= 10)
            fraction += (*end - '0') * scale;
    }
    while (*end == ' ')
        end++;
    int power = size_suffix_power(end);
    if (power < 0)
        return -EINVAL;
    uint64_t unit = (uint64_t)1 << (10 * power);
    uint64_t bytes;
    if (__builtin_mul_overflow((uint64_t)whole, unit, &bytes) ||
        __builtin_add_overflow(bytes, (uint64_t)(fraction * (double)unit), &bytes))
        return -ERANGE;
    *ret = bytes;
    return 0;
}

char *text_from_size(uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1000;
        unit++;
    }
    return xasprintf("%.3g%s", value, units[unit]);
}

void text_hex(const void *data, size_t size, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = data;

    for (size_t i = 0; i < size; i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[2 * size] = '\0';
}

void text_random_hex(char *ret, size_t digits)
{
    unsigned char random[32];
    char hex[65];

    if (digits > 64)
        abort();
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        abort(); /* up to 256 bytes never come short once the pool is initialised: getrandom(2) */
    text_hex(random, sizeof(random), hex);
    memcpy(ret, hex, digits);
    ret[digits] = '\0';
}

bool text_is_hex(const char *text, size_t digits)
{
    return strspn(text, "0123456789abcdef") == digits && !text[digits];
}

/* Bytes of the character that begins here; 0: none does. */
static size_t character_length(const unsigned char *at)
{
    size_t length = *at < 0x80                   ? 1
                    : *at >= 0xc2 && *at <= 0xdf ? 2
                    : (*at & 0xf0) == 0xe0       ? 3
                    : *at >= 0xf0 && *at <= 0xf4 ? 4
                                                 : 0;

    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* U+061C, U+200E and F, U+2028 to E, U+2066 to 9 (Unicode, UAX 9), and U+0080 to 9F. */
static bool is_turning(const unsigned char *at, size_t length)
{
    if (length == 2)
        return (at[0] == 0xc2 && at[1] < 0xa0) || (at[0] == 0xd8 && at[1] == 0x9c);
    if (length != 3 || at[0] != 0xe2)
        return false;
    return (at[1] == 0x80 &&
            (at[2] == 0x8e || at[2] == 0x8f || (at[2] >= 0xa8 && at[2] <= 0xae))) ||
           (at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9);
}

char *text_make_harmless(char *text, const char *allowed)
{
    for (unsigned char *at = (unsigned char *)text; at && *at;) {
        size_t length = character_length(at);
        if (!length)
            *at = '?';
        else if ((length == 1 && (*at < ' ' || *at == 0x7f) && !strchr(allowed, *at)) ||
                 is_turning(at, length))
            memset(at, ' ', length);
        at += length ? length : 1;
    }
    return text;
}

size_t strv_length(char *const *list)
{
    size_t length = 0;

    while (list && list[length])
        length++;
    return length;
}

bool strv_contains(char *const *list, const char *text)
{
    for (; list && *list; list++) {
        if (strcmp(*list, text) == 0)
            return true;
    }
    return false;
}

void strv_take(char ***list, char *text)
{
    size_t length = strv_length(*list);

    *list = xrealloc(*list, length + 2, sizeof(**list));
    (*list)[length] = text;
    (*list)[length + 1] = NULL;
}

void strv_append(char ***list, const char *text)
{
    strv_take(list, xstrdup(text));
}

char **strv_split(const char *text, char separator)
{
    char **list = NULL;

    if (!text[0])
        return NULL;
    for (;;) {
        const char *end = strchr(text, separator);
        if (!end) {
            strv_append(&list, text);
            return list;
        }
        strv_take(&list, xstrndup(text, (size_t)(end - text)));
        text = end + 1;
    }
}

char *strv_join(char *const *list, const char *separator)
{
    struct buffer joined = BUFFER_INIT;

    for (size_t i = 0; list && list[i]; i++) {
        if (i)
            buffer_append_text(&joined, separator);
        buffer_append_text(&joined, list[i]);
    }
    return buffer_steal(&joined);
}

char **strv_copy(char *const *list)
{
    char **copy = NULL;

    if (!list)
        return NULL;
    size_t length = strv_length(list);
    copy = xnew_array(char *, length + 1);
    for (size_t i = 0; i < length; i++)
        copy[i] = xstrdup(list[i]);
    return copy;
}

void strv_free(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}
