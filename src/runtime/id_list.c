#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "id_list.h"

static const char *skip_space(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

/* Digits of any length: past max the value only has to stay past it. */
static int parse_number(const char **text, size_t max, size_t *ret)
{
    const char *digit = skip_space(*text);
    size_t value = 0;

    if (!isdigit((unsigned char)*digit))
        return -EINVAL;
    for (; isdigit((unsigned char)*digit); digit++) {
        if (value < max)
            value = value * 10 + (size_t)(*digit - '0');
    }
    *text = skip_space(digit);
    *ret = value;
    return 0;
}

static int parse_range(const char **text, unsigned long *mask, size_t max)
{
    size_t first, last;
    int r = parse_number(text, max, &first);

    last = first;
    if (r == 0 && **text == '-') {
        (*text)++;
        r = parse_number(text, max, &last);
    }
    if (r < 0)
        return r;
    if (first >= max || last >= max)
        return -ERANGE;
    if (last < first)
        return -EINVAL;
    for (size_t i = first; i <= last; i++)
        mask[i / ID_LIST_WORD_BITS] |= 1UL << (i % ID_LIST_WORD_BITS);
    return 0;
}

int id_list_parse(const char *text, unsigned long *mask, size_t max)
{
    memset(mask, 0, (max + ID_LIST_WORD_BITS - 1) / ID_LIST_WORD_BITS * sizeof(*mask));
    for (;;) {
        text = skip_space(text);
        if (*text != ',' && *text) {
            int r = parse_range(&text, mask, max);
            if (r < 0)
                return r;
        }
        if (!*text)
            return 0;
        if (*text++ != ',')
            return -EINVAL;
    }
}
