/*
 * Lists of things in the forms docker's CLI offers: a table, a template a line, a table of a
 * template, JSON a line.
 */
#ifndef CLOCHE_LISTING_H
#define CLOCHE_LISTING_H

#include <stddef.h>

#include <base/buffer.h>
#include <base/error.h>

/* A field of each row: its name in templates and JSON, and its column's header. */
struct listing_field {
    const char *name;
    const char *header;
};

enum { LISTING_FIELDS_MAX = 24 };

struct listing; /* opaque */

/* fields: name NULL ends them; borrowed. */
struct listing *listing_create(const struct listing_field *fields);

/* A row: one text a field, in their order, NULL-terminated. Taken over. */
void listing_add(struct listing *listing, char **values);

/* format: NULL or "table": the table of default_template (fields separated by tabs); "table
 * TEMPLATE", "json", or a template. \t and \n written as two characters are tab and newline. */
int listing_write(const struct listing *listing, const char *format, const char *default_template,
                  struct buffer *out, struct error *err);

void listing_destroy(struct listing *listing); /* NULL allowed */

static inline void cleanup_listing_p(struct listing **listing)
{
    listing_destroy(*listing);
}
#define _cleanup_listing_ _cleanup_(cleanup_listing_p)

#endif
