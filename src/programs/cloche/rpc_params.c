#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/json.h>

#include "options.h"
#include "rpc_params.h"

enum { ELEMENTS_MAX = 4096 };

enum value_kind { VALUE_UNSET, VALUE_JSON, VALUE_OBJECT, VALUE_ARRAY };

/* A value that is being put together. */
struct value {
    struct value *next; /* in its object or array */
    char *name;         /* of a member; owned */
    enum value_kind kind;
    char *json; /* VALUE_JSON: owned */
    struct value *first, **last;
    size_t count;
};

struct builder {
    const struct rpc_document *document;
    yajl_val method; /* NULL: not known */
    const char *method_name;
    struct value root;
};

/* ---- values ---- */

static struct value *add_value(struct value *parent, char *name)
{
    struct value *value = xnew(struct value);

    value->name = name;
    value->last = &value->first;
    *parent->last = value;
    parent->last = &value->next;
    parent->count++;
    return value;
}

static struct value *find_member(const struct value *parent, const char *name)
{
    for (struct value *value = parent->first; value; value = value->next) {
        if (text_equal(value->name, name))
            return value;
    }
    return NULL;
}

static void clear_value(struct value *value)
{
    while (value->first) {
        struct value *child = value->first;
        value->first = child->next;
        clear_value(child);
        free(child->name);
        free(child);
    }
    free(value->json);
    value->json = NULL;
    value->last = &value->first;
    value->count = 0;
    value->kind = VALUE_UNSET;
}

static void write_value(const struct value *value, struct buffer *out)
{
    bool is_object = value->kind == VALUE_OBJECT;

    if (value->kind == VALUE_JSON) {
        buffer_append_text(out, value->json);
        return;
    }
    buffer_append_char(out, is_object ? '{' : '[');
    for (const struct value *child = value->first; child; child = child->next) {
        if (child != value->first)
            buffer_append_char(out, ',');
        if (is_object) {
            json_quote(out, child->name, strlen(child->name));
            buffer_append_char(out, ':');
        }
        write_value(child, out);
    }
    buffer_append_char(out, is_object ? '}' : ']');
}

/* ---- texts ---- */

/* The whole of a file, or of standard input for "-". Owned. */
static int read_source(const char *path, char **ret, struct error *err)
{
    _cleanup_close_ int opened = -1;
    size_t length;
    int fd = STDIN_FILENO;

    if (!text_equal(path, "-"))
        fd = opened = open(path, O_RDONLY | O_CLOEXEC);
    else
        path = "standard input";
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    int r = file_read_fd(fd, RPC_MESSAGE_MAX, ret, &length, err);
    if (r < 0)
        return error_context(err, "%s", path);
    return strlen(*ret) == length ? 0 : error_set(err, -EINVAL, "%s has NUL bytes", path);
}

/* JSON on one line. */
static int compact_json(const char *text, char **ret, struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    struct buffer out = BUFFER_INIT;
    yajl_val node;

    int r = tree_parse(&arena, text, &node, err);
    if (r < 0)
        return r;
    tree_write(node, TREE_COMPACT, &out);
    *ret = buffer_steal(&out);
    return 0;
}

static char *json_text(const char *text)
{
    struct buffer out = BUFFER_INIT;

    json_quote(&out, text, strlen(text));
    return buffer_steal(&out);
}

static bool is_json_of(const char *text, bool number)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    yajl_val node;

    if (tree_parse(&arena, text, &node, NULL) < 0)
        return false;
    if (number)
        return node->type == yajl_t_number;
    return !YAJL_IS_STRING(node) && !YAJL_IS_ARRAY(node) && !YAJL_IS_OBJECT(node);
}

/* ---- a value by its schema ---- */

static int refuse_value(const struct builder *builder, yajl_val schema, const char *path,
                        const char *text, struct error *err)
{
    _cleanup_buffer_ struct buffer type = BUFFER_INIT;

    rpc_schema_type_text(builder->document, schema, &type);
    error_set(err, -EINVAL, "%s: '%s' is not what %s takes: %s", builder->method_name, text, path,
              buffer_text(&type));
    if (rpc_schema_takes(builder->document, schema, "array"))
        error_hint(err, "Write %s[]=VALUE for each element, or %s:=JSON.", path, path);
    else if (rpc_schema_takes(builder->document, schema, "object"))
        error_hint(err, "Write %s.MEMBER=VALUE for each member, or %s:=JSON.", path, path);
    return -EINVAL;
}

