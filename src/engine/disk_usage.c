/*
 * system.diskUsage: what is known is written down on the loop's thread, what has to be counted is
 * counted on a worker thread.
 */
#include <fcntl.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "image_call.h"
#include "inspect.h"
#include "internal.h"
#include "volumes.h"

static bool is_asked(const struct api_disk_usage_what *what, const char *type)
{
    return !what->types_count || strv_contains(what->types, type);
}

/* --- loop ------------------------------------------------------------------------------------- */

static int64_t count_volumes(const struct container *container)
{
    int64_t count = 0;

    for (size_t i = 0; i < container->effective->mounts_count; i++)
        count += text_equal(container->effective->mounts[i]->type, "volume");
    return count;
}

static struct api_container_usage *describe(const struct container *container)
{
    struct api_container_usage *usage = xnew(struct api_container_usage);
    _cleanup_api_container_summary_ struct api_container_summary *summary =
        inspect_summary(container);

    usage->id = xstrdup(container->id);
    usage->name = xstrdup(container->name);
    usage->image = steal_ptr(summary->image);
    usage->image_id = steal_ptr(summary->image_id);
    usage->command = steal_ptr(summary->command);
    usage->created_at = steal_ptr(summary->created_at);
    usage->state = steal_ptr(summary->state);
    usage->status = steal_ptr(summary->status);
    usage->local_volumes = count_volumes(container);
    return usage;
}

static void list_containers(struct engine *engine, struct api_disk_usage *usage)
{
    usage->containers = xnew_array(struct api_container_usage *, engine->containers_count + 1);
    for (size_t i = engine->containers_count; i > 0; i--)
        if (!engine->containers[i - 1]->hidden)
            usage->containers[usage->containers_count++] = describe(engine->containers[i - 1]);
}

static void list_volumes(struct engine *engine, struct api_disk_usage *usage)
{
    usage->volumes = xnew_array(struct api_volume *, engine->volumes_count + 1);
    for (size_t i = 0; i < engine->volumes_count; i++) {
        struct api_volume *volume = volume_describe(engine->volumes[i]);
        volume->usage = xnew(struct api_volume_usage);
        volume->usage->references = (int64_t)volume_references(engine->volumes[i]);
        usage->volumes[usage->volumes_count++] = volume;
    }
}

/* --- worker thread ---------------------------------------------------------------------------- */

/* How many of the images have this layer. */
static size_t count_users(struct store_image *const *images, size_t count, const char *layer)
{
    size_t users = 0;

    for (size_t i = 0; i < count; i++)
        users += strv_contains(images[i]->layers, layer);
    return users;
}

static uint64_t shared_size(struct image_call *call, struct store_image *const *images,
                            size_t count, const struct store_image *image)
{
    uint64_t *sizes = NULL, shared = 0;
    size_t sizes_count = 0, layers = strv_length(image->layers);

    if (store_image_layer_sizes(call->engine->store, image->id, &sizes, &sizes_count, NULL) < 0)
        return 0;
    for (size_t i = 0; i < sizes_count && i < layers; i++)
        if (count_users(images, count, image->layers[layers - sizes_count + i]) > 1)
            shared += sizes[i];
    free(sizes);
    return shared;
}

static struct api_image_usage *image_usage(struct image_call *call,
                                           struct store_image *const *images, size_t count,
                                           const struct store_image *image)
{
    struct api_image_usage *usage = xnew(struct api_image_usage);

    usage->id = xstrdup(image->id);
    usage->names = image_list_of(image->names, &usage->names_count);
    usage->created_at = clock_format(image->created);
    usage->size = image->size;
    usage->shared_size = shared_size(call, images, count, image);
    for (char *const *used = call->used_images; used && *used; used++)
        usage->containers += text_equal(*used, image->id);
    return usage;
}

static void add_image_size(struct api_disk_usage *usage, const struct store_image *image)
{
    for (size_t i = 0; i < usage->containers_count; i++)
        if (text_equal(usage->containers[i]->image_id, image->id))
            usage->containers[i]->size_root_fs += (int64_t)image->size;
}

static int count_images(struct image_call *call, struct api_disk_usage *usage, struct error *err)
{
    const struct api_disk_usage_what *what = call->what;
    struct store_image **images = NULL;
    size_t count = 0;
    int r = store_image_list(call->engine->store, &images, &count, err);

    if (r < 0)
        return r;
    bool asked = is_asked(what, "image");
    if (asked) {
        usage->images = xnew_array(struct api_image_usage *, count + 1);
        usage->has_layers_size = true;
        r = store_layers_size(call->engine->store, &usage->layers_size, err);
    }
    for (size_t i = 0; i < count; i++) {
        add_image_size(usage, images[i]);
        if (asked && !images[i]->built_in)
            usage->images[usage->images_count++] = image_usage(call, images, count, images[i]);
    }
    store_image_list_free(images, count);
    return r;
}

/* What is mounted where the files of a volume would be may be anywhere and never answer. */
static void count_volume(struct api_volume *volume)
{
    bool mounted = volume->options && volume->options->count;

    volume->usage->size =
        mounted
            ? -1
            : (int64_t)folder_usage(open(volume->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int usage_step(struct image_call *call, struct error *err)
{
    struct api_disk_usage *usage = call->document;
    uint64_t size;

    for (size_t i = 0; i < usage->containers_count; i++) {
        struct api_container_usage *container = usage->containers[i];
        if (store_snapshot_usage(call->engine->store, container->id, &size, NULL) == 0)
            container->size_rw = container->size_root_fs = (int64_t)size;
    }
    for (size_t i = 0; i < usage->volumes_count; i++)
        count_volume(usage->volumes[i]);
    return count_images(call, usage, err);
}

static struct api_disk_usage_what *copy_what(const struct api_disk_usage_what *what)
{
    struct api_disk_usage_what *copy = xnew(struct api_disk_usage_what);

    copy->types = strv_copy(what->types);
    copy->types_count = what->types_count;
    return copy;
}

void engine_disk_usage(struct engine *engine, const struct api_disk_usage_what *what,
                       engine_image_done done, void *data)
{
    struct image_call *call = image_call_new(engine, usage_step, &api_disk_usage_type, done, data);
    struct api_disk_usage *usage = xnew(struct api_disk_usage);

    call->document = usage;
    call->what = copy_what(what);
    call->what_type = &api_disk_usage_what_type;
    image_call_used(call);
    if (is_asked(what, "container"))
        list_containers(engine, usage);
    if (is_asked(what, "volume"))
        list_volumes(engine, usage);
    image_call_submit(call);
}
