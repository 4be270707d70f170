/*
 * An event as people and programs read it: docker's line, docker's JSON, or a template over the
 * latter.
 */
#ifndef CLOCHE_EVENT_LINES_H
#define CLOCHE_EVENT_LINES_H

#include <base/buffer.h>
#include <base/error.h>
#include <schema/management.h>

/* Appends a line. format: NULL, "" or "text": docker's line; "json"; else a template. -EINVAL: the
 * template cannot be used. */
int event_line(const struct api_event *event, const char *format, struct buffer *out,
               struct error *err);

/* Adds a filter as docker's --filter names it: type=, event=, container=, image=, label=
 * and so on. */
int event_filter_add(struct api_event_filters *filters, const char *text, struct error *err);

#endif