static int typed_json(const struct builder *builder, yajl_val schema, const char *path,
                      const char *text, char **ret, struct error *err)
{
    const struct rpc_document *document = builder->document;
    bool takes_text = !schema || rpc_schema_takes(document, schema, "string");
    bool takes_any = !schema || (takes_text && rpc_schema_takes(document, schema, "boolean"));

    if (takes_any)
        *ret = is_json_of(text, false) ? xstrdup(text) : json_text(text);
    else if (takes_text)
        *ret = json_text(text);
    else if ((rpc_schema_takes(document, schema, "integer") && is_json_of(text, true)) ||
             (rpc_schema_takes(document, schema, "boolean") &&
              (text_equal(text, "true") || text_equal(text, "false"))) ||
             (rpc_schema_takes(document, schema, "null") && text_equal(text, "null")))
        *ret = xstrdup(text);
    else
        return refuse_value(builder, schema, path, text, err);
    return 0;
}

/* ---- where it goes ---- */

static int refuse_parameter(const struct builder *builder, const char *name, struct error *err)
{
    _cleanup_buffer_ struct buffer known = BUFFER_INIT;
    yajl_val params = tree_get(builder->method, "params");
    const char *near = NULL;

    for (size_t i = 0; YAJL_IS_ARRAY(params) && i < params->u.array.len; i++) {
        const char *other = rpc_node_text(params->u.array.values[i], "name");
        if (!other)
            continue;
        buffer_printf(&known, "%s%s", i ? ", " : "", other);
        if (word_is_near(name, other))
            near = other;
    }
    error_set(err, -EINVAL, "%s has no parameter '%s'", builder->method_name, name);
    if (near)
        error_hint(err, "Did you mean '%s'? It has: %s.", near, buffer_text(&known));
    else if (known.length)
        error_hint(err, "It has: %s.", buffer_text(&known));
    return -EINVAL;
}

/* The schema of the member that is entered; NULL: nothing is known of it. */
static int enter_schema(const struct builder *builder, yajl_val *schema, const struct value *parent,
                        const char *name, struct error *err)
{
    if (!builder->method)
        return 0;
    if (parent == &builder->root) {
        yajl_val param = rpc_document_param(builder->document, builder->method, name);
        *schema = rpc_document_resolve(builder->document, tree_get(param, "schema"));
        return param ? 0 : refuse_parameter(builder, name, err);
    }
    yajl_val outer = rpc_document_resolve(builder->document, *schema);
    yajl_val member = tree_get(tree_get(outer, "properties"), name);
    if (!member)
        member = tree_get(outer, "additionalProperties");
    *schema = YAJL_IS_OBJECT(member) ? rpc_document_resolve(builder->document, member) : NULL;
    return 0;
}

/* Members may have any name: points belong to it. */
static bool has_free_names(const struct builder *builder, yajl_val schema)
{
    schema = rpc_document_resolve(builder->document, schema);
    return YAJL_IS_OBJECT(tree_get(schema, "additionalProperties")) &&
           !tree_get(schema, "properties");
}

/* Moves behind the name. Owned. */
static char *read_name(const char **at, bool with_points)
{
    struct buffer name = BUFFER_INIT;

    for (; **at && **at != '[' && (with_points || **at != '.'); (*at)++) {
        if (**at == '\\' && (*at)[1])
            (*at)++;
        buffer_append_char(&name, **at);
    }
    return buffer_steal(&name);
}

static int become(struct value *value, enum value_kind kind, const char *path, struct error *err)
{
    if (value->kind == VALUE_UNSET)
        value->kind = kind;
    if (value->kind == kind)
        return 0;
    return error_set(err, -EINVAL, "%s: a part of it was given in another way before", path);
}

/* At "[": an element of the array. */
static int enter_element(struct value **value, const char **at, const char *path, struct error *err)
{
    char *end;
    int r = become(*value, VALUE_ARRAY, path, err);

    if (r < 0)
        return r;
    size_t index = (*at)[1] == ']' ? (*value)->count : strtoul(*at + 1, &end, 10);
    if ((*at)[1] == ']')
        end = (char *)*at + 1;
    if (*end != ']' || index > (*value)->count || index >= ELEMENTS_MAX)
        return error_set(err, -EINVAL, "%s: [] or a number up to [%zu] is wanted there", path,
                         (*value)->count);
    *at = end + 1;
    struct value *element = (*value)->first;
    for (size_t i = 0; i < index && element; i++)
        element = element->next;
    *value = element ? element : add_value(*value, NULL);
    return 0;
}

