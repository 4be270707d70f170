#include "volume_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "events.h"
#include "spec.h"
#include "volume_fresh.h"

static bool is_volume(const struct api_mount *mount)
{
    return text_equal(mount->type, "volume");
}

static bool is_taken(const struct api_container_spec *spec, const char *target)
{
    for (size_t i = 0; i < spec->mounts_count; i++)
        if (text_equal(spec->mounts[i]->target, target))
            return true;
    return false;
}

static struct api_mount *add_mount(struct api_container_spec *spec, const char *type,
                                   const char *target)
{
    struct api_mount *mount = xnew(struct api_mount);

    mount->type = xstrdup(type);
    mount->target = xstrdup(target);
    spec->mounts = xrealloc(spec->mounts, spec->mounts_count + 1, sizeof(struct api_mount *));
    spec->mounts[spec->mounts_count++] = mount;
    return mount;
}

void volumes_add_images(struct api_container_spec *effective, const struct oci_image_set *volumes)
{
    for (size_t i = 0; volumes && i < volumes->count; i++) {
        _cleanup_free_ char *target = spec_clean_path(volumes->keys[i]);
        if (volumes->keys[i][0] != '/' || !target[1] || is_taken(effective, target))
            continue;
        struct api_mount *mount = add_mount(effective, "volume", target);
        mount->volume_options = xnew(struct api_volume_options);
    }
}

bool volumes_needed(const struct api_container_spec *effective)
{
    for (size_t i = 0; i < effective->mounts_count; i++)
        if (is_volume(effective->mounts[i]))
            return true;
    return effective->volumes_from_count > 0;
}

/* --- those of other containers ---------------------------------------------------------------- */

static struct api_mount *copy_mount(const struct api_mount *mount)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_mount *copy = NULL;

    api_mount_write(mount, &text);
    return api_mount_parse(text.data, text.length, NULL, &copy, NULL) < 0 ? NULL : copy;
}

/* What a container has already stays empty or full as it is. */
static void take_mount(struct api_container_spec *spec, const struct api_mount *mount,
                       bool read_only)
{
    if (text_equal(mount->type, "tmpfs") || is_taken(spec, mount->target))
        return;
    struct api_mount *copy = copy_mount(mount);
    if (!copy)
        return;
    if (read_only)
        copy->read_only = copy->has_read_only = true;
    if (is_volume(copy)) {
        if (!copy->volume_options)
            copy->volume_options = xnew(struct api_volume_options);
        copy->volume_options->no_copy = copy->volume_options->has_no_copy = true;
    }
    spec->mounts = xrealloc(spec->mounts, spec->mounts_count + 1, sizeof(struct api_mount *));
    spec->mounts[spec->mounts_count++] = copy;
}

static int take_from(struct container *container, const char *word, struct error *err)
{
    const char *colon = strrchr(word, ':');
    const char *mode = colon ? colon + 1 : "rw";
    _cleanup_free_ char *name = colon ? xstrndup(word, (size_t)(colon - word)) : xstrdup(word);
    struct container *other;

    if (!text_equal(mode, "ro") && !text_equal(mode, "rw") && !text_equal(mode, "z") &&
        !text_equal(mode, "Z"))
        return error_set(err, -EINVAL, "invalid mode for volumes-from: %.80s", mode);
    int r = engine_find(container->engine, name, &other, err);
    if (r < 0)
        return r;
    for (size_t i = 0; other->effective && i < other->effective->mounts_count; i++)
        take_mount(container->effective, other->effective->mounts[i], text_equal(mode, "ro"));
    return 0;
}

/* --- the plan --------------------------------------------------------------------------------- */

static void plan_copy(struct volume_plan *plan, const char *target, const char *name)
{
    struct image_worker_populate_copy *copy = xnew(struct image_worker_populate_copy);

    copy->path = xstrdup(target);
    copy->volume = volume_fresh_path(name);
    plan->copies = xrealloc(plan->copies, plan->copies_count + 1, sizeof(copy));
    plan->copies[plan->copies_count++] = copy;
}

static void plan_making(struct volume_plan *plan, const struct volume *volume)
{
    plan->makings = xrealloc(plan->makings, plan->makings_count + 1, sizeof(struct volume_making));
    volume_making_init(&plan->makings[plan->makings_count++], volume);
    strv_append(&plan->added, volume->name);
}

/* Those of the volume, which may be older than the request: what the bundle needs to know. */
static void keep_options(struct api_mount *mount, const struct volume *volume)
{
    if (!mount->volume_options)
        mount->volume_options = xnew(struct api_volume_options);
    json_string_map_free(mount->volume_options->driver_options);
    mount->volume_options->driver_options = json_string_map_copy(volume->record->options);
}

static int plan_mount(struct engine *engine, struct api_mount *mount, struct volume_plan *plan,
                      struct error *err)
{
    static const struct api_volume_options none;
    const struct api_volume_options *how = mount->volume_options ? mount->volume_options : &none;
    struct volume *volume;
    bool is_new;

