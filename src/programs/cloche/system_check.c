#include <stdio.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "progress.h"
#include "template.h"

struct check_options {
    bool deep, repair, quiet;
    const char *format;
};

static const struct option check_table[] = {
    {
        .name = "deep",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct check_options, deep),
        .help = "Read every layer, and compare it with its folder",
    },
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct check_options, format),
        .argument = "string",
        .help = "\"json\", or a template",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct check_options, quiet),
        .help = "Show no progress",
    },
    {
        .name = "repair",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct check_options, repair),
        .help = "Mend what can be mended",
    },
    {.name = NULL},
};

static const struct option_group check_groups[] = {{.options = check_table}, {.options = NULL}};

static void write_problem(const struct api_store_problem *problem, struct json_writer *writer)
{
    const char *const members[][2] = {
        {"What", problem->what}, {"Problem", problem->problem}, {"Remedy", problem->remedy}};

    json_writer_object_begin(writer);
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        json_writer_key(writer, members[i][0]);
        json_writer_string(writer, members[i][1]);
    }
    json_writer_key(writer, "Repaired");
    json_writer_boolean(writer, problem->repaired);
    json_writer_object_end(writer);
}

static void write_document(const struct api_system_checked *checked, struct buffer *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {{"Images", checked->images},
                  {"Layers", checked->layers},
                  {"Blobs", checked->blobs},
                  {"Containers", checked->containers},
                  {"Bytes", checked->bytes}};
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        json_writer_key(&writer, counts[i].name);
        json_writer_unsigned(&writer, counts[i].value);
    }
    json_writer_key(&writer, "Problems");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < checked->problems_count; i++)
        write_problem(checked->problems[i], &writer);
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
}

static const char text_template[] =
    "{{range .Problems}}{{.What}}: {{.Problem}}\n  {{.Remedy}}\n{{end}}"
    "{{.Images}} images, {{.Layers}} layers, {{.Blobs}} blobs and {{.Containers}} containers "
    "checked: {{if .Problems}}{{len .Problems}} problems{{else}}all good{{end}}\n";

static int print(const struct check_options *options, const struct api_system_checked *checked,
                 struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_buffer_ struct buffer json = BUFFER_INIT, text = BUFFER_INIT;
    yajl_val document;

    write_document(checked, &json);
    int r = tree_parse(&arena, buffer_text(&json), &document, err);
    if (r >= 0 && text_equal(options->format, "json"))
        tree_write(document, TREE_COMPACT, &text);
    else if (r >= 0)
        r = template_render(options->format ? options->format : text_template, document, &arena,
                            &text, err);
    if (r < 0)
        return r;
    fputs(buffer_text(&text), stdout);
    if (options->format)
        putchar('\n');
    return 0;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct check_options *options = values;
    const struct api_system_check params = {
        .deep = options->deep, .has_deep = true, .repair = options->repair, .has_repair = true};
    _cleanup_api_system_checked_ struct api_system_checked *checked = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct progress progress;

    if (cli_connect(cli, &err) < 0)
        return cli_fail(&err);
    progress_start(&progress, "Checking", -1, options->quiet);
    int r = cli_call_with_fd(cli, "system.check", &params, &checked, -1, progress_tick, &progress,
                             &err);
    progress_end(&progress);
    if (r < 0 || (r = print(options, checked, &err)) < 0)
        return cli_fail(&err);
    for (size_t i = 0; i < checked->problems_count; i++) {
        if (!checked->problems[i]->repaired)
            return EXIT_FAILED;
    }
    return EXIT_DONE;
}

const struct command system_check_command = {
    .name = "check",
    .usage = "[OPTIONS]",
    .summary = "Look whether images on the disk are what they were, and mend them",
    .options = check_groups,
    .values_size = sizeof(struct check_options),
    .run = run,
};
