/*
 * system df: what images, containers and volumes take, and how much of it could go.
 */
#include <stdio.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "listing.h"

struct df_options {
    bool verbose;
    const char *format;
};

static const struct option df_table[] = {
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct df_options, format),
        .argument = "string",
        .help = "\"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "verbose",
        .short_name = 'v',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct df_options, verbose),
        .help = "Show each image, container and volume",
    },
    {.name = NULL},
};

static const struct option_group df_groups[] = {{.options = df_table}, {.options = NULL}};

/* ---- one line for each kind */

struct sum {
    const char *kind;
    size_t total, active;
    uint64_t size, reclaimable;
};

static void add_row(struct listing *listing, const struct sum *sum)
{
    _cleanup_free_ char *free_size = text_from_size(sum->reclaimable);
    char **row = xnew_array(char *, 6);

    row[0] = xstrdup(sum->kind);
    row[1] = xasprintf("%zu", sum->total);
    row[2] = xasprintf("%zu", sum->active);
    row[3] = text_from_size(sum->size);
    row[4] = sum->size ? xasprintf("%s (%u%%)", free_size,
                                   (unsigned)((double)sum->reclaimable * 100 / (double)sum->size))
                       : xstrdup(free_size);
    listing_add(listing, row);
}

/* docker's: what no container needs is all layers but those of images in use. */
static struct sum sum_images(const struct api_disk_usage *usage)
{
    struct sum sum = {.kind = "Images", .total = usage->images_count, .size = usage->layers_size};
    uint64_t used = 0;

    for (size_t i = 0; i < usage->images_count; i++) {
        const struct api_image_usage *image = usage->images[i];
        sum.active += image->containers > 0;
        used += image->containers > 0 ? image->size - image->shared_size : 0;
    }
    sum.reclaimable = sum.size > used ? sum.size - used : 0;
    return sum;
}

static bool is_active(const char *state)
{
    return text_equal(state, "running") || text_equal(state, "paused") ||
           text_equal(state, "restarting");
}

static struct sum sum_containers(const struct api_disk_usage *usage)
{
    struct sum sum = {.kind = "Containers", .total = usage->containers_count};

    for (size_t i = 0; i < usage->containers_count; i++) {
        const struct api_container_usage *container = usage->containers[i];
        bool active = is_active(container->state);
        sum.active += active;
        sum.size += (uint64_t)container->size_rw;
        sum.reclaimable += active ? 0 : (uint64_t)container->size_rw;
    }
    return sum;
}

static struct sum sum_volumes(const struct api_disk_usage *usage)
{
    struct sum sum = {.kind = "Local Volumes", .total = usage->volumes_count};

    for (size_t i = 0; i < usage->volumes_count; i++) {
        const struct api_volume_usage *volume = usage->volumes[i]->usage;
        uint64_t size = volume->size > 0 ? (uint64_t)volume->size : 0;
        sum.active += volume->references > 0;
        sum.size += size;
        sum.reclaimable += volume->references > 0 ? 0 : size;
    }
    return sum;
}

static const struct listing_field sum_fields[] = {
    {"Type", "TYPE"}, {"TotalCount", "TOTAL"},        {"Active", "ACTIVE"},
    {"Size", "SIZE"}, {"Reclaimable", "RECLAIMABLE"}, {NULL, NULL},
};

static int write_sums(const struct api_disk_usage *usage, const char *format, struct buffer *out,
                      struct error *err)
{
    _cleanup_listing_ struct listing *listing = listing_create(sum_fields);
    const struct sum sums[] = {
        sum_images(usage), sum_containers(usage), sum_volumes(usage), {.kind = "Build Cache"}};

    for (size_t i = 0; i < ARRAY_SIZE(sums); i++)
        add_row(listing, &sums[i]);
    return listing_write(listing, format,
                         "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
                         out, err);
}

/* ---- all of them */

static const struct listing_field image_fields[] = {
    {"Repository", "REPOSITORY"},
    {"Tag", "TAG"},
    {"ID", "IMAGE ID"},
    {"CreatedSince", "CREATED"},
    {"Size", "SIZE"},
    {"SharedSize", "SHARED SIZE"},
    {"UniqueSize", "UNIQUE SIZE"},
    {"Containers", "CONTAINERS"},
    {NULL, NULL},
};
static const char image_template[] =
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t"
    "{{.UniqueSize}}\t{{.Containers}}";

