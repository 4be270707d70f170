/*
 * mounts and root propagation of config.json: docker's own file systems, then what was asked for.
 */
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "bundle_internal.h"
#include "volume_mount.h"

enum { OPTIONS_MAX = 10 };

#define SHM_SIZE UINT64_C(67108864)

static const struct default_mount {
    const char *target;
    const char *type;
    const char *options[OPTIONS_MAX];
} default_mounts[] = {
    {"/proc", "proc", {"nosuid", "noexec", "nodev"}},
    {"/dev", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
    {"/dev/pts",
     "devpts",
     {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
    {"/sys", "sysfs", {"nosuid", "noexec", "nodev", "ro"}},
    {"/sys/fs/cgroup", "cgroup", {"ro", "nosuid", "noexec", "nodev"}},
    {"/dev/mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
};

static void put_mount(struct json_writer *writer, const char *type, const char *source,
                      const char *target, char *const *options)
{
    json_writer_object_begin(writer);
    put_string(writer, "destination", target);
    put_string(writer, "type", type);
    put_string(writer, "source", source);
    put_strv(writer, "options", options);
    json_writer_object_end(writer);
}

static void put_bind(struct json_writer *writer, const char *source, const char *target,
                     bool read_only)
{
    char *const options[] = {(char *)"rbind", (char *)"rprivate", read_only ? (char *)"ro" : NULL,
                             NULL};

    put_mount(writer, "bind", source, target, options);
}

/* A file of the engine's that belongs to the container's root. */
static void put_own_file(struct json_writer *writer, const struct bundle_facts *facts,
                         const char *source, const char *target, bool read_only)
{
    _cleanup_strv_ char **options = NULL;

    strv_append(&options, "bind");
    strv_append(&options, "rprivate");
    if (read_only)
        strv_append(&options, "ro");
    if (facts->users)
        strv_append(&options, "idmap");
    put_mount(writer, "bind", source, target, options);
}

/* Something of the user's takes a default's place, or lies above it. */
static bool is_taken(const struct bundle_facts *facts, const char *target)
{
    for (size_t i = 0; i < facts->effective->mounts_count; i++) {
        const char *mine = facts->effective->mounts[i]->target;
        size_t length = strlen(mine);
        if (text_equal(mine, target) ||
            (text_starts_with(target, "/dev/") && text_equal(mine, "/dev")) ||
            (text_starts_with(target, "/sys/") && text_equal(mine, "/sys") && length == 4))
            return true;
    }
    return false;
}

/* --- docker's own ----------------------------------------------------------------------------- */

static void put_default_mount(struct json_writer *writer, const struct bundle_context *context,
                              const struct default_mount *mount)
{
    bool cgroup = text_equal(mount->type, "cgroup");
    bool writable =
        context->facts->effective->privileged || (cgroup && context->security.writable_cgroups);
    _cleanup_strv_ char **options = NULL;

    /* A new one shows processes that are not of the user namespace: the kernel refuses it. */
    if (context->facts->rootless && context->facts->pid.kind == BUNDLE_HOST &&
        text_equal(mount->type, "proc")) {
        put_bind(writer, "/proc", mount->target, false);
        return;
    }
    for (size_t i = 0; i < OPTIONS_MAX && mount->options[i]; i++) {
        if (!writable || !text_equal(mount->options[i], "ro"))
            strv_append(&options, mount->options[i]);
    }
    put_mount(writer, mount->type, mount->type, mount->target, options);
}

uint64_t bundle_shm_size(const struct api_container_spec *effective)
{
    return effective->shm_size ? effective->shm_size : SHM_SIZE;
}

static void put_shm(struct json_writer *writer, const struct bundle_facts *facts)
{
    uint64_t size = bundle_shm_size(facts->effective);
    _cleanup_strv_ char **options = NULL;

    if (facts->shm || facts->ipc.kind == BUNDLE_HOST) {
        put_bind(writer, facts->shm ? facts->shm : "/dev/shm", "/dev/shm", false);
        return;
    }
    if (text_equal(facts->effective->ipc_mode, "none"))
        return;
    strv_append(&options, "nosuid");
    strv_append(&options, "noexec");
    strv_append(&options, "nodev");
    strv_append(&options, "mode=1777");
    strv_take(&options, xasprintf("size=%llu", (unsigned long long)size));
    put_mount(writer, "tmpfs", "shm", "/dev/shm", options);
}

/* Only who made an IPC namespace can mount its message queues. */
static bool can_mount(const struct bundle_facts *facts, const struct default_mount *mount)
{
    return !facts->users || facts->ipc.kind != BUNDLE_HOST || !text_equal(mount->type, "mqueue");
}

static void put_default_mounts(struct json_writer *writer, const struct bundle_context *context)
{
    for (size_t i = 0; i < ARRAY_SIZE(default_mounts); i++) {
        const struct default_mount *mount = &default_mounts[i];
        if (!is_taken(context->facts, mount->target) && can_mount(context->facts, mount))
            put_default_mount(writer, context, mount);
    }
    if (!is_taken(context->facts, "/dev/shm"))
        put_shm(writer, context->facts);
}

/* The machine's disk has them, outside of every limit: no place to write to in a container whose
 * files are limited, and none in one that is read-only. */
static void put_file_binds(struct json_writer *writer, const struct bundle_facts *facts)
{
    const struct json_string_map *storage = facts->effective->storage_opt;
    bool read_only =
        facts->effective->read_only_root || (storage && json_string_map_get(storage, "size"));

    for (size_t i = 0; i < BUNDLE_FILES; i++) {
        _cleanup_free_ char *source =
            facts->shared_files ? xstrdup(facts->shared_files[i])
                                : xasprintf("%s/%s", facts->files_directory, bundle_files[i]);
        _cleanup_free_ char *target = xasprintf("/etc/%s", bundle_files[i]);
        if (!is_taken(facts, target))
            put_own_file(writer, facts, source, target, read_only);
    }
}

/* Nobody in a user namespace can make a device; the machine's own are bound, wherever they are to
 * be seen. */
static void put_bound_devices(struct json_writer *writer, const struct bundle_facts *facts)
{
    char *const options[] = {(char *)"bind", (char *)"rprivate", (char *)"nosuid", (char *)"noexec",
                             NULL};

    for (size_t i = 0; facts->users && i < facts->devices_count; i++)
        put_mount(writer, "bind", facts->devices[i].source, facts->devices[i].path, options);
}

const char *bundle_init_path(const struct api_container_spec *effective)
{
    for (size_t i = 0; i < effective->mounts_count; i++) {
        if (text_equal(effective->mounts[i]->target, "/dev"))
            return "/sbin/docker-init";
    }
    return "/dev/docker-init";
}

/* --- the user's ------------------------------------------------------------------------------- */

/* From kernel 5.12 on read-only goes for what is mounted below as well, as dockerd does it. */
static void put_user_bind(struct json_writer *writer, const struct api_mount *mount,
                          const char *source, bool id_map)
{
    static const struct api_bind_options none;
    const struct api_bind_options *how = mount->bind_options ? mount->bind_options : &none;
    _cleanup_strv_ char **options = NULL;

    strv_append(&options, how->non_recursive ? "bind" : "rbind");
    strv_append(&options, text_empty(how->propagation) ? "rprivate" : how->propagation);
    if (mount->read_only)
        strv_append(&options, how->read_only_non_recursive ? "ro" : "rro");
    if (id_map)
        strv_append(&options, "idmap");
    put_mount(writer, "bind", source, mount->target, options);
}

static void put_user_tmpfs(struct json_writer *writer, const struct api_mount *mount)
{
    static const struct api_tmpfs_options none;
    const struct api_tmpfs_options *how = mount->tmpfs_options ? mount->tmpfs_options : &none;
    _cleanup_strv_ char **options = NULL;

    strv_append(&options, "noexec");
    strv_append(&options, "nosuid");
    strv_append(&options, "nodev");
    strv_append(&options, "rprivate");
    for (size_t i = 0; i < how->options_count; i++)
        strv_append(&options, how->options[i]);
    if (how->size_bytes)
        strv_take(&options, xasprintf("size=%llu", (unsigned long long)how->size_bytes));
    if (how->mode)
        strv_take(&options, xasprintf("mode=%o", how->mode));
    if (mount->read_only)
        strv_append(&options, "ro");
    put_mount(writer, "tmpfs", "tmpfs", mount->target, options);
}

bool bundle_is_mapped(const struct api_mount *mount)
{
    if (text_equal(mount->type, "bind"))
        return mount->bind_options && mount->bind_options->id_map;
    return text_equal(mount->type, "volume") && !volume_has_options(mount);
}

static void put_volume(struct json_writer *writer, const struct bundle_facts *facts,
                       const struct api_mount *mount)
{
    _cleanup_free_ char *source = xasprintf("%s/%s/_data", facts->volumes_directory, mount->source);

    put_user_bind(writer, mount, source, facts->users && bundle_is_mapped(mount));
}

/* Sticks are mounted on it while it runs; until then nobody writes into the image's folder, and
 * nobody in the container can put something else in its place. */
static void put_usb_folder(struct json_writer *writer, const char *target)
{
    char *const options[] = {
        (char *)"ro",      (char *)"nosuid",    (char *)"nodev",   (char *)"noexec",
        (char *)"private", (char *)"mode=0555", (char *)"size=4k", NULL};

    put_mount(writer, "tmpfs", "no-usb-stick", target, options);
}

/* Folders in which the sockets of rings come and go. */
static void put_usb_rings(struct json_writer *writer, const struct bundle_facts *facts)
{
    for (size_t i = 0; i < facts->effective->usb_blocks_count; i++) {
        const struct api_usb_block *block = facts->effective->usb_blocks[i];
        _cleanup_free_ char *place = xasprintf("%s/usb-ring.%zu", facts->bundle, i);
        if (text_equal(block->via, "ring"))
            put_bind(writer, place, block->target, true);
    }
}

bool bundle_has_subpath(const struct api_mount *mount)
{
    return text_equal(mount->type, "volume") && mount->volume_options &&
           !text_empty(mount->volume_options->subpath);
}

bool bundle_is_shared(const struct api_mount *mount)
{
    return text_equal(mount->type, "bind") && mount->bind_options &&
           !text_empty(mount->bind_options->propagation) &&
           text_ends_with(mount->bind_options->propagation, "shared");
}

void bundle_put_mounts(struct json_writer *writer, const struct bundle_context *context)
{
    const struct bundle_facts *facts = context->facts;

    unsigned held = 0;

    begin_array(writer, "mounts");
    for (size_t i = 0; i < facts->mounts_count; i++)
        put_bind(writer, facts->mounts[i].source, facts->mounts[i].target,
                 facts->mounts[i].read_only);
    put_default_mounts(writer, context);
    put_bound_devices(writer, facts);
    put_file_binds(writer, facts);
    if (facts->init)
        put_bind(writer, facts->init, bundle_init_path(facts->effective), true);
    for (size_t i = 0; i < facts->effective->mounts_count; i++) {
        const struct api_mount *mount = facts->effective->mounts[i];
        _cleanup_free_ char *place = bundle_is_shared(mount) || bundle_has_subpath(mount)
                                         ? xasprintf("%s/bind.%u", facts->bundle, held++)
                                         : NULL;
        if (place || text_equal(mount->type, "bind"))
            put_user_bind(writer, mount, place ? place : mount->source,
                          facts->users && bundle_is_mapped(mount));
        else if (text_equal(mount->type, "volume"))
            put_volume(writer, facts, mount);
        else if (text_equal(mount->type, "tmpfs"))
            put_user_tmpfs(writer, mount);
    }
    for (size_t i = 0; i < facts->effective->usb_storage_count; i++)
        put_usb_folder(writer, facts->effective->usb_storage[i]->target);
    put_usb_rings(writer, facts);
    json_writer_array_end(writer);
}
