/*
 * A direct interpreter: one walk over the text, blocks by recursion. A branch that is not taken is
 * walked with `skip` set; the body of a range is walked once for each item.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

#include "template.h"

struct variable {
    const char *name; /* in the template, behind the dollar */
    size_t length;
    yajl_val value;
};

struct interpreter {
    const char *at; /* in the template's text */
    yajl_val document;
    yajl_val dot;
    struct variable variables[TEMPLATE_VARIABLES_MAX];
    size_t variable_count;
    unsigned depth;
    unsigned actions;
    struct tree_arena *arena;
    struct buffer *out;
    struct error *err;
};

/* What ended a block. */
enum stop { STOP_TEXT, STOP_END, STOP_ELSE };

static int pipeline(struct interpreter *in, yajl_val *ret);
static int block(struct interpreter *in, bool skip, enum stop *ret);

static int fail(struct interpreter *in, const char *format, ...) _printf_(2, 3);

static int fail(struct interpreter *in, const char *format, ...)
{
    _cleanup_free_ char *message = NULL;
    va_list args;

    va_start(args, format);
    message = xvasprintf(format, args);
    va_end(args);
    return error_set(in->err, -EINVAL, "template parsing error: %s", message);
}

/* ---- words */

static void skip_blanks(struct interpreter *in)
{
    in->at += strspn(in->at, " \t\r\n");
}

static size_t word_length(const char *text)
{
    size_t length = 0;

    while (isalnum((unsigned char)text[length]) || text[length] == '_')
        length++;
    return length;
}

/* Takes the keyword when it stands here. */
static bool take_word(struct interpreter *in, const char *word)
{
    size_t length = strlen(word);

    if (word_length(in->at) != length || strncmp(in->at, word, length) != 0)
        return false;
    in->at += length;
    return true;
}

static bool at_end_of_action(const struct interpreter *in)
{
    return text_starts_with(in->at, "}}") || text_starts_with(in->at, "-}}");
}

static int end_action(struct interpreter *in)
{
    skip_blanks(in);
    bool trim = in->at[0] == '-';
    if (!at_end_of_action(in))
        return fail(in, "unexpected \"%.*s\" in command", (int)strcspn(in->at, "} "), in->at);
    in->at += trim ? 3 : 2;
    if (trim)
        skip_blanks(in);
    return 0;
}

/* The rest of an action that is not evaluated: to its }}, past quoted text. */
static int skip_action(struct interpreter *in)
{
    char quote = '\0';

    for (; *in->at; in->at++) {
        if (quote) {
            if (*in->at == '\\' && quote == '"' && in->at[1])
                in->at++;
            else if (*in->at == quote)
                quote = '\0';
        } else if (*in->at == '"' || *in->at == '`') {
            quote = *in->at;
        } else if (at_end_of_action(in)) {
            return end_action(in);
        }
    }
    return fail(in, "unclosed action");
}

/* ---- operands */

/* Maps whose keys are the user's own: what is not there is no mistake. */
static bool is_free_map(const char *name, size_t length)
{
    static const char *const names[] = {"Labels",  "Ports",   "Networks",     "ExposedPorts",
                                        "Volumes", "Options", "PortBindings", "Attributes"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strlen(names[i]) == length && strncmp(names[i], name, length) == 0)
            return true;
    }
    return false;
}

static yajl_val find_field(yajl_val value, const char *name, size_t length, bool *ret_found)
{
    for (int exact = 1; exact >= 0; exact--) {
        for (size_t i = 0; YAJL_IS_OBJECT(value) && i < value->u.object.len; i++) {
            const char *key = value->u.object.keys[i];
            if (strlen(key) == length &&
                (exact ? strncmp(key, name, length) == 0 : strncasecmp(key, name, length) == 0)) {
                *ret_found = true;
                return value->u.object.values[i];
            }
        }
    }
    *ret_found = false;
    return NULL;
}