/* The value that a path names, which is made as far as it is not there yet. */
static int enter_path(struct builder *builder, const char *path, struct value **ret,
                      yajl_val *ret_schema, struct error *err)
{
    struct value *value = &builder->root;
    const char *at = path;
    yajl_val schema = NULL;
    int r = 0;

    for (;;) {
        bool with_points = value != &builder->root && has_free_names(builder, schema);
        _cleanup_free_ char *name = read_name(&at, with_points);
        if (!*name)
            return error_set(err, -EINVAL, "'%s': a name is missing", path);
        r = become(value, VALUE_OBJECT, path, err);
        if (r == 0)
            r = enter_schema(builder, &schema, value, name, err);
        if (r < 0)
            return r;
        struct value *member = find_member(value, name);
        value = member ? member : add_value(value, steal_ptr(name));
        while (r == 0 && *at == '[') {
            r = enter_element(&value, &at, path, err);
            schema = rpc_document_resolve(builder->document, tree_get(schema, "items"));
        }
        if (r < 0 || *at != '.')
            break;
        at++;
    }
    if (r == 0 && *at)
        r = error_set(err, -EINVAL, "'%s': '.' or '=' is expected behind ']'", path);
    *ret = value;
    *ret_schema = schema;
    return r;
}

/* ---- words ---- */

static int set_value(struct builder *builder, const char *path, const char *text, bool is_json,
                     struct error *err)
{
    _cleanup_free_ char *source = NULL;
    struct value *value = NULL;
    yajl_val schema = NULL;
    char *json = NULL;

    int r = enter_path(builder, path, &value, &schema, err);
    if (r == 0 && *text == '@') {
        r = read_source(text + 1, &source, err);
        text = source;
    }
    if (r == 0 && is_json && compact_json(text, &json, err) < 0)
        return error_context(err, "%s", path);
    if (r == 0 && !is_json)
        r = typed_json(builder, schema, path, text, &json, err);
    if (r < 0)
        return r;
    clear_value(value);
    value->kind = VALUE_JSON;
    value->json = json;
    return 0;
}

/* An object on standard input: its members. */
static int take_object(struct builder *builder, struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_free_ char *text = NULL;
    yajl_val object = NULL;

    int r = read_source("-", &text, err);
    if (r == 0 && tree_parse(&arena, text, &object, err) < 0)
        return error_context(err, "standard input");
    if (r < 0)
        return r;
    if (!YAJL_IS_OBJECT(object))
        return error_set(err, -EINVAL, "standard input: an object is wanted");
    for (size_t i = 0; i < object->u.object.len; i++) {
        const char *name = object->u.object.keys[i];
        struct value *member = find_member(&builder->root, name);
        struct buffer json = BUFFER_INIT;
        if (!member)
            member = add_value(&builder->root, xstrdup(name));
        clear_value(member);
        tree_write(object->u.object.values[i], TREE_COMPACT, &json);
        member->kind = VALUE_JSON;
        member->json = buffer_steal(&json);
    }
    return 0;
}

static int take_word(struct builder *builder, const char *word, struct error *err)
{
    const char *equals = strchr(word, '=');

    if (text_equal(word, "-"))
        return take_object(builder, err);
    if (!equals || equals == word) {
        error_set(err, -EINVAL, "'%s' is no parameter", word);
        return error_hint(err, "Write NAME=VALUE, or NAME:=JSON.");
    }
    bool is_json = equals[-1] == ':';
    _cleanup_free_ char *path = xstrndup(word, (size_t)(equals - word) - is_json);
    return set_value(builder, path, equals + 1, is_json, err);
}

int rpc_params_build(const struct rpc_document *document, yajl_val method, const char *name,
                     char *const *words, struct buffer *out, struct error *err)
{
    struct builder builder = {.document = document, .method = method, .method_name = name};
    int r = 0;

    builder.root.kind = VALUE_OBJECT;
    builder.root.last = &builder.root.first;
    for (; r == 0 && *words; words++)
        r = take_word(&builder, *words, err);
    if (r == 0)
        write_value(&builder.root, out);
    clear_value(&builder.root);
    return r;
}
