#include <stdio.h>
#include <string.h>

#include <base/text.h>
#include <door/inspect.h>
#include <schema/management.h>

#include "cli.h"
#include "template.h"

struct inspect_options {
    bool size;
    const char *format, *type;
    bool verbose;
};

static const char *const types[] = {"container", "image", "network", "volume", NULL};

static const struct option format_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct inspect_options, format),
        .argument = "string",
        .help = "\"json\", or a template for each ({{.State.Status}}, {{json .Config}})",
    },
    {.name = NULL},
};

static const struct option size_table[] = {
    {
        .name = "size",
        .short_name = 's',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct inspect_options, size),
        .help = "Show what the files of a container take, too",
    },
    {.name = NULL},
};

static const struct option type_table[] = {
    {
        .name = "type",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct inspect_options, type),
        .argument = "string",
        .help = "Look only for a container, an image, a network or a volume",
        .complete = COMPLETE_CHOICES,
        .choices = types,
    },
    {.name = NULL},
};

static const struct option verbose_table[] = {
    {
        .name = "verbose",
        .short_name = 'v',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct inspect_options, verbose),
        .help = "Kept for docker's sake: there is no more to show",
    },
    {.name = NULL},
};

static const struct option_group network_groups[] = {
    {.options = format_table}, {.options = verbose_table}, {.options = NULL}};
static const struct option_group inspect_groups[] = {
    {.options = format_table}, {.options = size_table}, {.options = type_table}, {.options = NULL}};
static const struct option_group container_groups[] = {
    {.options = format_table}, {.options = size_table}, {.options = NULL}};
static const struct option_group typed_groups[] = {{.options = format_table}, {.options = NULL}};

/* docker's names, as the last members of the document. */
static int add_sizes(struct cli *cli, char *name, struct buffer *json, struct error *err)
{
    _cleanup_api_file_sizes_ struct api_file_sizes *sizes = NULL;
    const struct api_container_size params = {.container = name};

    int r = cli_call(cli, "container.size", &params, &sizes, err);
    if (r < 0)
        return r;
    while (json->length && json->data[json->length - 1] != '}')
        json->length--;
    json->length -= json->length > 0;
    buffer_printf(json, ",\"SizeRw\":%ju,\"SizeRootFs\":%ju}", (uintmax_t)sizes->size_rw,
                  (uintmax_t)sizes->size_root_fs);
    return 0;
}

static int find_container(struct cli *cli, bool size, char *name, struct buffer *json,
                          struct error *err)
{
    _cleanup_api_container_details_ struct api_container_details *container = NULL;
    const struct api_container_ref params = {.container = name};

    int r = cli_call(cli, "container.inspect", &params, &container, err);
    if (r >= 0)
        door_inspect_container(container, json);
    return r >= 0 && size ? add_sizes(cli, name, json, err) : r;
}

static int find_image(struct cli *cli, char *name, struct buffer *json, struct error *err)
{
    _cleanup_api_image_details_ struct api_image_details *image = NULL;
    const struct api_image_ref params = {.image = name};

    int r = cli_call(cli, "image.inspect", &params, &image, err);
    return r < 0 ? r : door_inspect_image(image, json, err);
}

static int find_network(struct cli *cli, char *name, struct buffer *json, struct error *err)
{
    _cleanup_api_network_details_ struct api_network_details *network = NULL;
    const struct api_network_ref params = {.network = name};

    int r = cli_call(cli, "network.inspect", &params, &network, err);
    if (r >= 0)
        door_inspect_network(network, json);
    return r;
}

static bool may_be(const char *type, const char *wanted)
{
    return !type || text_equal(type, wanted);
}

/* As docker has it. */
static int find_volume(struct cli *cli, char *name, struct buffer *json, struct error *err)
{
    _cleanup_api_volume_ struct api_volume *volume = NULL;
    const struct api_volume_ref params = {.volume = name};

    int r = cli_call(cli, "volume.inspect", &params, &volume, err);
    if (r >= 0)
        door_inspect_volume(volume, json);
    return r;
}

/* A container first, then an image, a network, a volume, unless a type was asked for. */
static int find_object(struct cli *cli, const char *type, bool size, char *name,
                       struct buffer *json, struct error *err)
{
    int r = -ENOENT;

    if (may_be(type, "container"))
        r = find_container(cli, size, name, json, err);
    if (r == -ENOENT && may_be(type, "image"))
        r = find_image(cli, name, json, err);
    if (r == -ENOENT && may_be(type, "network"))
        r = find_network(cli, name, json, err);
    if (r == -ENOENT && may_be(type, "volume"))
        r = find_volume(cli, name, json, err);
    if (r == -ENOENT && !type)
        return error_set(err, r, "No such object: %s", name);
    return r;
}

static int run_typed(struct cli *cli, const struct inspect_options *options, const char *type,
                     char *const *operands)
{
    bool array = !options->format || text_equal(options->format, "json");
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    int code = EXIT_DONE, found = 0;

    if (array)
        buffer_append_char(&out, '[');
    for (; *operands; operands++) {
        _cleanup_buffer_ struct buffer json = BUFFER_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = find_object(cli, type, options->size, *operands, &json, &err);
        if (r >= 0)
            r = template_show(options->format, buffer_text(&json), found++ == 0, &out, &err);
        if (r < 0)
            code = cli_fail(&err);
    }
    if (array)
        buffer_append_text(&out, found && !options->format ? "\n]\n" : "]\n");
    return cli_print(&out) == EXIT_DONE ? code : EXIT_FAILED;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct inspect_options *options = values;

    return run_typed(cli, options, options->type, operands);
}

static int run_container(struct cli *cli, const void *values, char *const *operands)
{
    return run_typed(cli, values, "container", operands);
}

static int run_image(struct cli *cli, const void *values, char *const *operands)
{
    return run_typed(cli, values, "image", operands);
}

static int run_network(struct cli *cli, const void *values, char *const *operands)
{
    return run_typed(cli, values, "network", operands);
}

static int run_volume(struct cli *cli, const void *values, char *const *operands)
{
    return run_typed(cli, values, "volume", operands);
}

const struct command inspect_command = {
    .name = "inspect",
    .usage = "[OPTIONS] NAME|ID [NAME|ID...]",
    .summary = "Show all that is known of containers, images and networks",
    .options = inspect_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_OBJECTS,
    .run = run,
};

const struct command container_inspect_command = {
    .name = "inspect",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Show all that is known of containers",
    .options = container_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS,
    .run = run_container,
};

const struct command image_inspect_command = {
    .name = "inspect",
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Show all that is known of images",
    .options = typed_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_IMAGES,
    .run = run_image,
};

const struct command network_inspect_command = {
    .name = "inspect",
    .usage = "[OPTIONS] NETWORK [NETWORK...]",
    .summary = "Show all that is known of networks",
    .options = network_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_NETWORKS,
    .run = run_network,
};

const struct command volume_inspect_command = {
    .name = "inspect",
    .usage = "[OPTIONS] VOLUME [VOLUME...]",
    .summary = "Show all that is known of volumes",
    .options = typed_groups,
    .values_size = sizeof(struct inspect_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_VOLUMES,
    .run = run_volume,
};
