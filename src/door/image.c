#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>
#include <schema/oci_image.h>

#include "fields.h"
#include "inspect.h"

static void write_set(struct json_writer *writer, const char *key, const struct oci_image_set *set)
{
    if (set)
        field_set(writer, key, set->keys, set->count);
    else
        field_null(writer, key);
}

static void write_healthcheck(struct json_writer *writer, const struct oci_image_healthcheck *check)
{
    if (!check)
        return;
    field_object_begin(writer, "Healthcheck");
    field_list(writer, "Test", check->test);
    if (check->interval)
        field_integer(writer, "Interval", check->interval);
    if (check->timeout)
        field_integer(writer, "Timeout", check->timeout);
    if (check->start_period)
        field_integer(writer, "StartPeriod", check->start_period);
    if (check->start_interval)
        field_integer(writer, "StartInterval", check->start_interval);
    if (check->retries)
        field_integer(writer, "Retries", check->retries);
    json_writer_object_end(writer);
}

/* Fields of docker's alone; what there is of them goes through as it came. */
static void write_docker_fields(struct json_writer *writer,
                                const struct oci_image_execution *config)
{
    static const struct {
        const char *key, *empty;
    } always[] = {{"AttachStdin", "false"},
                  {"AttachStdout", "false"},
                  {"AttachStderr", "false"},
                  {"Image", "\"\""}};
    const struct json_string_map *unknown = config->unknown_fields;

    for (size_t i = 0; i < ARRAY_SIZE(always); i++) {
        if (json_string_map_get(unknown, always[i].key))
            continue;
        json_writer_key(writer, always[i].key);
        json_writer_raw(writer, always[i].empty);
    }
    for (size_t i = 0; unknown && i < unknown->count; i++) {
        json_writer_key(writer, unknown->keys[i]);
        json_writer_raw(writer, unknown->values[i]);
    }
}

static void write_config(struct json_writer *writer, const char *key,
                         const struct oci_image_execution *config)
{
    static const struct oci_image_execution nothing;

    config = config ? config : &nothing;
    field_object_begin(writer, key);
    field_text(writer, "Hostname", config->hostname);
    field_text(writer, "Domainname", config->domainname);
    field_text(writer, "User", config->user);
    write_set(writer, "ExposedPorts", config->exposed_ports);
    field_boolean(writer, "Tty", config->tty);
    field_boolean(writer, "OpenStdin", config->open_stdin);
    field_boolean(writer, "StdinOnce", config->stdin_once);
    field_list(writer, "Env", config->env);
    field_list(writer, "Cmd", config->cmd);
    write_healthcheck(writer, config->healthcheck);
    if (config->args_escaped)
        field_boolean(writer, "ArgsEscaped", true);
    write_set(writer, "Volumes", config->volumes);
    field_text(writer, "WorkingDir", config->working_dir);
    field_list(writer, "Entrypoint", config->entrypoint);
    field_list(writer, "OnBuild", config->on_build);
    field_map(writer, "Labels", config->labels);
    if (config->stop_signal)
        field_text(writer, "StopSignal", config->stop_signal);
    if (config->has_stop_timeout)
        field_integer(writer, "StopTimeout", config->stop_timeout);
    if (config->shell)
        field_list(writer, "Shell", config->shell);
    write_docker_fields(writer, config);
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

/* A text among the fields of docker's; "" for none. */
static void write_origin(struct json_writer *writer, const char *key,
                         const struct oci_image_configuration *configuration, const char *name)
{
    const char *value =
        configuration ? json_string_map_get(configuration->unknown_fields, name) : NULL;

    json_writer_key(writer, key);
    json_writer_raw(writer, value && value[0] == '"' ? value : "\"\"");
}

static void write_container_config(struct json_writer *writer,
                                   const struct oci_image_configuration *configuration)
{
    _cleanup_oci_image_execution_ struct oci_image_execution *config = NULL;
    const char *text = configuration
                           ? json_string_map_get(configuration->unknown_fields, "container_config")
                           : NULL;

    /* What makes no sense there was nobody's. */
    if (text && oci_image_execution_parse(text, strlen(text), NULL, &config, NULL) < 0)
        config = NULL;
    write_config(writer, "ContainerConfig", config);
}

static void write_store(struct json_writer *writer, const struct api_image_details *image)
{
    field_unsigned(writer, "Size", image->size);
    field_unsigned(writer, "VirtualSize", image->size);
    field_object_begin(writer, "GraphDriver");
    field_null(writer, "Data");
    field_text(writer, "Name", INSPECT_DRIVER);
    json_writer_object_end(writer);
    write_layers(writer, image);
    /* When it was named here is not kept. */
    field_object_begin(writer, "Metadata");
    field_text(writer, "LastTagTime", INSPECT_NEVER);
    json_writer_object_end(writer);
}

int door_inspect_image(const struct api_image_details *image, struct buffer *out, struct error *err)
{
    _cleanup_oci_image_configuration_ struct oci_image_configuration *configuration = NULL;
    struct json_writer document, *writer = &document;

    if (image->config) {
        int r = oci_image_configuration_parse(image->config, strlen(image->config), NULL,
                                              &configuration, err);
        if (r < 0)
            return error_context(err, "configuration of image %s", image->id);
    }
    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    field_text(writer, "Id", image->id);
    write_names(writer, "RepoTags", image->names);
    write_names(writer, "RepoDigests", image->digests);
    field_text(writer, "Parent", image->parent);
    field_text(writer, "Comment", image->comment);
    field_text(writer, "Created", image->created_at);
    write_origin(writer, "Container", configuration, "container");
    write_container_config(writer, configuration);
    write_origin(writer, "DockerVersion", configuration, "docker_version");
    field_text(writer, "Author", image->author);
    write_config(writer, "Config", configuration ? configuration->config : NULL);
    field_text(writer, "Architecture", image->architecture);
    if (configuration && configuration->variant)
        field_text(writer, "Variant", configuration->variant);
    field_text(writer, "Os", image->os);
    write_store(writer, image);
    if (image->manifest_digest)
        field_text(writer, "ManifestDigest", image->manifest_digest);
    if (image->base)
        field_text(writer, "Base", image->base);
    json_writer_object_end(writer);
    return 0;
}