static int write_images(const struct api_disk_usage *usage, struct buffer *out, struct error *err)
{
    _cleanup_listing_ struct listing *listing = listing_create(image_fields);

    for (size_t i = 0; i < usage->images_count; i++) {
        const struct api_image_usage *image = usage->images[i];
        char **row = xnew_array(char *, ARRAY_SIZE(image_fields));
        human_split_name(image->names_count ? image->names[0] : "", &row[0], &row[1]);
        row[2] = human_id(image->id, false);
        row[3] = human_age(image->created_at, time(NULL));
        row[4] = text_from_size(image->size);
        row[5] = text_from_size(image->shared_size);
        row[6] = text_from_size(image->size - image->shared_size);
        row[7] = xasprintf("%lld", (long long)image->containers);
        listing_add(listing, row);
    }
    buffer_append_text(out, "Images space usage:\n\n");
    return listing_write(listing, NULL, image_template, out, err);
}

static const struct listing_field container_fields[] = {
    {"ID", "CONTAINER ID"}, {"Image", "IMAGE"},
    {"Command", "COMMAND"}, {"LocalVolumes", "LOCAL VOLUMES"},
    {"Size", "SIZE"},       {"RunningFor", "CREATED"},
    {"Status", "STATUS"},   {"Names", "NAMES"},
    {NULL, NULL},
};
static const char container_template[] =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t"
    "{{.Status}}\t{{.Names}}";

static int write_containers(const struct api_disk_usage *usage, struct buffer *out,
                            struct error *err)
{
    _cleanup_listing_ struct listing *listing = listing_create(container_fields);

    for (size_t i = 0; i < usage->containers_count; i++) {
        const struct api_container_usage *container = usage->containers[i];
        char **row = xnew_array(char *, ARRAY_SIZE(container_fields));
        row[0] = human_id(container->id, false);
        row[1] = xstrdup(container->image);
        row[2] = xasprintf("\"%.20s\"", container->command);
        row[3] = xasprintf("%lld", (long long)container->local_volumes);
        row[4] = text_from_size((uint64_t)container->size_rw);
        row[5] = human_age(container->created_at, time(NULL));
        row[6] = xstrdup(container->status);
        row[7] = xstrdup(container->name);
        listing_add(listing, row);
    }
    buffer_append_text(out, "\nContainers space usage:\n\n");
    return listing_write(listing, NULL, container_template, out, err);
}

static const struct listing_field volume_fields[] = {
    {"Name", "VOLUME NAME"}, {"Links", "LINKS"}, {"Size", "SIZE"}, {NULL, NULL}};

static int write_volumes(const struct api_disk_usage *usage, struct buffer *out, struct error *err)
{
    _cleanup_listing_ struct listing *listing = listing_create(volume_fields);

    for (size_t i = 0; i < usage->volumes_count; i++) {
        const struct api_volume *volume = usage->volumes[i];
        char **row = xnew_array(char *, ARRAY_SIZE(volume_fields));
        row[0] = xstrdup(volume->name);
        row[1] = xasprintf("%lld", (long long)volume->usage->references);
        row[2] = volume->usage->size < 0 ? xstrdup("N/A")
                                         : text_from_size((uint64_t)volume->usage->size);
        listing_add(listing, row);
    }
    buffer_append_text(out, "\nLocal Volumes space usage:\n\n");
    return listing_write(listing, NULL, "{{.Name}}\t{{.Links}}\t{{.Size}}", out, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct df_options *options = values;
    _cleanup_api_disk_usage_ struct api_disk_usage *usage = NULL;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_disk_usage_what everything = {0};

    if (options->verbose && options->format)
        return cli_fail_usage(cli, EXIT_FAILED, "--verbose has no format");
    int r = cli_call(cli, "system.diskUsage", &everything, &usage, &err);
    if (r >= 0 && !options->verbose)
        r = write_sums(usage, options->format, &out, &err);
    if (r >= 0 && options->verbose)
        r = write_images(usage, &out, &err);
    if (r >= 0 && options->verbose)
        r = write_containers(usage, &out, &err);
    if (r >= 0 && options->verbose)
        r = write_volumes(usage, &out, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&out);
}

const struct command system_df_command = {
    .name = "df",
    .usage = "[OPTIONS]",
    .summary = "Show what images, containers and volumes take on the disk",
    .options = df_groups,
    .values_size = sizeof(struct df_options),
    .run = run,
};
