/*
 * What is mounted into a container.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

const struct option mount_option_table[] = {
    {
        .name = "mount",
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, mounts),
        .argument = "mount",
        .help = "Mount something: type=bind,source=/HERE,target=/THERE",
    },
    {
        .name = "read-only",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct mount_options, read_only),
        .help = "Mount the root file system read-only",
    },
    {
        .name = "storage-opt",
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, storage_opt),
        .argument = "list",
        .help = "size=BYTES: what it may write",
    },
    {
        .name = "tmpfs",
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, tmpfs),
        .argument = "list",
        .help = "Mount a file system in memory: /PATH[:OPTIONS]",
    },
    {
        .name = "usb-block",
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, usb_block),
        .argument = "list",
        .help = "Give it a USB stick as a block device: /dev/NAME[:ro][:OPTION,...]",
    },
    {
        .name = "usb-storage",
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, usb_storage),
        .argument = "list",
        .help = "Mount a USB stick as long as it is there: /PATH[:ro][:OPTION,...]",
    },
    {
        .name = "volume",
        .short_name = 'v',
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, volumes),
        .argument = "list",
        .help = "Mount a folder or a volume: [/HERE:|NAME:]/THERE[:ro]",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "volume-driver",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct mount_options, volume_driver),
        .argument = "string",
        .help = "Driver of the volumes (default local)",
    },
    {
        .name = "volumes-from",
        .kind = OPTION_LIST,
        .offset = offsetof(struct mount_options, volumes_from),
        .argument = "list",
        .help = "Mount what another container has: NAME[:ro]",
        .complete = COMPLETE_CONTAINERS,
    },
    {.name = NULL},
};

/* ---- -v */

static bool is_relative(const char *path)
{
    return text_equal(path, ".") || text_equal(path, "..") || text_starts_with(path, "./") ||
           text_starts_with(path, "../");
}

/* Relative paths are ours, not the daemon's. Owned by the caller. */
static int absolute_path(const char *path, char **ret, struct error *err)
{
    if (!is_relative(path)) {
        *ret = xstrdup(path);
        return 0;
    }
    _cleanup_free_ char *here = getcwd(NULL, 0);
    if (!here)
        return error_errno(err, errno, "find the working directory");
    _cleanup_free_ char *joined = xasprintf("%s/%s", here, path);
    char *resolved = realpath(joined, NULL);
    *ret = resolved ? resolved : steal_ptr(joined);
    return 0;
}

static int set_bind_options(struct api_bind *bind, const char *text, struct error *err)
{
    _cleanup_strv_ char **words = strv_split(text, ',');

    for (size_t i = 0; words && words[i]; i++) {
        bool ro = text_equal(words[i], "ro"), rw = text_equal(words[i], "rw");
        if ((ro || rw) && bind->has_read_only)
            return error_set(err, -EINVAL, "invalid mode: %s", text);
        if (ro || rw) {
            bind->read_only = ro;
            bind->has_read_only = true;
        } else {
            strv_append(&bind->options, words[i]);
            bind->options_count++;
        }
    }
    return 0;
}

int spec_add_bind(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(text, ':');
    _cleanup_free_ char *source = NULL;
    size_t count = strv_length(parts);

    if (count == 1 && parts[0][0] == '/') {
        strv_append(&spec->volumes, parts[0]);
        spec->volumes_count++;
        return 0;
    }
    if (count < 2 || count > 3 || !parts[0][0])
        return error_set(err, -EINVAL, "invalid volume specification: '%s'", text);
    if (parts[1][0] != '/')
        return error_set(err, -EINVAL,
                         "invalid volume specification: '%s': mount path must be absolute", text);
    int r = absolute_path(parts[0], &source, err);
    if (r < 0)
        return r;
    struct api_bind *bind = xnew(struct api_bind);
    bind->source = steal_ptr(source);
    bind->target = xstrdup(parts[1]);
    spec->binds = xrealloc(spec->binds, spec->binds_count + 1, sizeof(struct api_bind *));
    spec->binds[spec->binds_count++] = bind;
    return count == 3 ? set_bind_options(bind, parts[2], err) : 0;
}

/* ---- --mount */

/* One field of a line of comma-separated values; a field in quotes may hold commas, and quotes
 * that are doubled. *text goes behind it. Owned by the caller; NULL: a quote is not closed. */
static char *next_field(const char **text)
{
    struct buffer field = BUFFER_INIT;
    bool quoted = **text == '"';

    *text += quoted;
    for (; **text && (quoted || **text != ','); (*text)++) {
        if (quoted && **text == '"' && (*text)[1] != '"') {
            quoted = false;
        } else {
            *text += quoted && **text == '"';
            buffer_append_char(&field, **text);
        }
    }
    *text += **text == ',';
    if (!quoted)
        return buffer_steal(&field);
    buffer_finish(&field);
    return NULL;
}