    int r = volume_add(engine, mount->source, how->driver, how->driver_options, how->labels,
                       &volume, &is_new, err);
    if (r < 0)
        return r;
    volume->pins++;
    strv_append(&plan->pinned, volume->name);
    if (is_new)
        plan_making(plan, volume);
    free(mount->source);
    mount->source = xstrdup(volume->name);
    bool no_copy = how->no_copy;
    keep_options(mount, volume);
    /* Into what the options say nothing is copied: it may be anywhere, and is not ours; nor into a
     * volume that it has a part of only, which has to be there. */
    if (!no_copy && text_empty(mount->volume_options->subpath) &&
        !(volume->record->options && volume->record->options->count))
        plan_copy(plan, mount->target, volume->name);
    return 0;
}

int volume_plan_make(struct container *container, struct volume_plan *plan, struct error *err)
{
    struct api_container_spec *spec = container->effective;
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->volumes_from_count; i++)
        r = take_from(container, spec->volumes_from[i], err);
    for (size_t i = 0; r == 0 && i < spec->mounts_count; i++)
        if (is_volume(spec->mounts[i]))
            r = plan_mount(container->engine, spec->mounts[i], plan, err);
    return r == 0 ? spec_settle_mounts(spec, err) : r;
}

/* Those that have something already are left as they are. */
static int begin_copies(struct volume_plan *plan, const char *folder, struct error *err)
{
    size_t kept = 0;
    int r = 0;

    for (size_t i = 0; i < plan->copies_count; i++) {
        bool wanted = false;
        if (r == 0)
            r = volume_fresh_begin(folder, plan->copies[i]->volume, &wanted, err);
        if (wanted)
            plan->copies[kept++] = plan->copies[i];
        else
            image_worker_populate_copy_free(plan->copies[i]);
    }
    plan->copies_count = kept;
    return r;
}

int volume_plan_run(struct volume_plan *plan, const struct engine *engine, struct error *err)
{
    _cleanup_free_ char *folder = volumes_folder(engine);
    int r = 0;

    for (size_t i = 0; r == 0 && i < plan->makings_count; i++)
        r = volume_make(&plan->makings[i], err);
    plan->made = r == 0;
    return r < 0 ? r : begin_copies(plan, folder, err);
}

int volume_plan_flush(const struct engine *engine, struct error *err)
{
    _cleanup_free_ char *folder = volumes_folder(engine);
    _cleanup_close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || syncfs(fd) < 0)
        return error_errno(err, errno, "flush %s", folder);
    return 0;
}

int volume_plan_settle(const struct volume_plan *plan, const struct engine *engine,
                       struct error *err)
{
    _cleanup_free_ char *folder = volumes_folder(engine);
    int r = 0;

    for (size_t i = 0; r == 0 && i < plan->copies_count; i++)
        r = volume_fresh_settle(folder, plan->copies[i]->volume, err);
    return r;
}

void volume_plan_discard(const struct volume_plan *plan, const struct engine *engine)
{
    _cleanup_free_ char *folder = volumes_folder(engine);

    for (size_t i = 0; i < plan->copies_count; i++)
        volume_fresh_discard(folder, plan->copies[i]->volume);
}

int volume_plan_fill(struct container *container, const struct volume_plan *plan, int rootfs_fd,
                     task_done done, void *data, struct error *err)
{
    _cleanup_free_ char *folder = volumes_folder(container->engine);
    _cleanup_close_ int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct image_worker_tree tree = {.kind = (char *)"mount"};
    struct image_worker_populate populate = {
        .tree = &tree, .copies = plan->copies, .copies_count = plan->copies_count};
    struct image_worker_request request = {.populate = &populate};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct task *task;

    if (folder_fd < 0)
        return error_errno(err, errno, "open %s", folder);
    spec.program = container->engine->image_program;
    spec.request = &request;
    spec.staging_fd = folder_fd;
    spec.tree_fd = rootfs_fd;
    int r = task_start(container->engine, &spec, done, data, &task, err);
    if (r == 0)
        task_hold(task, container);
    return r;
}

static void unpin(struct engine *engine, const struct volume_plan *plan)
{
    for (size_t i = 0; plan->pinned && plan->pinned[i]; i++) {
        struct volume *volume = volume_find(engine, plan->pinned[i]);
        if (volume)
            volume->pins--;
    }
}

/* Volumes that were made and have a name stay, as with docker. */
static void take_back(struct engine *engine, const struct volume_plan *plan)
{
    _cleanup_strv_ char **unused = NULL;

    for (size_t i = 0; plan->added && plan->added[i]; i++) {
        struct volume *volume = volume_find(engine, plan->added[i]);
        if (!volume)
            continue;
        if (!plan->made)
            volume_drop(volume);
        else if (volume->record->anonymous)
            strv_append(&unused, volume->name);
    }
    if (unused)
        volumes_remove_unused(engine, unused);
}

void volume_plan_finish(struct engine *engine, struct volume_plan *plan, bool failed)
{
    unpin(engine, plan);
    if (failed)
        take_back(engine, plan);
    for (size_t i = 0; !failed && plan->added && plan->added[i]; i++)
        event_volume(engine, "create", plan->added[i]);
    for (size_t i = 0; i < plan->makings_count; i++)
        volume_making_finish(&plan->makings[i]);
    for (size_t i = 0; i < plan->copies_count; i++)
        image_worker_populate_copy_free(plan->copies[i]);
    free(plan->makings);
    free(plan->copies);
    strv_free(plan->pinned);
    strv_free(plan->added);
    *plan = (struct volume_plan){0};
}