/* .A.B.C behind an operand. Names of Go and of JSON differ in case (ID and Id): both are taken. */
static int fields(struct interpreter *in, yajl_val *value)
{
    const char *parent = "";
    size_t parent_length = 0;

    while (in->at[0] == '.' && word_length(in->at + 1)) {
        const char *name = in->at + 1;
        size_t length = word_length(name);
        bool found;
        if (!YAJL_IS_OBJECT(*value))
            return fail(in, "can't evaluate field %.*s: the value is not an object", (int)length,
                        name);
        *value = find_field(*value, name, length, &found);
        if (!found && !is_free_map(parent, parent_length))
            return fail(in, "map has no entry for key \"%.*s\"", (int)length, name);
        parent = name;
        parent_length = length;
        in->at = name + length;
    }
    return 0;
}

static int quoted_text(struct interpreter *in, yajl_val *ret)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    char quote = *in->at++;

    for (; *in->at && *in->at != quote; in->at++) {
        if (*in->at != '\\' || quote == '`') {
            buffer_append_char(&text, *in->at);
            continue;
        }
        in->at++;
        if (*in->at == 'n')
            buffer_append_char(&text, '\n');
        else if (*in->at == 't')
            buffer_append_char(&text, '\t');
        else if (*in->at == '"' || *in->at == '\\')
            buffer_append_char(&text, *in->at);
        else
            return fail(in, "unknown escape in quoted string");
    }
    if (!*in->at)
        return fail(in, "unterminated quoted string");
    in->at++;
    *ret = tree_string(in->arena, buffer_text(&text));
    return 0;
}

static int number(struct interpreter *in, yajl_val *ret)
{
    char *end;

    errno = 0;
    long long value = strtoll(in->at, &end, 10);
    if (errno || end == in->at)
        return fail(in, "bad number");
    in->at = end;
    *ret = tree_number(in->arena, value);
    return 0;
}

static int variable(struct interpreter *in, yajl_val *ret)
{
    const char *name = in->at + 1;
    size_t length = word_length(name);

    in->at = name + length;
    *ret = in->document;
    if (!length)
        return 0;
    for (size_t i = in->variable_count; i-- > 0;) {
        struct variable *known = &in->variables[i];
        if (known->length == length && strncmp(known->name, name, length) == 0) {
            *ret = known->value;
            return 0;
        }
    }
    return fail(in, "undefined variable \"$%.*s\"", (int)length, name);
}

static int set_variable(struct interpreter *in, const char *name, size_t length, yajl_val value)
{
    if (in->variable_count == TEMPLATE_VARIABLES_MAX)
        return fail(in, "more than %d variables", TEMPLATE_VARIABLES_MAX);
    in->variables[in->variable_count++] = (struct variable){name, length, value};
    return 0;
}

static int parenthesis(struct interpreter *in, yajl_val *ret)
{
    if (in->depth >= TEMPLATE_DEPTH_MAX)
        return fail(in, "nested too deeply");
    in->depth++;
    in->at++;
    int r = pipeline(in, ret);
    in->depth--;
    if (r < 0)
        return r;
    skip_blanks(in);
    if (*in->at != ')')
        return fail(in, "unclosed left paren");
    in->at++;
    return 0;
}

static int operand(struct interpreter *in, yajl_val *ret)
{
    int r = 0;

    if (*in->at == '.') {
        *ret = in->dot;
        in->at += word_length(in->at + 1) == 0;
    } else if (*in->at == '$') {
        r = variable(in, ret);
    } else if (*in->at == '"' || *in->at == '`') {
        return quoted_text(in, ret);
    } else if (*in->at == '(') {
        r = parenthesis(in, ret);
    } else if (isdigit((unsigned char)*in->at) || *in->at == '-') {
        return number(in, ret);
    } else if (take_word(in, "true")) {
        *ret = tree_boolean(in->arena, true);
    } else if (take_word(in, "false")) {
        *ret = tree_boolean(in->arena, false);
    } else if (take_word(in, "nil")) {
        *ret = NULL;
    } else {
        size_t length = word_length(in->at);
        if (length)
            return fail(in, "function \"%.*s\" not defined", (int)length, in->at);
        return fail(in, "unexpected \"%.1s\" in operand", in->at);
    }
    return r < 0 ? r : fields(in, ret);
}

