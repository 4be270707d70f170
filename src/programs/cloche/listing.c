#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "listing.h"
#include "table.h"
#include "template.h"
#include "tree.h"

struct listing {
    const char *names[LISTING_FIELDS_MAX];
    char *headers[LISTING_FIELDS_MAX + 1]; /* borrowed; NULL-terminated */
    size_t field_count;
    char ***rows;
    size_t row_count;
};

struct listing *listing_create(const struct listing_field *fields)
{
    struct listing *listing = xnew(struct listing);

    for (; fields->name && listing->field_count < LISTING_FIELDS_MAX; fields++) {
        listing->names[listing->field_count] = fields->name;
        listing->headers[listing->field_count++] = (char *)fields->header;
    }
    return listing;
}

void listing_add(struct listing *listing, char **values)
{
    listing->rows = xrealloc(listing->rows, listing->row_count + 1, sizeof(*listing->rows));
    listing->rows[listing->row_count++] = values;
}

/* "\t" and "\n" typed in single quotes. */
static char *unescape(const char *format)
{
    struct buffer text = BUFFER_INIT;

    for (; *format; format++) {
        if (format[0] == '\\' && (format[1] == 't' || format[1] == 'n'))
            buffer_append_char(&text, *++format == 't' ? '\t' : '\n');
        else
            buffer_append_char(&text, *format);
    }
    return buffer_steal(&text);
}

static int render_row(const struct listing *listing, const char *template, char *const *values,
                      struct buffer *out, struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;

    yajl_val row = tree_object(&arena, (const char **)listing->names, values, listing->field_count);
    return template_render(template, row, &arena, out, err);
}

static int write_table(const struct listing *listing, const char *template, struct buffer *out,
                       struct error *err)
{
    _cleanup_table_ struct table *table = table_create();
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    int r = render_row(listing, template, listing->headers, &line, err);

    if (r >= 0)
        table_add(table, buffer_text(&line));
    for (size_t i = 0; r >= 0 && i < listing->row_count; i++) {
        buffer_clear(&line);
        r = render_row(listing, template, listing->rows[i], &line, err);
        if (r >= 0)
            table_add(table, buffer_text(&line));
    }
    if (r >= 0)
        table_write(table, out);
    return r;
}

static void write_json(const struct listing *listing, struct buffer *out)
{
    for (size_t i = 0; i < listing->row_count; i++) {
        _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
        yajl_val row = tree_object(&arena, (const char **)listing->names, listing->rows[i],
                                   listing->field_count);
        tree_write(row, TREE_COMPACT, out);
        buffer_append_char(out, '\n');
    }
}

int listing_write(const struct listing *listing, const char *format, const char *default_template,
                  struct buffer *out, struct error *err)
{
    _cleanup_free_ char *template = NULL;

    if (text_empty(format) || text_equal(format, "table"))
        return write_table(listing, default_template, out, err);
    if (text_equal(format, "json")) {
        write_json(listing, out);
        return 0;
    }
    bool table = text_starts_with(format, "table ");
    template = unescape(table ? format + strlen("table ") : format);
    if (table)
        return write_table(listing, template, out, err);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < listing->row_count; i++) {
        r = render_row(listing, template, listing->rows[i], out, err);
        buffer_append_char(out, '\n');
    }
    return r;
}

void listing_destroy(struct listing *listing)
{
    if (!listing)
        return;
    for (size_t i = 0; i < listing->row_count; i++)
        strv_free(listing->rows[i]);
    free(listing->rows);
    free(listing);
}
