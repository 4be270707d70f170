#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "options.h"

struct parser {
    const struct option_group *groups;
    char *const *next; /* the argument after the one in hand */
    void *values;
    struct error *err;
};

const struct option *options_find(const struct option_group *groups, const char *name,
                                  size_t length, size_t *ret_offset)
{
    for (const struct option_group *group = groups; group && group->options; group++) {
        for (const struct option *option = group->options; option->name; option++) {
            if (strncmp(option->name, name, length) == 0 && !option->name[length]) {
                if (ret_offset)
                    *ret_offset = group->offset + option->offset;
                return option;
            }
        }
    }
    return NULL;
}

const struct option *options_find_short(const struct option_group *groups, char name,
                                        size_t *ret_offset)
{
    for (const struct option_group *group = groups; group && group->options; group++) {
        for (const struct option *option = group->options; option->name; option++) {
            if (name && option->short_name == name) {
                if (ret_offset)
                    *ret_offset = group->offset + option->offset;
                return option;
            }
        }
    }
    return NULL;
}

/* strconv.ParseBool's words, which docker takes. */
static int parse_flag(const char *text, bool *value, struct error *err)
{
    static char *const yes[] = {"1", "t", "T", "true", "TRUE", "True", NULL};
    static char *const no[] = {"0", "f", "F", "false", "FALSE", "False", NULL};

    if (!strv_contains(yes, text) && !strv_contains(no, text))
        return error_set(err, -EINVAL, "must be true or false");
    *value = strv_contains(yes, text);
    return 0;
}

static int parse_number(const struct option *option, const char *text, struct option_number *value,
                        struct error *err)
{
    int r = text_to_i64(text, option->minimum, option->maximum, &value->value);
    if (r == -ERANGE)
        return error_set(err, r, "must be between %lld and %lld", (long long)option->minimum,
                         (long long)option->maximum);
    if (r < 0)
        return error_set(err, r, "must be a whole number");
    value->set = true;
    return 0;
}

static int check_choice(const struct option *option, const char *text, struct error *err)
{
    _cleanup_free_ char *choices = NULL;

    if (!option->choices || option->complete == COMPLETE_EXAMPLES ||
        strv_contains((char *const *)option->choices, text))
        return 0;
    choices = strv_join((char *const *)option->choices, ", ");
    return error_set(err, -EINVAL, "must be one of %s", choices);
}

static int store_value(const struct option *option, const char *text, void *field,
                       struct error *err)
{
    int r = check_choice(option, text, err);
    if (r < 0)
        return r;
    switch (option->kind) {
    case OPTION_FLAG:
        return parse_flag(text, field, err);
    case OPTION_TEXT:
        *(const char **)field = text;
        return 0;
    case OPTION_LIST:
        strv_append(field, text);
        return 0;
    case OPTION_NUMBER:
        return parse_number(option, text, field, err);
    case OPTION_PARSED:
        return option->parse(text, field, err);
    }
    return error_set(err, -EINVAL, "option without a kind");
}

static int set_option(struct parser *parser, const struct option *option, size_t offset,
                      const char *text)
{
    _cleanup_error_ struct error reason = ERROR_INIT;

    int r = store_value(option, text, (char *)parser->values + offset, &reason);
    if (r >= 0)
        return 0;
    if (option->short_name)
        return error_set(parser->err, r, "invalid argument \"%s\" for \"-%c, --%s\" flag: %s", text,
                         option->short_name, option->name, error_message(&reason));
    return error_set(parser->err, r, "invalid argument \"%s\" for \"--%s\" flag: %s", text,
                     option->name, error_message(&reason));
}

static int unknown_long(struct parser *parser, const char *name, size_t length)
{
    _cleanup_free_ char *typed = xstrndup(name, length);

    for (const struct option_group *group = parser->groups; group && group->options; group++) {
        for (const struct option *option = group->options; option->name; option++) {
            if (word_is_near(typed, option->name))
                return error_set(parser->err, -EINVAL, "unknown flag: --%s (did you mean --%s?)",
                                 typed, option->name);
        }
    }
    return error_set(parser->err, -EINVAL, "unknown flag: --%s", typed);
}