/* ---- commands and pipelines */

static bool at_end_of_command(const struct interpreter *in)
{
    return !*in->at || *in->at == '|' || *in->at == ')' || at_end_of_action(in);
}

static int call(struct interpreter *in, const struct template_function *function,
                const yajl_val *piped, yajl_val *ret)
{
    struct template_call call = {.arena = in->arena};
    int r = 0;

    for (;;) {
        skip_blanks(in);
        bool last = at_end_of_command(in);
        if (last && !piped)
            break;
        if (call.count == TEMPLATE_ARGUMENTS_MAX)
            return fail(in, "%s: too many arguments", function->name);
        if (last) {
            call.arguments[call.count++] = *piped;
            break;
        }
        r = operand(in, &call.arguments[call.count++]);
        if (r < 0)
            return r;
    }
    if (call.count < function->minimum || call.count > function->maximum)
        return fail(in, "wrong number of args for %s: %zu", function->name, call.count);
    r = function->call(&call, ret, in->err);
    return r < 0 ? error_context(in->err, "template parsing error") : r;
}

/* docker's rows have a method beside their fields: {{.Label "role"}}. */
static bool is_label_call(const struct interpreter *in)
{
    static const char name[] = ".Label";
    size_t length = strlen(name);

    if (strncmp(in->at, name, length) != 0 || !strchr(" \t", in->at[length]) || !in->at[length])
        return false;
    const char *key = in->at + length + strspn(in->at + length, " \t");
    return *key == '"' || *key == '`';
}

/* The row's labels are a text: a=b,c=d. */
static int label(struct interpreter *in, yajl_val *ret)
{
    yajl_val labels = tree_get(in->dot, "Labels"), key = NULL;
    _cleanup_strv_ char **pairs = NULL;

    in->at += strlen(".Label");
    skip_blanks(in);
    int r = quoted_text(in, &key);
    if (r < 0)
        return r;
    *ret = tree_string(in->arena, "");
    if (YAJL_IS_OBJECT(labels)) {
        yajl_val value = tree_get(labels, key->u.string);
        *ret = value ? value : *ret;
        return 0;
    }
    pairs = YAJL_IS_STRING(labels) ? strv_split(labels->u.string, ',') : NULL;
    for (char **pair = pairs; pair && *pair; pair++) {
        size_t length = strcspn(*pair, "=");
        if (strlen(key->u.string) == length && strncmp(*pair, key->u.string, length) == 0)
            *ret = tree_string(in->arena, *pair + length + ((*pair)[length] == '='));
    }
    return 0;
}

static int command(struct interpreter *in, const yajl_val *piped, yajl_val *ret)
{
    skip_blanks(in);
    size_t length = word_length(in->at);
    const struct template_function *function =
        length ? template_function_find(in->at, length) : NULL;
    if (function) {
        in->at += length;
        return call(in, function, piped, ret);
    }
    if (is_label_call(in))
        return label(in, ret);
    int r = operand(in, ret);
    if (r >= 0 && piped)
        return fail(in, "a pipe ends in a function");
    return r;
}

/* "$x :=" in front of a pipeline. Returns the name, its length in *ret_length; NULL when it is
 * none, and nothing is taken. */
static const char *assignment(struct interpreter *in, size_t *ret_length)
{
    const char *start = in->at;

    if (*in->at != '$')
        return NULL;
    *ret_length = word_length(start + 1);
    in->at += 1 + *ret_length;
    skip_blanks(in);
    if (*ret_length && text_starts_with(in->at, ":=")) {
        in->at += 2;
        return start + 1;
    }
    in->at = start;
    return NULL;
}

static int pipeline(struct interpreter *in, yajl_val *ret)
{
    yajl_val value;
    int r = command(in, NULL, &value);

    while (r >= 0) {
        skip_blanks(in);
        if (*in->at != '|')
            break;
        in->at++;
        yajl_val piped = value;
        r = command(in, &piped, &value);
    }
    if (r >= 0)
        *ret = value;
    return r;
}

