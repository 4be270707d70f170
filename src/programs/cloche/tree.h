/*
 * JSON as a tree, for what people ask of a document by name (--format). Nodes are yajl's; those
 * made here and those parsed live as long as their arena.
 */
#ifndef CLOCHE_TREE_H
#define CLOCHE_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include <yajl/yajl_tree.h>

#include <base/buffer.h>
#include <base/error.h>

struct tree_arena {
    void **blocks;    /* owned */
    yajl_val *parsed; /* owned */
    size_t block_count, parsed_count;
};

#define TREE_ARENA_INIT                                                                            \
    {                                                                                              \
        NULL, NULL, 0, 0                                                                           \
    }

/* NULL with -EPROTO when text is not JSON. */
int tree_parse(struct tree_arena *arena, const char *text, yajl_val *ret, struct error *err);

/* Nodes in the arena. Text is copied; keys (and the array of them) are borrowed. */
yajl_val tree_string(struct tree_arena *arena, const char *text);
yajl_val tree_number(struct tree_arena *arena, long long value);
yajl_val tree_boolean(struct tree_arena *arena, bool value);
yajl_val tree_array(struct tree_arena *arena, char *const *items); /* of strings */
yajl_val tree_object(struct tree_arena *arena, const char **keys, char *const *values,
                     size_t count);

/* The items of an array from one place to before another. */
yajl_val tree_part(struct tree_arena *arena, yajl_val array, size_t from, size_t to);

/* The member; NULL when node is no object or has none of that name. */
yajl_val tree_get(yajl_val node, const char *key);

enum tree_layout { TREE_COMPACT, TREE_PRETTY /* indented by 4 */ };
void tree_write(yajl_val node, enum tree_layout layout, struct buffer *out);

/* Pretty, on a line of its own, as the item of an array at this depth (1: the outermost). */
void tree_write_item(yajl_val node, unsigned depth, struct buffer *out);

void tree_arena_finish(struct tree_arena *arena);
#define _cleanup_tree_arena_ _cleanup_(tree_arena_finish)

#endif