static int take_boolean(const char *key, const char *value, bool *field, bool *has,
                        struct error *err)
{
    if (!value || text_equal(value, "true") || text_equal(value, "1"))
        *field = true;
    else if (text_equal(value, "false") || text_equal(value, "0"))
        *field = false;
    else
        return error_set(err, -EINVAL, "invalid value for %s: %s", key, value);
    *has = true;
    return 0;
}

static void set_text(char **field, const char *value)
{
    free(*field);
    *field = xstrdup(value);
}

static struct api_bind_options *bind_of(struct api_mount *mount)
{
    if (!mount->bind_options)
        mount->bind_options = xnew(struct api_bind_options);
    return mount->bind_options;
}

static struct api_volume_options *volume_of(struct api_mount *mount)
{
    if (!mount->volume_options)
        mount->volume_options = xnew(struct api_volume_options);
    return mount->volume_options;
}

static struct api_tmpfs_options *tmpfs_of(struct api_mount *mount)
{
    if (!mount->tmpfs_options)
        mount->tmpfs_options = xnew(struct api_tmpfs_options);
    return mount->tmpfs_options;
}

static int take_recursion(struct api_mount *mount, const char *value, struct error *err)
{
    struct api_bind_options *how = bind_of(mount);

    if (text_equal(value, "disabled"))
        how->non_recursive = how->has_non_recursive = true;
    else if (text_equal(value, "writable"))
        how->read_only_non_recursive = how->has_read_only_non_recursive = true;
    else if (text_equal(value, "readonly"))
        how->read_only_force_recursive = how->has_read_only_force_recursive = true;
    else if (!text_equal(value, "enabled"))
        return error_set(err, -EINVAL,
                         "invalid value for bind-recursive: %s (must be \"enabled\", "
                         "\"disabled\", \"writable\", or \"readonly\")",
                         value);
    return 0;
}

static int take_bind_field(struct api_mount *mount, const char *key, const char *value,
                           struct error *err)
{
    struct api_bind_options *how = bind_of(mount);

    if (text_equal(key, "bind-propagation")) {
        set_text(&how->propagation, value);
        return 0;
    }
    if (text_equal(key, "bind-nonrecursive"))
        return take_boolean(key, value, &how->non_recursive, &how->has_non_recursive, err);
    if (text_equal(key, "bind-create-src"))
        return take_boolean(key, value, &how->create_mountpoint, &how->has_create_mountpoint, err);
    if (text_equal(key, "idmap"))
        return take_boolean(key, value, &how->id_map, &how->has_id_map, err);
    if (text_equal(key, "bind-recursive"))
        return take_recursion(mount, value ? value : "", err);
    return error_set(err, -EINVAL, "unexpected key '%s' in '%s=%s'", key, key, value);
}

static int take_volume_field(struct api_mount *mount, const char *key, const char *value,
                             struct error *err)
{
    struct api_volume_options *how = volume_of(mount);
    char *const words[] = {(char *)value, NULL};

    if (text_equal(key, "volume-nocopy"))
        return take_boolean(key, value, &how->no_copy, &how->has_no_copy, err);
    if (text_equal(key, "volume-subpath"))
        set_text(&how->subpath, value);
    else if (text_equal(key, "volume-driver"))
        set_text(&how->driver, value);
    else if (text_equal(key, "volume-label"))
        spec_fill_map(&how->labels, words);
    else if (text_equal(key, "volume-opt"))
        spec_fill_map(&how->driver_options, words);
    else
        return error_set(err, -EINVAL, "unexpected key '%s' in '%s=%s'", key, key, value);
    return 0;
}

static int take_tmpfs_field(struct api_mount *mount, const char *key, const char *value,
                            struct error *err)
{
    struct api_tmpfs_options *how = tmpfs_of(mount);
    char *end;

    if (text_equal(key, "tmpfs-size")) {
        how->has_size_bytes = true;
        if (text_to_size(value, &how->size_bytes) < 0)
            return error_set(err, -EINVAL, "invalid value for %s: %s", key, value);
    } else if (text_equal(key, "tmpfs-mode")) {
        unsigned long mode = strtoul(value, &end, 8);
        if (!value[0] || *end || mode > 07777)
            return error_set(err, -EINVAL, "invalid value for %s: %s", key, value);
        how->mode = (uint32_t)mode;
        how->has_mode = true;
    } else if (text_equal(key, "tmpfs-options")) {
        how->options = strv_split(value, ' ');
        how->options_count = strv_length(how->options);
    } else {
        return error_set(err, -EINVAL, "unexpected key '%s' in '%s=%s'", key, key, value);
    }
    return 0;
}