static int print_action(struct interpreter *in)
{
    size_t length;
    yajl_val value;

    const char *name = assignment(in, &length);
    int r = pipeline(in, &value);
    if (r >= 0)
        r = end_action(in);
    if (r < 0)
        return r;
    if (name)
        return set_variable(in, name, length, value);
    template_print(value, in->out);
    return 0;
}

/* ---- blocks */

/* A block inside an action: its variables end with it, and dot is what it was. */
static int inner_block(struct interpreter *in, yajl_val dot, bool skip, enum stop *ret)
{
    size_t variables = in->variable_count;
    yajl_val outer = in->dot;

    if (in->depth >= TEMPLATE_DEPTH_MAX)
        return fail(in, "nested too deeply");
    in->depth++;
    in->dot = dot;
    int r = block(in, skip, ret);
    in->dot = outer;
    in->depth--;
    in->variable_count = variables;
    if (r >= 0 && *ret == STOP_TEXT)
        return fail(in, "unexpected EOF");
    return r;
}

/* {{else}} .. {{end}}, when the block before stopped at an else. */
static int else_block(struct interpreter *in, bool skip, enum stop stop)
{
    if (stop != STOP_ELSE)
        return 0;
    int r = end_action(in);
    if (r >= 0)
        r = inner_block(in, in->dot, skip, &stop);
    if (r >= 0 && stop != STOP_END)
        return fail(in, "expected end; found {{else}}");
    return r;
}

/* {{if}} and {{with}}, behind the word. */
static int condition(struct interpreter *in, bool skip, bool with)
{
    size_t variables = in->variable_count, length;
    yajl_val value = NULL;
    enum stop stop;
    int r;

    skip_blanks(in);
    if (skip) {
        r = skip_action(in);
    } else {
        const char *name = assignment(in, &length);
        r = pipeline(in, &value);
        if (r >= 0 && name)
            r = set_variable(in, name, length, value);
        if (r >= 0)
            r = end_action(in);
    }
    bool taken = !skip && r >= 0 && template_truth(value);
    if (r >= 0)
        r = inner_block(in, with && taken ? value : in->dot, !taken, &stop);
    if (r < 0)
        return r;
    if (stop == STOP_ELSE)
        skip_blanks(in);
    if (stop == STOP_ELSE && take_word(in, "if"))
        r = condition(in, skip || taken, false);
    else
        r = else_block(in, skip || taken, stop);
    in->variable_count = variables;
    return r;
}

/* The names in {{range $k, $v := ...}}; one name is the value's. */
struct range_names {
    const char *key, *value;
    size_t key_length, value_length;
};

static void range_names(struct interpreter *in, struct range_names *ret)
{
    const char *start = in->at;

    *ret = (struct range_names){0};
    ret->value = assignment(in, &ret->value_length);
    if (ret->value || *in->at != '$')
        return;
    ret->key = in->at + 1;
    ret->key_length = word_length(ret->key);
    in->at = ret->key + ret->key_length;
    skip_blanks(in);
    if (*in->at == ',') {
        in->at++;
        skip_blanks(in);
        ret->value = assignment(in, &ret->value_length);
    }
    if (!ret->value) {
        *ret = (struct range_names){0};
        in->at = start;
    }
}

static size_t range_length(yajl_val list)
{
    if (YAJL_IS_ARRAY(list))
        return list->u.array.len;
    return YAJL_IS_OBJECT(list) ? list->u.object.len : 0;
}

static int range_item(struct interpreter *in, yajl_val list, size_t i,
                      const struct range_names *names, enum stop *ret)
{
    bool map = YAJL_IS_OBJECT(list);
    yajl_val item = map ? list->u.object.values[i] : list->u.array.values[i];
    size_t variables = in->variable_count;
    int r = 0;

    if (names->key)
        r = set_variable(in, names->key, names->key_length,
                         map ? tree_string(in->arena, list->u.object.keys[i])
                             : tree_number(in->arena, (long long)i));
    if (r >= 0 && names->value)
        r = set_variable(in, names->value, names->value_length, item);
    if (r >= 0)
        r = inner_block(in, item, false, ret);
    in->variable_count = variables;
    return r;
}

