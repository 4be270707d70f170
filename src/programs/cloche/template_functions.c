#include <ctype.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "human.h"
#include "template.h"

enum { PRINT_WIDTH_MAX = 1000 };

void template_print(yajl_val value, struct buffer *out)
{
    if (!value) {
        buffer_append_text(out, "<no value>");
    } else if (YAJL_IS_STRING(value)) {
        buffer_append_text(out, value->u.string);
    } else if (YAJL_IS_ARRAY(value)) {
        buffer_append_char(out, '[');
        for (size_t i = 0; i < value->u.array.len; i++) {
            if (i)
                buffer_append_char(out, ' ');
            template_print(value->u.array.values[i], out);
        }
        buffer_append_char(out, ']');
    } else if (YAJL_IS_OBJECT(value)) {
        buffer_append_text(out, "map[");
        for (size_t i = 0; i < value->u.object.len; i++) {
            buffer_printf(out, "%s%s:", i ? " " : "", value->u.object.keys[i]);
            template_print(value->u.object.values[i], out);
        }
        buffer_append_char(out, ']');
    } else if (YAJL_IS_NULL(value)) {
        buffer_append_text(out, "<nil>");
    } else {
        tree_write(value, TREE_COMPACT, out);
    }
}

bool template_truth(yajl_val value)
{
    if (!value || YAJL_IS_NULL(value) || YAJL_IS_FALSE(value))
        return false;
    if (YAJL_IS_STRING(value))
        return value->u.string[0];
    if (YAJL_IS_ARRAY(value))
        return value->u.array.len;
    if (YAJL_IS_OBJECT(value))
        return value->u.object.len;
    if (value->type == yajl_t_number)
        return strtod(value->u.number.r, NULL) != 0;
    return true;
}

static char *printed(yajl_val value)
{
    struct buffer text = BUFFER_INIT;

    template_print(value, &text);
    return buffer_steal(&text);
}

/* A string node from a buffer, which is emptied. */
static int give_text(struct template_call *call, struct buffer *text, yajl_val *ret)
{
    *ret = tree_string(call->arena, buffer_text(text));
    buffer_finish(text);
    return 0;
}

static int call_json(struct template_call *call, yajl_val *ret, struct error *err)
{
    struct buffer text = BUFFER_INIT;

    tree_write(call->arguments[0], TREE_COMPACT, &text);
    return give_text(call, &text, ret);
}

static int change_case(struct template_call *call, int (*change)(int), bool first_only,
                       yajl_val *ret)
{
    _cleanup_free_ char *text = printed(call->arguments[0]);

    for (char *c = text; *c; c++) {
        if (!first_only || c == text || c[-1] == ' ')
            *c = (char)change((unsigned char)*c);
    }
    *ret = tree_string(call->arena, text);
    return 0;
}

static int call_upper(struct template_call *call, yajl_val *ret, struct error *err)
{
    return change_case(call, toupper, false, ret);
}

static int call_lower(struct template_call *call, yajl_val *ret, struct error *err)
{
    return change_case(call, tolower, false, ret);
}

static int call_title(struct template_call *call, yajl_val *ret, struct error *err)
{
    return change_case(call, toupper, true, ret);
}

static int call_len(struct template_call *call, yajl_val *ret, struct error *err)
{
    yajl_val value = call->arguments[0];
    size_t length = 0;

    if (YAJL_IS_STRING(value))
        length = strlen(value->u.string);
    else if (YAJL_IS_ARRAY(value))
        length = value->u.array.len;
    else if (YAJL_IS_OBJECT(value))
        length = value->u.object.len;
    else if (value && !YAJL_IS_NULL(value))
        return error_set(err, -EINVAL, "len: the value has no length");
    *ret = tree_number(call->arena, (long long)length);
    return 0;
}

/* docker's maps of texts, as labels are, are typed: what is not there is an empty text. */
static bool is_map_of_texts(yajl_val value)
{
    for (size_t i = 0; i < value->u.object.len; i++) {
        if (!YAJL_IS_STRING(value->u.object.values[i]))
            return false;
    }
    return true;
}

