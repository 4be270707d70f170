#include <base/alloc.h>
#include <base/text.h>

#include "table.h"

enum { COLUMN_MIN = 10, COLUMN_PADDING = 3 };

struct table {
    char ***rows; /* rows[i] is a string list of cells */
    size_t row_count;
};

struct table *table_create(void)
{
    return xnew(struct table);
}

void table_add(struct table *table, const char *row)
{
    char **cells = strv_split(row, '\t');

    for (size_t i = 0; cells && cells[i]; i++) {
        for (char *c = cells[i]; *c; c++) {
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                *c = '?';
        }
    }
    table->rows = xrealloc(table->rows, table->row_count + 1, sizeof(*table->rows));
    table->rows[table->row_count++] = cells;
}

static size_t width_of(const char *text)
{
    size_t width = 0;

    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = COLUMN_MIN;

    for (size_t i = 0; i < table->row_count; i++) {
        if (column >= strv_length(table->rows[i]))
            continue;
        size_t cell = width_of(table->rows[i][column]) + COLUMN_PADDING;
        width = cell > width ? cell : width;
    }
    return width;
}

void table_write(const struct table *table, struct buffer *out)
{
    size_t columns = 0;

    for (size_t i = 0; i < table->row_count; i++) {
        size_t length = strv_length(table->rows[i]);
        columns = length > columns ? length : columns;
    }
    size_t *widths = xnew_array(size_t, columns + 1);
    for (size_t i = 0; i < columns; i++)
        widths[i] = column_width(table, i);
    for (size_t i = 0; i < table->row_count; i++) {
        char **cells = table->rows[i];
        for (size_t j = 0; cells && cells[j]; j++) {
            buffer_append_text(out, cells[j]);
            for (size_t pad = width_of(cells[j]); cells[j + 1] && pad < widths[j]; pad++)
                buffer_append_char(out, ' ');
        }
        buffer_append_char(out, '\n');
    }
    free(widths);
}

void table_destroy(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->row_count; i++)
        strv_free(table->rows[i]);
    free(table->rows);
    free(table);
}
