#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/json.h>

#include "tree.h"

enum { TREE_INDENT = 4 };

static void *keep(struct tree_arena *arena, void *block)
{
    arena->blocks = xrealloc(arena->blocks, arena->block_count + 1, sizeof(*arena->blocks));
    arena->blocks[arena->block_count++] = block;
    return block;
}

static yajl_val new_node(struct tree_arena *arena, yajl_type type)
{
    yajl_val node = keep(arena, xnew(struct yajl_val_s));

    node->type = type;
    return node;
}

int tree_parse(struct tree_arena *arena, const char *text, yajl_val *ret, struct error *err)
{
    char message[128];

    yajl_val node = yajl_tree_parse(text, message, sizeof(message));
    if (!node) {
        message[strcspn(message, "\n")] = '\0';
        return error_set(err, -EPROTO, "not JSON: %s", message);
    }
    arena->parsed = xrealloc(arena->parsed, arena->parsed_count + 1, sizeof(*arena->parsed));
    arena->parsed[arena->parsed_count++] = node;
    *ret = node;
    return 0;
}

yajl_val tree_string(struct tree_arena *arena, const char *text)
{
    yajl_val node = new_node(arena, yajl_t_string);

    node->u.string = keep(arena, xstrdup(text));
    return node;
}

yajl_val tree_number(struct tree_arena *arena, long long value)
{
    yajl_val node = new_node(arena, yajl_t_number);

    node->u.number.r = keep(arena, xasprintf("%lld", value));
    node->u.number.i = value;
    node->u.number.flags = YAJL_NUMBER_INT_VALID;
    return node;
}

yajl_val tree_boolean(struct tree_arena *arena, bool value)
{
    return new_node(arena, value ? yajl_t_true : yajl_t_false);
}

yajl_val tree_array(struct tree_arena *arena, char *const *items)
{
    yajl_val node = new_node(arena, yajl_t_array);
    size_t count = strv_length(items);

    node->u.array.values = keep(arena, xnew_array(yajl_val, count + 1));
    node->u.array.len = count;
    for (size_t i = 0; i < count; i++)
        node->u.array.values[i] = tree_string(arena, items[i]);
    return node;
}

yajl_val tree_part(struct tree_arena *arena, yajl_val array, size_t from, size_t to)
{
    yajl_val node = new_node(arena, yajl_t_array);

    node->u.array.len = to - from;
    node->u.array.values = array->u.array.values + from;
    return node;
}

yajl_val tree_object(struct tree_arena *arena, const char **keys, char *const *values, size_t count)
{
    yajl_val node = new_node(arena, yajl_t_object);

    node->u.object.keys = keys;
    node->u.object.values = keep(arena, xnew_array(yajl_val, count + 1));
    node->u.object.len = count;
    for (size_t i = 0; i < count; i++)
        node->u.object.values[i] = tree_string(arena, values[i]);
    return node;
}

yajl_val tree_get(yajl_val node, const char *key)
{
    for (size_t i = 0; YAJL_IS_OBJECT(node) && i < node->u.object.len; i++) {
        if (strcmp(node->u.object.keys[i], key) == 0)
            return node->u.object.values[i];
    }
    return NULL;
}

static void break_line(enum tree_layout layout, size_t depth, struct buffer *out)
{
    if (layout == TREE_PRETTY)
        buffer_printf(out, "\n%*s", (int)(depth * TREE_INDENT), "");
}

static void write_node(yajl_val node, enum tree_layout layout, size_t depth, struct buffer *out);

static void write_object(yajl_val node, enum tree_layout layout, size_t depth, struct buffer *out)
{
    buffer_append_char(out, '{');
    for (size_t i = 0; i < node->u.object.len; i++) {
        const char *key = node->u.object.keys[i];
        if (i)
            buffer_append_char(out, ',');
        break_line(layout, depth + 1, out);
        json_quote(out, key, strlen(key));
        buffer_append_text(out, layout == TREE_PRETTY ? ": " : ":");
        write_node(node->u.object.values[i], layout, depth + 1, out);
    }
    if (node->u.object.len)
        break_line(layout, depth, out);
    buffer_append_char(out, '}');
}

static void write_array(yajl_val node, enum tree_layout layout, size_t depth, struct buffer *out)
{
    buffer_append_char(out, '[');
    for (size_t i = 0; i < node->u.array.len; i++) {
        if (i)
            buffer_append_char(out, ',');
        break_line(layout, depth + 1, out);
        write_node(node->u.array.values[i], layout, depth + 1, out);
    }
    if (node->u.array.len)
        break_line(layout, depth, out);
    buffer_append_char(out, ']');
}

static void write_node(yajl_val node, enum tree_layout layout, size_t depth, struct buffer *out)
{
    if (YAJL_IS_OBJECT(node))
        write_object(node, layout, depth, out);
    else if (YAJL_IS_ARRAY(node))
        write_array(node, layout, depth, out);
    else if (YAJL_IS_STRING(node))
        json_quote(out, node->u.string, strlen(node->u.string));
    else if (node && node->type == yajl_t_number)
        buffer_append_text(out, node->u.number.r);
    else if (YAJL_IS_TRUE(node) || YAJL_IS_FALSE(node))
        buffer_append_text(out, YAJL_IS_TRUE(node) ? "true" : "false");
    else
        buffer_append_text(out, "null");
}

void tree_write(yajl_val node, enum tree_layout layout, struct buffer *out)
{
    write_node(node, layout, 0, out);
}

void tree_write_item(yajl_val node, unsigned depth, struct buffer *out)
{
    break_line(TREE_PRETTY, depth, out);
    write_node(node, TREE_PRETTY, depth, out);
}

void tree_arena_finish(struct tree_arena *arena)
{
    for (size_t i = 0; i < arena->block_count; i++)
        free(arena->blocks[i]);
    for (size_t i = 0; i < arena->parsed_count; i++)
        yajl_tree_free(arena->parsed[i]);
    free(arena->blocks);
    free(arena->parsed);
    *arena = (struct tree_arena)TREE_ARENA_INIT;
}