static int parse_long(struct parser *parser, const char *text)
{
    size_t length = strcspn(text, "="), offset;
    const char *value = text[length] ? text + length + 1 : NULL;

    const struct option *option = options_find(parser->groups, text, length, &offset);
    if (!option && length == 4 && strncmp(text, "help", 4) == 0)
        return -ECANCELED;
    if (!option)
        return unknown_long(parser, text, length);
    if (!value && option->kind == OPTION_FLAG)
        value = "true";
    if (!value && !*parser->next)
        return error_set(parser->err, -EINVAL, "flag needs an argument: --%s", option->name);
    if (!value)
        value = *parser->next++;
    return set_option(parser, option, offset, value);
}

/* "-itd", "-p80:80", "-p 80:80", "-p=80:80": letters until one takes the rest as its value. */
static int parse_short(struct parser *parser, const char *letters)
{
    for (const char *letter = letters; *letter; letter++) {
        size_t offset;
        const struct option *option = options_find_short(parser->groups, *letter, &offset);
        if (!option && *letter == 'h')
            return -ECANCELED;
        if (!option)
            return error_set(parser->err, -EINVAL, "unknown shorthand flag: '%c' in -%s", *letter,
                             letters);
        const char *value = letter[1] == '=' ? letter + 2 : letter[1] ? letter + 1 : NULL;
        if (option->kind == OPTION_FLAG && letter[1] != '=') {
            *(bool *)((char *)parser->values + offset) = true;
            continue;
        }
        if (!value && !*parser->next)
            return error_set(parser->err, -EINVAL, "flag needs an argument: '%c' in -%s", *letter,
                             letters);
        if (!value)
            value = *parser->next++;
        return set_option(parser, option, offset, value);
    }
    return 0;
}

int options_parse(const struct option_group *groups, char *const *arguments, bool stop_at_operand,
                  void *values, char ***ret_operands, struct error *err)
{
    struct parser parser = {.groups = groups, .next = arguments, .values = values, .err = err};
    _cleanup_free_ char **operands = xnew_array(char *, strv_length(arguments) + 1);
    size_t count = 0;
    bool options_ended = false;

    while (*parser.next) {
        char *argument = *parser.next++;
        int r = 0;
        if (options_ended || argument[0] != '-' || !argument[1]) {
            operands[count++] = argument;
            options_ended = options_ended || stop_at_operand;
        } else if (argument[1] != '-') {
            r = parse_short(&parser, argument + 1);
        } else if (argument[2]) {
            r = parse_long(&parser, argument + 2);
        } else {
            options_ended = true;
        }
        if (r < 0)
            return r;
    }
    *ret_operands = steal_ptr(operands);
    return 0;
}

void options_finish(const struct option_group *groups, void *values)
{
    for (const struct option_group *group = groups; group && group->options; group++) {
        for (const struct option *option = group->options; option->name; option++) {
            char ***field = (void *)((char *)values + group->offset + option->offset);
            if (option->kind == OPTION_LIST) {
                strv_free(*field);
                *field = NULL;
            }
        }
    }
}

enum { WORD_MAX = 31 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned word_distance(const char *a, const char *b)
{
    size_t a_length = strlen(a), b_length = strlen(b);
    unsigned cost[WORD_MAX + 1][WORD_MAX + 1];

    if (a_length > WORD_MAX || b_length > WORD_MAX)
        return WORD_MAX;
    for (unsigned i = 0; i <= a_length; i++)
        cost[i][0] = i;
    for (unsigned j = 0; j <= b_length; j++)
        cost[0][j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        for (size_t j = 1; j <= b_length; j++) {
            unsigned change = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            cost[i][j] = least(change, least(cost[i - 1][j], cost[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cost[i][j] = least(cost[i][j], cost[i - 2][j - 2] + 1);
        }
    }
    return cost[a_length][b_length];
}

bool word_is_near(const char *typed, const char *known)
{
    size_t length = strlen(typed);

    if (length < 2)
        return false;
    return word_distance(typed, known) <= (length < 4 ? 1U : 2U);
}
