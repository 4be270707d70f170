#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>
#include <schema/oci_image.h>

#include "fields.h"

static void write_set(struct json_writer *writer, const char *key, const struct oci_image_set *set)
{
    if (set)
        field_set(writer, key, set->keys, set->count);
    else
        field_null(writer, key);
}

/* What docker adds to the OCI's fields (Healthcheck, OnBuild ...) is among the unknown ones and
 * goes through as it came. */
static void write_config(struct json_writer *writer, const struct oci_image_execution *config)
{
    const struct json_string_map *unknown = config->unknown_fields;

    field_object_begin(writer, "Config");
    field_text(writer, "User", config->user);
    write_set(writer, "ExposedPorts", config->exposed_ports);
    field_list(writer, "Env", config->env);
    field_list(writer, "Cmd", config->cmd);
    write_set(writer, "Volumes", config->volumes);
    field_text(writer, "WorkingDir", config->working_dir);
    field_list(writer, "Entrypoint", config->entrypoint);
    field_map(writer, "Labels", config->labels);
    if (config->stop_signal)
        field_text(writer, "StopSignal", config->stop_signal);
    for (size_t i = 0; unknown && i < unknown->count; i++) {
        json_writer_key(writer, unknown->keys[i]);
        json_writer_raw(writer, unknown->values[i]);
    }
    json_writer_object_end(writer);
}

static void write_layers(struct json_writer *writer, const struct api_image_details *image)
{
    field_object_begin(writer, "RootFS");
    field_text(writer, "Type", "layers");
    json_writer_key(writer, "Layers");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < image->layers_count; i++)
        json_writer_string(writer, image->layers[i]);
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}

/* An empty list is [] here, not null: docker's API says so for images. */
static void write_names(struct json_writer *writer, const char *key, char *const *names)
{
    static char *const none[] = {NULL};

    field_list(writer, key, names ? names : none);
}

int door_inspect_image(const struct api_image_details *image, struct buffer *out, struct error *err)
{
    static const struct oci_image_execution nothing;
    _cleanup_oci_image_configuration_ struct oci_image_configuration *configuration = NULL;
    struct json_writer document, *writer = &document;

    if (image->config) {
        int r = oci_image_configuration_parse(image->config, strlen(image->config), NULL,
                                              &configuration, err);
        if (r < 0)
            return error_context(err, "configuration of image %s", image->id);
    }
    bool has_config = configuration && configuration->config;
    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    field_text(writer, "Id", image->id);
    write_names(writer, "RepoTags", image->names);
    write_names(writer, "RepoDigests", image->digests);
    field_text(writer, "Parent", "");
    field_text(writer, "Comment", image->comment);
    field_text(writer, "Created", image->created_at);
    field_text(writer, "Author", image->author);
    write_config(writer, has_config ? configuration->config : &nothing);
    field_text(writer, "Architecture", image->architecture);
    field_text(writer, "Os", image->os);
    field_unsigned(writer, "Size", image->size);
    write_layers(writer, image);
    if (image->manifest_digest)
        field_text(writer, "ManifestDigest", image->manifest_digest);
    if (image->base)
        field_text(writer, "Base", image->base);
    json_writer_object_end(writer);
    return 0;
}
