/* A container's changes become an image: the parent's documents, one layer more. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>
#include <store/staging.h>

#include "internal.h"

static const char manifest_type[] = "application/vnd.oci.image.manifest.v1+json";
static const char config_type[] = "application/vnd.oci.image.config.v1+json";

/* Docker's names for what OCI calls otherwise; our manifest is an OCI one. */
static const char *oci_media_type(const char *media_type)
{
    static const char *const names[][2] = {
        {"application/vnd.docker.image.rootfs.diff.tar.gzip",
         "application/vnd.oci.image.layer.v1.tar+gzip"},
        {"application/vnd.docker.image.rootfs.diff.tar.zstd",
         "application/vnd.oci.image.layer.v1.tar+zstd"},
        {"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (text_equal(media_type, names[i][0]))
            return names[i][1];
    return media_type;
}

struct composition {
    struct store_staging *staging;
    const struct store_commit *commit;
    const struct image_worker_layer *layer;
    struct store_image *parent;
    int64_t created;
    struct buffer config;
    struct buffer manifest;
    char id[DIGEST_TEXT_SIZE];
    char manifest_digest[DIGEST_TEXT_SIZE];
};

static void replace_text(char **text, const char *with)
{
    free(*text);
    *text = xstrdup(text_empty(with) ? NULL : with);
}

/* What docker puts into configurations about the container or build they came from. */
void config_drop_origin(struct oci_image_configuration *config)
{
    static const char *const fields[] = {"container", "container_config", "docker_version", "id",
                                         "parent",    "parent_id",        "throwaway"};

    for (size_t i = 0; config->unknown_fields && i < ARRAY_SIZE(fields); i++)
        json_string_map_remove(config->unknown_fields, fields[i]);
}

/* An entry per layer, when the parent has one for each of its own: a history that does not match
 * the layers is refused by other tools, and one is not required. */
void config_add_history(struct oci_image_configuration *config, int64_t created,
                        const char *created_by, const char *author, const char *comment,
                        bool empty_layer)
{
    size_t layers = 0;

    for (size_t i = 0; i < config->history_count; i++)
        layers += !config->history[i]->empty_layer;
    if (layers != config->rootfs->diff_ids_count)
        return;
    struct oci_image_history *entry = xnew(struct oci_image_history);
    entry->created = clock_format(created);
    replace_text(&entry->created_by, created_by);
    replace_text(&entry->author, author);
    replace_text(&entry->comment, comment);
    entry->empty_layer = entry->has_empty_layer = empty_layer;
    config->history = xrealloc(config->history, config->history_count + 1, sizeof(entry));
    config->history[config->history_count++] = entry;
}

static void add_text(struct json_string_map **fields, const char *key, const char *text)
{
    _cleanup_buffer_ struct buffer value = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &value, JSON_COMPACT);
    json_writer_string(&writer, text);
    json_string_map_set(fields, key, buffer_text(&value));
}

/* In docker's fields, as nothing of the OCI's says it. */
static void add_origin(struct oci_image_configuration *config, const struct store_commit *commit)
{
    _cleanup_buffer_ struct buffer container_config = BUFFER_INIT;

    if (commit->parent)
        add_text(&config->unknown_fields, "parent", commit->parent);
    if (!commit->container)
        return;
    add_text(&config->unknown_fields, "container", commit->container);
    oci_image_execution_write(commit->container_config, &container_config);
    json_string_map_set(&config->unknown_fields, "container_config",
                        buffer_text(&container_config));
}

static struct oci_image_configuration *new_config(const struct store_commit *commit)
{
    struct oci_image_configuration *config = xnew(struct oci_image_configuration);

    config->os = xstrdup(commit->os);
    config->architecture = xstrdup(commit->architecture);
    replace_text(&config->variant, commit->variant);
    config->rootfs = xnew(struct oci_image_rootfs);
    config->rootfs->type = xstrdup("layers");
    return config;
}

static int compose_config(struct composition *c, struct error *err)
{
    _cleanup_oci_image_configuration_ struct oci_image_configuration *config = NULL;
    const char *text = c->parent ? c->parent->config_text : NULL;
    int r = 0;

    if (text)
        r = oci_image_configuration_parse(text, strlen(text), c->parent->id, &config, err);
    else
        config = new_config(c->commit);
    if (r < 0)
        return r;
    config_drop_origin(config);
    add_origin(config, c->commit);
    free(config->created);
    config->created = clock_format(c->created);
    if (!text_empty(c->commit->author))
        replace_text(&config->author, c->commit->author);
    replace_text(&config->comment, c->commit->comment);
    config_add_history(config, c->created, c->commit->created_by, c->commit->author,
                       c->commit->comment, false);
    strv_append(&config->rootfs->diff_ids, c->layer->diff_id);
    config->rootfs->diff_ids_count++;

    struct oci_image_execution *own = config->config;
    if (c->commit->config) /* only lent: written, then put back */
        config->config = (struct oci_image_execution *)c->commit->config;
    oci_image_configuration_write(config, &c->config);
    config->config = own;
    digest_of(c->config.data, c->config.length, c->id);
    return 0;
}

static void write_descriptor(struct json_writer *writer, const char *media_type, const char *digest,
                             uint64_t size)
{
    json_writer_object_begin(writer);
    json_writer_key(writer, "mediaType");
    json_writer_string(writer, media_type);
    json_writer_key(writer, "digest");
    json_writer_string(writer, digest);
    json_writer_key(writer, "size");
    json_writer_unsigned(writer, size);
    json_writer_object_end(writer);
}

static int write_layers(struct store *store, const char *id, struct json_writer *writer,
                        struct error *err)
{
    struct image_worker_layer **layers = NULL;
    size_t count = 0;
    int r = id ? layers_read(store, id, &layers, &count, err) : 0;

    for (size_t i = 0; i < count; i++) {
        if (r == 0)
            write_descriptor(writer, oci_media_type(layers[i]->media_type), layers[i]->blob,
                             layers[i]->blob_size);
        image_worker_layer_free(layers[i]);
    }
    free(layers);
    return r;
}

static void begin_manifest(struct json_writer *writer, struct buffer *out, const char *id,
                           size_t config_length)
{
    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    json_writer_key(writer, "schemaVersion");
    json_writer_integer(writer, 2);
    json_writer_key(writer, "mediaType");
    json_writer_string(writer, manifest_type);
    json_writer_key(writer, "config");
    write_descriptor(writer, config_type, id, config_length);
    json_writer_key(writer, "layers");
    json_writer_array_begin(writer);
}

int manifest_compose(struct store *store, const char *id, size_t config_length, struct buffer *out,
                     struct error *err)
{
    struct json_writer writer;

    begin_manifest(&writer, out, id, config_length);
    int r = write_layers(store, id, &writer, err);
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    return r;
}

static int compose_manifest(struct composition *c, struct error *err)
{
    struct json_writer writer;

    begin_manifest(&writer, &c->manifest, c->id, c->config.length);
    int r = write_layers(c->staging->store, c->parent ? c->parent->id : NULL, &writer, err);
    write_descriptor(&writer, oci_media_type(c->layer->media_type), c->layer->blob,
                     c->layer->blob_size);
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    digest_of(c->manifest.data, c->manifest.length, c->manifest_digest);
    return r;
}

int stage_document(struct store_staging *staging, const char *digest, const struct buffer *text,
                   struct error *err)
{
    _cleanup_free_ char *path = xasprintf("content/%s", digest_hex(digest));

    if (mkdirat(staging->fd, "content", 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create staged content");
    return file_replace_at(staging->fd, path, text->data, text->length, 0600, err);
}

/* Inside the transaction. */
static int install(struct composition *c, struct error *err)
{
    struct image_worker_layer *layer = (struct image_worker_layer *)c->layer;
    const struct image_install image = {
        .id = c->id,
        .manifest = c->manifest_digest,
        .base = c->parent ? c->parent->base : NULL,
        .parent = c->parent ? c->parent->id : NULL,
        .config_text = buffer_text(&c->config),
        .created = c->created,
        .layers = &layer,
        .layers_count = 1,
    };
    int r = image_install(c->staging, &image, err);

    if (r == 0 && !text_empty(c->commit->name))
        r = name_assign(c->staging->store, c->id, c->commit->name, NULL, err);
    if (r == 0)
        r = install_flush(c->staging, err);
    return r;
}

/* All that can be made ready, so that it is flushed with the layer. */
static int compose(struct composition *c, struct error *err)
{
    struct store *store = c->staging->store;
    int r = c->commit->parent ? image_read(store, c->commit->parent, &c->parent, err) : 0;

    if (r == 0 && c->parent && strv_length(c->parent->layers) >= STORE_LAYERS_MAX)
        r = error_set(err, -EFBIG, "the image has %d layers already, more are not possible",
                      STORE_LAYERS_MAX);
    if (r == 0)
        r = compose_config(c, err);
    if (r == 0)
        r = compose_manifest(c, err);
    if (r == 0)
        r = stage_document(c->staging, c->id, &c->config, err);
    return r < 0 ? r : stage_document(c->staging, c->manifest_digest, &c->manifest, err);
}

/* The parent may have gone since it was read. */
static int check_parent(struct composition *c, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *statement = NULL;

    if (!c->parent)
        return 0;
    int r = store_db_query(c->staging->store->db, &statement, err,
                           "SELECT 1 FROM image WHERE id = ?", "t", c->parent->id);
    if (r >= 0)
        r = store_statement_step(statement, err);
    if (r == 0)
        return error_set(err, -ENOENT, "No such image: %s", c->parent->id);
    return r < 0 ? r : 0;
}

static int record(struct composition *c, struct error *err)
{
    struct store *store = c->staging->store;
    int r = store_db_begin(store->db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = store->db;
    r = check_parent(c, err);
    if (r == 0)
        r = install(c, err);
    return r < 0 ? r : store_db_commit(transaction, err);
}

int store_staging_commit(struct store_staging *staging, const struct image_worker_result *result,
                         const struct store_commit *commit, char **ret_id, struct error *err)
{
    struct composition c = {
        .staging = staging, .commit = commit, .layer = result->layer, .created = clock_now()};
    struct store *store = staging->store;

    if (!c.layer || !digest_valid(c.layer->diff_id) || !digest_valid(c.layer->blob))
        return error_set(err, -EBADMSG, "the worker made no layer");
    int r = compose(&c, err);
    if (r == 0) /* long: not under a lock */
        r = staging_flush(staging, err);
    if (r == 0) {
        pthread_mutex_lock(&store->files);
        r = record(&c, err);
        pthread_mutex_unlock(&store->files);
        if (r < 0)
            garbage_collect(store, NULL); /* what was renamed before it failed */
    }
    if (r == 0)
        *ret_id = xstrdup(c.id);
    store_image_free(c.parent);
    buffer_finish(&c.config);
    buffer_finish(&c.manifest);
    return r;
}