static int take_field(struct api_mount *mount, const char *key, const char *value,
                      struct error *err)
{
    if (text_equal(key, "readonly") || text_equal(key, "ro"))
        return take_boolean(key, value, &mount->read_only, &mount->has_read_only, err);
    if (!value && !text_equal(key, "volume-nocopy") && !text_equal(key, "bind-nonrecursive") &&
        !text_equal(key, "bind-create-src") && !text_equal(key, "idmap"))
        return error_set(err, -EINVAL, "invalid field '%s' must be a key=value pair", key);
    if (text_equal(key, "type"))
        set_text(&mount->type, value);
    else if (text_equal(key, "source") || text_equal(key, "src"))
        set_text(&mount->source, value);
    else if (text_equal(key, "target") || text_equal(key, "dst") || text_equal(key, "destination"))
        set_text(&mount->target, value);
    else if (text_equal(key, "consistency"))
        set_text(&mount->consistency, value);
    else if (text_starts_with(key, "bind-") || text_equal(key, "idmap"))
        return take_bind_field(mount, key, value, err);
    else if (text_starts_with(key, "volume-"))
        return take_volume_field(mount, key, value, err);
    else if (text_starts_with(key, "tmpfs-"))
        return take_tmpfs_field(mount, key, value, err);
    else
        return error_set(err, -EINVAL, "unexpected key '%s' in '%s=%s'", key, key, value);
    return 0;
}

static int check_mount(struct api_mount *mount, struct error *err)
{
    static const char *const types[] = {"bind", "volume", "tmpfs"};
    bool known = false;

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        known = known || text_equal(mount->type, types[i]);
    if (!known)
        return error_set(err, -EOPNOTSUPP, "mounts of type '%s' are not supported", mount->type);
    if (!mount->target)
        return error_set(err, -EINVAL, "target is required");
    if (text_equal(mount->type, "bind") && mount->source) {
        char *absolute;
        int r = absolute_path(mount->source, &absolute, err);
        if (r < 0)
            return r;
        free(mount->source);
        mount->source = absolute;
    }
    return 0;
}

int spec_add_mount(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_api_mount_ struct api_mount *mount = xnew(struct api_mount);
    int r = 0;

    mount->type = xstrdup("volume");
    while (r >= 0 && *text) {
        _cleanup_free_ char *field = next_field(&text);
        if (!field)
            return error_set(err, -EINVAL, "a quote is not closed");
        char *equals = strchr(field, '=');
        if (equals)
            *equals++ = '\0';
        for (char *c = field; *c; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
        r = take_field(mount, field, equals, err);
    }
    if (r >= 0)
        r = check_mount(mount, err);
    if (r < 0)
        return r;
    spec->mounts = xrealloc(spec->mounts, spec->mounts_count + 1, sizeof(*spec->mounts));
    spec->mounts[spec->mounts_count++] = steal_ptr(mount);
    return 0;
}

/* ---- all of it */

static void add_tmpfs(struct api_container_spec *spec, const char *text)
{
    size_t length = strcspn(text, ":");
    _cleanup_free_ char *target = xstrndup(text, length);

    json_string_map_set(&spec->tmpfs, target, text[length] ? text + length + 1 : "");
}

int mounts_build(const struct mount_options *options, struct api_container_spec *spec,
                 struct error *err)
{
    int r = 0;

    for (char **text = options->volumes; r >= 0 && text && *text; text++)
        r = spec_add_bind(spec, *text, err);
    for (char **text = options->mounts; r >= 0 && text && *text; text++) {
        r = spec_add_mount(spec, *text, err);
        if (r < 0)
            error_context(err, "invalid argument \"%s\" for \"--mount\" flag", *text);
    }
    for (char **text = options->usb_block; r >= 0 && text && *text; text++)
        r = spec_add_usb_block(spec, *text, err);
    for (char **text = options->usb_storage; r >= 0 && text && *text; text++)
        r = spec_add_usb_storage(spec, *text, err);
    if (r < 0)
        return r;
    for (char **text = options->tmpfs; text && *text; text++)
        add_tmpfs(spec, *text);
    spec_fill_list(&spec->volumes_from, &spec->volumes_from_count, options->volumes_from);
    spec_fill_map(&spec->storage_opt, options->storage_opt);
    spec->volume_driver = xstrdup(options->volume_driver);
    spec->read_only_root = spec->has_read_only_root = options->read_only;
    return 0;
}