/* index .Map "key" 0 ...: each further argument goes one level down. */
static int call_index(struct template_call *call, yajl_val *ret, struct error *err)
{
    yajl_val value = call->arguments[0];

    for (size_t i = 1; i < call->count; i++) {
        yajl_val key = call->arguments[i];
        if (YAJL_IS_ARRAY(value) && YAJL_IS_INTEGER(key)) {
            if (key->u.number.i < 0 || (size_t)key->u.number.i >= value->u.array.len)
                return error_set(err, -EINVAL, "index out of range: %lld", key->u.number.i);
            value = value->u.array.values[key->u.number.i];
        } else if (YAJL_IS_OBJECT(value) && YAJL_IS_STRING(key)) {
            struct buffer nothing = BUFFER_INIT;
            yajl_val map = value;
            value = tree_get(map, key->u.string);
            if (!value && i == call->count - 1 && is_map_of_texts(map))
                return give_text(call, &nothing, ret);
        } else {
            return error_set(err, -EINVAL, "index: the value cannot be indexed like this");
        }
    }
    *ret = value;
    return 0;
}

static int call_join(struct template_call *call, yajl_val *ret, struct error *err)
{
    yajl_val list = call->arguments[0], between = call->arguments[1];
    struct buffer text = BUFFER_INIT;

    if ((list && !YAJL_IS_ARRAY(list) && !YAJL_IS_NULL(list)) || !YAJL_IS_STRING(between))
        return error_set(err, -EINVAL, "join: takes a list and a text");
    for (size_t i = 0; YAJL_IS_ARRAY(list) && i < list->u.array.len; i++) {
        if (i)
            buffer_append_text(&text, between->u.string);
        template_print(list->u.array.values[i], &text);
    }
    return give_text(call, &text, ret);
}

static int call_split(struct template_call *call, yajl_val *ret, struct error *err)
{
    _cleanup_free_ char *text = printed(call->arguments[0]);
    _cleanup_strv_ char **parts = NULL;
    yajl_val between = call->arguments[1];

    if (!YAJL_IS_STRING(between) || !between->u.string[0])
        return error_set(err, -EINVAL, "split: takes two texts");
    const char *from = text, *end;
    while ((end = strstr(from, between->u.string))) {
        strv_take(&parts, xstrndup(from, (size_t)(end - from)));
        from = end + strlen(between->u.string);
    }
    strv_append(&parts, from);
    *ret = tree_array(call->arena, parts);
    return 0;
}

static int call_truncate(struct template_call *call, yajl_val *ret, struct error *err)
{
    _cleanup_free_ char *text = printed(call->arguments[0]);
    yajl_val length = call->arguments[1];

    if (!YAJL_IS_INTEGER(length) || length->u.number.i < 0)
        return error_set(err, -EINVAL, "truncate: takes a text and a length");
    if (strlen(text) > (size_t)length->u.number.i)
        text[length->u.number.i] = '\0';
    *ret = tree_string(call->arena, text);
    return 0;
}

static int print_arguments(struct template_call *call, bool lines, yajl_val *ret)
{
    struct buffer text = BUFFER_INIT;

    for (size_t i = 0; i < call->count; i++) {
        if (i && lines)
            buffer_append_char(&text, ' ');
        template_print(call->arguments[i], &text);
    }
    if (lines)
        buffer_append_char(&text, '\n');
    return give_text(call, &text, ret);
}

static int call_print(struct template_call *call, yajl_val *ret, struct error *err)
{
    return print_arguments(call, false, ret);
}

static int call_println(struct template_call *call, yajl_val *ret, struct error *err)
{
    return print_arguments(call, true, ret);
}

/* What stands between a percent sign and its letter. */
struct print_form {
    bool left, zero;
    int width, precision; /* precision < 0: none */
    char letter;
};

static int read_count(const char **at)
{
    int count = 0;

    for (; isdigit((unsigned char)**at); (*at)++)
        count = count <= PRINT_WIDTH_MAX ? count * 10 + (**at - '0') : count;
    return count;
}

static int read_form(const char **at, struct print_form *ret, struct error *err)
{
    struct print_form form = {.precision = -1};

    for (; **at == '-' || **at == '0' || **at == '+' || **at == '#' || **at == ' '; (*at)++) {
        form.left = form.left || **at == '-';
        form.zero = form.zero || **at == '0';
    }
    form.width = read_count(at);
    if (**at == '.') {
        (*at)++;
        form.precision = read_count(at);
    }
    form.letter = **at;
    if (!form.letter || !strchr("svdqtxf", form.letter))
        return error_set(err, -EINVAL,
                         "printf: only %%s, %%v, %%d, %%q, %%t, %%x, %%f and %%%% are known");
    if (form.width > PRINT_WIDTH_MAX || form.precision > PRINT_WIDTH_MAX)
        return error_set(err, -EINVAL, "printf: wider than %d", PRINT_WIDTH_MAX);
    *ret = form;
    return 0;
}

