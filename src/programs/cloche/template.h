/*
 * --format templates: the part of Go's text/template that people use with docker.
 *
 *     {{.State.Status}}  {{json .Config}}  {{index .Args 0}}  {{len .Mounts}}  {{$x.Name}}
 *     {{range .List}}..{{else}}..{{end}}  {{range $k, $v := .Map}}..{{end}}
 *     {{if .A}}..{{else if .B}}..{{else}}..{{end}}  {{with .A}}..{{end}}
 *     pipes, parentheses, "text", `text`, numbers, true, false, nil, {{- trimming -}}, comments
 *
 * Functions: see template_functions.c. Anything else is an error that names it.
 */
#ifndef CLOCHE_TEMPLATE_H
#define CLOCHE_TEMPLATE_H

#include <base/buffer.h>
#include <base/error.h>

#include "tree.h"

enum {
    TEMPLATE_DEPTH_MAX = 32,     /* nested parentheses and blocks */
    TEMPLATE_ARGUMENTS_MAX = 16, /* of one function */
    TEMPLATE_VARIABLES_MAX = 16,
    TEMPLATE_ACTIONS_MAX = 1000000,         /* that are carried out, ranges counted each time */
    TEMPLATE_OUTPUT_MAX = 64 * 1024 * 1024, /* bytes */
};

/* Appends the template's text for the document to out. -EINVAL with a message otherwise; out may
 * then hold a part. */
int template_render(const char *text, yajl_val document, struct tree_arena *arena,
                    struct buffer *out, struct error *err);

/* What inspect prints of one object, a JSON text: by the template and a new line; without one, or
 * by "json", as an item of an array, with a comma before it unless it is the first. */
int template_show(const char *format, const char *json, bool first, struct buffer *out,
                  struct error *err);

/* ---- between template.c and template_functions.c */

struct template_call {
    struct tree_arena *arena;
    yajl_val arguments[TEMPLATE_ARGUMENTS_MAX]; /* NULL is Go's nil */
    size_t count;
};

struct template_function {
    const char *name;
    size_t minimum, maximum; /* arguments */
    int (*call)(struct template_call *call, yajl_val *ret, struct error *err);
};

const struct template_function *template_function_find(const char *name, size_t length);

/* As Go's %v prints it: text as it is, [a b], map[k:v], <no value>. */
void template_print(yajl_val value, struct buffer *out);

/* Whether {{if}} takes it as true: not nil, false, 0, or empty. */
bool template_truth(yajl_val value);

#endif