/* {{range}}, behind the word. */
static int range(struct interpreter *in, bool skip)
{
    struct range_names names;
    yajl_val list = NULL;
    enum stop stop = STOP_TEXT;
    int r;

    skip_blanks(in);
    if (skip) {
        r = skip_action(in);
    } else {
        range_names(in, &names);
        r = pipeline(in, &list);
        if (r >= 0)
            r = end_action(in);
    }
    if (r >= 0 && list && !YAJL_IS_NULL(list) && !YAJL_IS_ARRAY(list) && !YAJL_IS_OBJECT(list))
        return fail(in, "range can't iterate over this value");
    size_t length = range_length(list);
    const char *body = in->at;
    for (size_t i = 0; r >= 0 && i < length; i++) {
        in->at = body;
        r = range_item(in, list, i, &names, &stop);
    }
    if (r >= 0 && !length)
        r = inner_block(in, in->dot, true, &stop);
    return r < 0 ? r : else_block(in, skip || length, stop);
}

/* One action, behind its {{ and blanks. *ret is left alone unless it ends the block. */
static int action(struct interpreter *in, bool skip, enum stop *ret, bool *ret_ended)
{
    if (text_starts_with(in->at, "/*")) {
        const char *end = strstr(in->at, "*/");
        if (!end)
            return fail(in, "unclosed comment");
        in->at = end + 2;
        return end_action(in);
    }
    if (take_word(in, "range"))
        return range(in, skip);
    if (take_word(in, "if"))
        return condition(in, skip, false);
    if (take_word(in, "with"))
        return condition(in, skip, true);
    if (take_word(in, "end")) {
        *ret = STOP_END;
        *ret_ended = true;
        return end_action(in);
    }
    if (take_word(in, "else")) {
        *ret = STOP_ELSE;
        *ret_ended = true;
        return 0;
    }
    return skip ? skip_action(in) : print_action(in);
}

static int block(struct interpreter *in, bool skip, enum stop *ret)
{
    bool ended = false;
    int r = 0;

    while (r >= 0 && !ended) {
        const char *open = strstr(in->at, "{{");
        size_t length = open ? (size_t)(open - in->at) : strlen(in->at);
        bool trim = open && open[2] == '-' && strchr(" \t\n\r", open[3]);
        while (trim && length && strchr(" \t\n\r", in->at[length - 1]))
            length--;
        if (!skip)
            buffer_append(in->out, in->at, length);
        if (!open) {
            in->at += strlen(in->at);
            *ret = STOP_TEXT;
            return 0;
        }
        in->at = open + (trim ? 3 : 2);
        if (in->actions++ >= TEMPLATE_ACTIONS_MAX || in->out->length > TEMPLATE_OUTPUT_MAX)
            return fail(in, "it does not come to an end");
        skip_blanks(in);
        r = action(in, skip, ret, &ended);
    }
    return r;
}

int template_render(const char *text, yajl_val document, struct tree_arena *arena,
                    struct buffer *out, struct error *err)
{
    struct interpreter in = {
        .at = text,
        .document = document,
        .dot = document,
        .arena = arena,
        .out = out,
        .err = err,
    };
    enum stop stop;

    int r = block(&in, false, &stop);
    if (r >= 0 && stop != STOP_TEXT)
        return fail(&in, "unexpected {{%s}}", stop == STOP_END ? "end" : "else");
    return r;
}

int template_show(const char *format, const char *json, bool first, struct buffer *out,
                  struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    yajl_val document;

    int r = tree_parse(&arena, json, &document, err);
    if (r < 0)
        return r;
    if (format && !text_equal(format, "json")) {
        r = template_render(format, document, &arena, out, err);
        buffer_append_char(out, '\n');
        return r;
    }
    if (!first)
        buffer_append_char(out, ',');
    if (format)
        tree_write(document, TREE_COMPACT, out);
    else
        tree_write_item(document, 1, out);
    return 0;
}