static double number_of(yajl_val value)
{
    return YAJL_IS_NUMBER(value) ? strtod(value->u.number.r, NULL) : 0;
}

static char *print_value(yajl_val value, const struct print_form *form)
{
    _cleanup_free_ char *text = printed(value);

    if (form->letter == 'f')
        return xasprintf("%.*f", form->precision < 0 ? 6 : form->precision, number_of(value));
    if (form->letter == 'x' && YAJL_IS_INTEGER(value))
        return xasprintf("%llx", value->u.number.i);
    if (form->letter == 'x') {
        char *digits = xmalloc(2 * strlen(text) + 1);
        text_hex(text, strlen(text), digits);
        return digits;
    }
    if (form->precision >= 0 && strlen(text) > (size_t)form->precision)
        text[form->precision] = '\0';
    return form->letter == 'q' ? human_quote(text) : xstrdup(text);
}

static void append_padded(struct buffer *out, const char *text, const struct print_form *form)
{
    int length = 0;

    for (const char *c = text; *c; c++)
        length += ((unsigned char)*c & 0xc0) != 0x80;
    for (int i = length; !form->left && i < form->width; i++)
        buffer_append_char(out, form->zero && form->letter != 's' ? '0' : ' ');
    buffer_append_text(out, text);
    for (int i = length; form->left && i < form->width; i++)
        buffer_append_char(out, ' ');
}

static int call_printf(struct template_call *call, yajl_val *ret, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct print_form form = {0};
    size_t next = 1;

    if (!YAJL_IS_STRING(call->arguments[0]))
        return error_set(err, -EINVAL, "printf: the first argument is not a text");
    for (const char *c = call->arguments[0]->u.string; *c; c++) {
        if (*c != '%' || c[1] == '%') {
            buffer_append_char(&text, *c);
            c += *c == '%';
            continue;
        }
        c++;
        int r = read_form(&c, &form, err);
        if (r < 0)
            return r;
        if (next == call->count)
            return error_set(err, -EINVAL, "printf: fewer values than the format asks for");
        _cleanup_free_ char *value = print_value(call->arguments[next++], &form);
        append_padded(&text, value, &form);
    }
    return give_text(call, &text, ret);
}

/* pad TEXT BEFORE AFTER: so many blanks on either side; nothing around an empty text. */
static int call_pad(struct template_call *call, yajl_val *ret, struct error *err)
{
    yajl_val before = call->arguments[1], after = call->arguments[2];
    _cleanup_free_ char *text = printed(call->arguments[0]);
    struct buffer padded = BUFFER_INIT;

    if (!YAJL_IS_INTEGER(before) || !YAJL_IS_INTEGER(after) || before->u.number.i < 0 ||
        after->u.number.i < 0 || before->u.number.i > PRINT_WIDTH_MAX ||
        after->u.number.i > PRINT_WIDTH_MAX)
        return error_set(err, -EINVAL, "pad: takes a text and two numbers of blanks");
    if (*text)
        buffer_printf(&padded, "%*s%s%*s", (int)before->u.number.i, "", text,
                      (int)after->u.number.i, "");
    return give_text(call, &padded, ret);
}

/* slice TEXT [FROM [TO]]: of a text or a list. */
static int call_slice(struct template_call *call, yajl_val *ret, struct error *err)
{
    yajl_val value = call->arguments[0];
    long long bounds[2] = {0, 0}, length;

    if (!YAJL_IS_STRING(value) && !YAJL_IS_ARRAY(value))
        return error_set(err, -EINVAL, "slice: the value can't be sliced");
    length =
        YAJL_IS_STRING(value) ? (long long)strlen(value->u.string) : (long long)value->u.array.len;
    bounds[1] = length;
    for (size_t i = 1; i < call->count; i++) {
        if (!YAJL_IS_INTEGER(call->arguments[i]))
            return error_set(err, -EINVAL, "slice: bounds are whole numbers");
        bounds[i - 1] = call->arguments[i]->u.number.i;
    }
    if (bounds[0] < 0 || bounds[1] > length || bounds[0] > bounds[1])
        return error_set(err, -EINVAL, "slice: out of range: %lld to %lld of %lld", bounds[0],
                         bounds[1], length);
    if (YAJL_IS_ARRAY(value)) {
        *ret = tree_part(call->arena, value, (size_t)bounds[0], (size_t)bounds[1]);
        return 0;
    }
    _cleanup_free_ char *part =
        xstrndup(value->u.string + bounds[0], (size_t)(bounds[1] - bounds[0]));
    *ret = tree_string(call->arena, part);
    return 0;
}

