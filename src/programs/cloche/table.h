/*
 * Columns of text as docker's CLI lays them out (Go's text/tabwriter with minwidth 10 and padding
 * 3): a column is as wide as its widest cell plus 3 blanks, at least 10, and the last one is not
 * padded. Widths count characters of UTF-8.
 */
#ifndef CLOCHE_TABLE_H
#define CLOCHE_TABLE_H

#include <stddef.h>

#include <base/buffer.h>

struct table; /* opaque */

struct table *table_create(void);

/* Adds a row of cells separated by tabs. Control characters in cells are shown as "?": they came
 * from a container or an image and must not drive the terminal. */
void table_add(struct table *table, const char *row);

void table_write(const struct table *table, struct buffer *out);
void table_destroy(struct table *table); /* NULL allowed */

static inline void cleanup_table_p(struct table **table)
{
    table_destroy(*table);
}
#define _cleanup_table_ _cleanup_(cleanup_table_p)

#endif
