#include <stdio.h>
#include <string.h>

#include <cloche/runtime.h>

#include <base/buffer.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

enum { COLUMNS = 6, COLUMN_MIN = 12, COLUMN_GAP = 3 };

struct table {
    char **cells; /* owned; row by row */
};

static void add_row(struct table *table, const char *const *cells)
{
    for (int i = 0; i < COLUMNS; i++)
        strv_append(&table->cells, cells[i] ? cells[i] : "");
}

/* Columns as wide as their longest cell, as Go's tabwriter sets them for runc. */
static void print_table(const struct table *table)
{
    size_t widths[COLUMNS] = {0};
    size_t count = strv_length(table->cells);

    for (size_t i = 0; i < count; i++) {
        size_t width = strlen(table->cells[i]) + COLUMN_GAP;
        if (width < COLUMN_MIN)
            width = COLUMN_MIN;
        if (width > widths[i % COLUMNS])
            widths[i % COLUMNS] = width;
    }
    for (size_t i = 0; i < count; i++) {
        if (i % COLUMNS == COLUMNS - 1)
            printf("%s\n", table->cells[i]);
        else
            printf("%-*s", (int)widths[i % COLUMNS], table->cells[i]);
    }
}

static void add_container(struct table *table, const struct cloche_runtime_info *info)
{
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", info->pid);
    const char *cells[COLUMNS] = {
        info->id,     pid,           cloche_runtime_status_name(info->status),
        info->bundle, info->created, info->owner};
    add_row(table, cells);
}

/* One line, as runc: "[{...},{...}]". */
static void write_json(const struct cloche_runtime_info *info, struct buffer *out)
{
    _cleanup_free_ char *json = cloche_runtime_info_json(info, false);

    buffer_append_char(out, out->length ? ',' : '[');
    buffer_append_text(out, json);
}

static void print_json(struct buffer *items)
{
    if (items->length)
        buffer_append_char(items, ']');
    puts(items->length ? buffer_text(items) : "null");
}

static void list_all(const struct program *program, char *const *names, bool quiet, bool json)
{
    static const char *const header[COLUMNS] = {"ID",     "PID",     "STATUS",
                                                "BUNDLE", "CREATED", "OWNER"};
    struct table table = {0};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    add_row(&table, header);
    for (; names && *names; names++) {
        struct cloche_runtime_info *info;
        if (quiet) {
            puts(*names);
            continue;
        }
        if (cloche_runtime_state(program->runtime, *names, &info) < 0)
            continue; /* removed meanwhile, or being made */
        if (json)
            write_json(info, &text);
        else
            add_container(&table, info);
        cloche_runtime_info_free(info);
    }
    if (!quiet && json)
        print_json(&text);
    else if (!quiet)
        print_table(&table);
    strv_free(table.cells);
}

static int list_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    char **names;
    const char *format = "table";
    bool quiet = false;
    const struct option_spec specs[] = {{.name = "quiet", .letter = 'q', .flag = &quiet},
                                        {.name = "format", .letter = 'f', .value = &format},
                                        {0}};
    int rest = options_parse(specs, true, argc, argv, &err);

    if (rest > 0)
        rest = error_set(&err, -1, "takes no arguments");
    if (rest == 0 && !text_equal(format, "table") && !text_equal(format, "json"))
        rest = error_set(&err, -1, "invalid format option: %s", format);
    if (rest < 0)
        return program_usage_error(&command_list, &err);
    if (cloche_runtime_list(program->runtime, &names) < 0)
        return program_failed(program);
    list_all(program, names, quiet, text_equal(format, "json"));
    cloche_runtime_list_free(names);
    return EXIT_CODE_OK;
}

const struct command command_list = {
    .name = "list",
    .usage = "[--quiet] [--format table|json]",
    .summary = "list the containers",
    .main = list_main,
};
