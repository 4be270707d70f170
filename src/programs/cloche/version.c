#include <stdio.h>
#include <sys/utsname.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "template.h"

struct version_options {
    const char *format;
};

static const struct option version_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct version_options, format),
        .argument = "string",
        .help = "\"json\", or a template",
    },
    {.name = NULL},
};

static const struct option_group version_groups[] = {{.options = version_table}, {.options = NULL}};

/* The words docker and Go have for machines. */
static const char *architecture(const char *machine)
{
    if (text_equal(machine, "x86_64"))
        return "amd64";
    return text_equal(machine, "aarch64") ? "arm64" : machine;
}

static void write_string(struct json_writer *writer, const char *key, const char *value)
{
    if (!value)
        return;
    json_writer_key(writer, key);
    json_writer_string(writer, value);
}

static void write_client(struct json_writer *writer)
{
    struct utsname machine;

    json_writer_object_begin(writer);
    write_string(writer, "Version", CLOCHE_VERSION);
    write_string(writer, "ApiVersion", CLOCHE_API_VERSION);
    write_string(writer, "Os", "linux");
    if (uname(&machine) == 0)
        write_string(writer, "Arch", architecture(machine.machine));
    json_writer_object_end(writer);
}

static void write_server(struct json_writer *writer, const struct api_system_version *version)
{
    json_writer_object_begin(writer);
    write_string(writer, "Version", version->version);
    write_string(writer, "ApiVersion", version->api_version);
    write_string(writer, "GitCommit", version->git_commit);
    write_string(writer, "Compiler", version->compiler);
    write_string(writer, "Os", version->os);
    write_string(writer, "Arch", version->arch);
    write_string(writer, "KernelVersion", version->kernel_version);
    json_writer_object_end(writer);
}

static void write_document(const struct api_system_version *version, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "Client");
    write_client(&writer);
    json_writer_key(&writer, "Server");
    if (version)
        write_server(&writer, version);
    else
        json_writer_null(&writer);
    json_writer_object_end(&writer);
}

static const char text_template[] =
    "{{with .Client}}Client:\n"
    " Version:           {{.Version}}\n"
    " API version:       {{.ApiVersion}}\n"
    " OS/Arch:           {{.Os}}/{{.Arch}}\n{{end}}"
    "{{if .Server}}{{$s := .Server}}\nServer:\n"
    " Engine:\n"
    "  Version:          {{$s.Version}}\n"
    "  API version:      {{$s.ApiVersion}}\n"
    "{{range $k, $v := $s}}{{if eq $k \"GitCommit\"}}  Git commit:       {{$v}}\n"
    "{{else if eq $k \"Compiler\"}}  Compiler:         {{$v}}\n{{end}}{{end}}"
    "  OS/Arch:          {{$s.Os}}/{{$s.Arch}}\n"
    "  Kernel:           {{$s.KernelVersion}}\n{{end}}";

/* What is known of the client is shown also when no daemon can be reached. */
static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct version_options *options = values;
    _cleanup_api_system_version_ struct api_system_version *version = NULL;
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_buffer_ struct buffer json = BUFFER_INIT, text = BUFFER_INIT;
    _cleanup_error_ struct error unreachable = ERROR_INIT, err = ERROR_INIT;
    const struct api_empty params = {0};
    bool as_json = text_equal(options->format, "json");
    yajl_val document;

    cli_call(cli, "system.version", &params, &version, &unreachable);
    write_document(version, &json);
    int r = tree_parse(&arena, buffer_text(&json), &document, &err);
    if (r >= 0 && as_json)
        tree_write(document, TREE_COMPACT, &text);
    else if (r >= 0)
        r = template_render(options->format ? options->format : text_template, document, &arena,
                            &text, &err);
    if (r < 0)
        return cli_fail(&err);
    if (options->format)
        buffer_append_char(&text, '\n');
    int code = cli_print(&text);
    return version ? code : cli_fail(&unreachable);
}

const struct command version_command = {
    .name = "version",
    .usage = "[OPTIONS]",
    .summary = "Show the versions of the command line and of the engine",
    .options = version_groups,
    .values_size = sizeof(struct version_options),
    .common = true,
    .run = run,
};
