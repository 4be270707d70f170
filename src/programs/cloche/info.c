#include <stdio.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "template.h"

struct info_options {
    const char *format;
};

static const struct option info_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct info_options, format),
        .argument = "string",
        .help = "\"json\", or a template",
    },
    {.name = NULL},
};

static const struct option_group info_groups[] = {{.options = info_table}, {.options = NULL}};

/* docker's names for what we know. */
static void write_counts(const struct api_system_info *info, struct json_writer *writer)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"Containers", info->containers},
        {"ContainersRunning", info->containers_running},
        {"ContainersPaused", info->containers_paused},
        {"ContainersStopped", info->containers_stopped},
        {"Images", info->images},
        {"CgroupVersion", info->cgroup_version},
        {"NCPU", info->cpus},
        {"Pid", info->pid},
    };

    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        json_writer_key(writer, counts[i].name);
        json_writer_integer(writer, counts[i].value);
    }
    json_writer_key(writer, "MemTotal");
    json_writer_unsigned(writer, info->memory);
}

static void write_texts(const struct api_system_info *info, struct json_writer *writer)
{
    _cleanup_free_ char *memory = xasprintf("%.4gGiB", (double)info->memory / (1 << 30));
    const struct {
        const char *name, *value;
    } texts[] = {
        {"Instance", info->instance},
        {"ServerVersion", info->version},
        {"Driver", info->storage_driver},
        {"CgroupDriver", info->cgroup_driver},
        {"DefaultRuntime", info->runtime},
        {"Bridge", info->bridge},
        {"Subnet", info->subnet},
        {"KernelVersion", info->kernel_version},
        {"OperatingSystem", info->operating_system},
        {"OSType", info->os_type},
        {"Architecture", info->architecture},
        {"Name", info->name},
        {"DockerRootDir", info->root_dir},
        {"RunDir", info->run_dir},
        {"MemText", memory},
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        json_writer_key(writer, texts[i].name);
        json_writer_string(writer, texts[i].value ? texts[i].value : "");
    }
}

static void write_list(struct json_writer *writer, const char *key, char *const *items)
{
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
    for (; items && *items; items++)
        json_writer_string(writer, *items);
    json_writer_array_end(writer);
}

static void write_document(const struct api_system_info *info, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    write_counts(info, &writer);
    write_texts(info, &writer);
    write_list(&writer, "SecurityOptions", info->security_options);
    write_list(&writer, "Warnings", info->warnings);
    json_writer_key(&writer, "Swarm");
    json_writer_raw(&writer, "{\"LocalNodeState\":\"inactive\"}");
    json_writer_key(&writer, "ClientInfo");
    json_writer_raw(&writer, "{\"Version\":\"" CLOCHE_VERSION "\"}");
    json_writer_object_end(&writer);
}

static const char text_template[] =
    "Client:\n"
    " Version:    {{.ClientInfo.Version}}\n"
    "\n"
    "Server:\n"
    " Containers: {{.Containers}}\n"
    "  Running: {{.ContainersRunning}}\n"
    "  Paused: {{.ContainersPaused}}\n"
    "  Stopped: {{.ContainersStopped}}\n"
    " Images: {{.Images}}\n"
    " Server Version: {{.ServerVersion}}\n"
    " Instance: {{or .Instance \"(default)\"}}\n"
    "{{if .Driver}} Storage Driver: {{.Driver}}\n{{end}}"
    "{{if .CgroupDriver}} Cgroup Driver: {{.CgroupDriver}}\n{{end}}"
    "{{if .CgroupVersion}} Cgroup Version: {{.CgroupVersion}}\n{{end}}"
    "{{if .DefaultRuntime}} Default Runtime: {{.DefaultRuntime}}\n{{end}}"
    "{{if .SecurityOptions}} Security Options:\n"
    "{{range .SecurityOptions}}  {{.}}\n{{end}}{{end}}"
    "{{if .Bridge}} Bridge: {{.Bridge}}{{if .Subnet}} ({{.Subnet}}){{end}}\n{{end}}"
    "{{if .KernelVersion}} Kernel Version: {{.KernelVersion}}\n{{end}}"
    "{{if .OperatingSystem}} Operating System: {{.OperatingSystem}}\n{{end}}"
    "{{if .OSType}} OSType: {{.OSType}}\n{{end}}"
    "{{if .Architecture}} Architecture: {{.Architecture}}\n{{end}}"
    "{{if .NCPU}} CPUs: {{.NCPU}}\n{{end}}"
    "{{if .MemTotal}} Total Memory: {{.MemText}}\n{{end}}"
    "{{if .Name}} Name: {{.Name}}\n{{end}}"
    " Root Dir: {{.DockerRootDir}}\n"
    "{{range .Warnings}}WARNING: {{.}}\n{{end}}";

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct info_options *options = values;
    _cleanup_api_system_info_ struct api_system_info *info = NULL;
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_buffer_ struct buffer json = BUFFER_INIT, text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_empty params = {0};
    yajl_val document = NULL;

    int r = cli_call(cli, "system.info", &params, &info, &err);
    if (r >= 0) {
        write_document(info, &json);
        r = tree_parse(&arena, buffer_text(&json), &document, &err);
    }
    if (r >= 0 && text_equal(options->format, "json"))
        tree_write(document, TREE_COMPACT, &text);
    else if (r >= 0)
        r = template_render(options->format ? options->format : text_template, document, &arena,
                            &text, &err);
    if (options->format)
        buffer_append_char(&text, '\n');
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

const struct command info_command = {
    .name = "info",
    .usage = "[OPTIONS]",
    .summary = "Show what the engine has and what it runs on",
    .options = info_groups,
    .values_size = sizeof(struct info_options),
    .common = true,
    .run = run,
};