/* Numbers by their value, texts by their bytes. */
static int order(struct template_call *call, int *ret, struct error *err)
{
    yajl_val a = call->arguments[0], b = call->arguments[1];

    if (YAJL_IS_NUMBER(a) && YAJL_IS_NUMBER(b)) {
        double difference = number_of(a) - number_of(b);
        *ret = (difference > 0) - (difference < 0);
        return 0;
    }
    if (!YAJL_IS_STRING(a) || !YAJL_IS_STRING(b))
        return error_set(err, -EINVAL, "incompatible types for comparison");
    *ret = strcmp(a->u.string, b->u.string);
    return 0;
}

static int call_lt(struct template_call *call, yajl_val *ret, struct error *err)
{
    int by = 0, r = order(call, &by, err);

    *ret = tree_boolean(call->arena, by < 0);
    return r;
}

static int call_le(struct template_call *call, yajl_val *ret, struct error *err)
{
    int by = 0, r = order(call, &by, err);

    *ret = tree_boolean(call->arena, by <= 0);
    return r;
}

static int call_gt(struct template_call *call, yajl_val *ret, struct error *err)
{
    int by = 0, r = order(call, &by, err);

    *ret = tree_boolean(call->arena, by > 0);
    return r;
}

static int call_ge(struct template_call *call, yajl_val *ret, struct error *err)
{
    int by = 0, r = order(call, &by, err);

    *ret = tree_boolean(call->arena, by >= 0);
    return r;
}

static bool same(yajl_val a, yajl_val b)
{
    _cleanup_free_ char *first = printed(a), *second = printed(b);

    return strcmp(first, second) == 0;
}

static int call_eq(struct template_call *call, yajl_val *ret, struct error *err)
{
    bool found = false;

    for (size_t i = 1; i < call->count; i++)
        found = found || same(call->arguments[0], call->arguments[i]);
    *ret = tree_boolean(call->arena, found);
    return 0;
}

static int call_ne(struct template_call *call, yajl_val *ret, struct error *err)
{
    *ret = tree_boolean(call->arena, !same(call->arguments[0], call->arguments[1]));
    return 0;
}

static int call_not(struct template_call *call, yajl_val *ret, struct error *err)
{
    *ret = tree_boolean(call->arena, !template_truth(call->arguments[0]));
    return 0;
}

/* Go's: the first argument that decides, or the last. */
static int decide(struct template_call *call, bool deciding, yajl_val *ret)
{
    size_t i = 0;

    while (i + 1 < call->count && template_truth(call->arguments[i]) != deciding)
        i++;
    *ret = call->arguments[i];
    return 0;
}

static int call_and(struct template_call *call, yajl_val *ret, struct error *err)
{
    return decide(call, false, ret);
}

static int call_or(struct template_call *call, yajl_val *ret, struct error *err)
{
    return decide(call, true, ret);
}

static const struct template_function functions[] = {
    {"and", 1, TEMPLATE_ARGUMENTS_MAX, call_and},
    {"eq", 2, TEMPLATE_ARGUMENTS_MAX, call_eq},
    {"ge", 2, 2, call_ge},
    {"gt", 2, 2, call_gt},
    {"index", 1, TEMPLATE_ARGUMENTS_MAX, call_index},
    {"join", 2, 2, call_join},
    {"json", 1, 1, call_json},
    {"le", 2, 2, call_le},
    {"len", 1, 1, call_len},
    {"lower", 1, 1, call_lower},
    {"lt", 2, 2, call_lt},
    {"ne", 2, 2, call_ne},
    {"not", 1, 1, call_not},
    {"or", 1, TEMPLATE_ARGUMENTS_MAX, call_or},
    {"pad", 3, 3, call_pad},
    {"print", 0, TEMPLATE_ARGUMENTS_MAX, call_print},
    {"printf", 1, TEMPLATE_ARGUMENTS_MAX, call_printf},
    {"println", 0, TEMPLATE_ARGUMENTS_MAX, call_println},
    {"slice", 1, 3, call_slice},
    {"split", 2, 2, call_split},
    {"title", 1, 1, call_title},
    {"truncate", 2, 2, call_truncate},
    {"upper", 1, 1, call_upper},
};

const struct template_function *template_function_find(const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
        if (strncmp(functions[i].name, name, length) == 0 && !functions[i].name[length])
            return &functions[i];
    }
    return NULL;
}
