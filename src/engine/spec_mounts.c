/*
 * binds, volumes and tmpfs of a request, made into mounts: what follows looks at these only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

static const char *const propagations[] = {
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
};

/* Of docker's -v. z, Z: SELinux labels, which there are none of; the others are for machines that
 * share files with a virtual one. */
static const char *const words_without_effect[] = {
    "z", "Z", "consistent", "cached", "delegated", "rbind",
};

/* What mount(8) knows and docker lets through; the last of a pair counts. */
static const char *const tmpfs_words[] = {
    "ro",         "rw",          "exec",        "noexec",        "suid",
    "nosuid",     "dev",         "nodev",       "sync",          "async",
    "dirsync",    "atime",       "noatime",     "diratime",      "relatime",
    "nodiratime", "norelatime",  "strictatime", "nostrictatime", "private",
    "rprivate",   "shared",      "rshared",     "slave",         "rslave",
    "unbindable", "runbindable",
};
static const char *const tmpfs_settings[] = {
    "size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks=", "mpol=",
};

static bool is_among(const char *word, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (text_equal(word, list[i]))
            return true;
    }
    return false;
}

char *spec_clean_path(const char *path)
{
    _cleanup_strv_ char **parts = strv_split(path, '/');
    size_t kept = 0;

    for (size_t i = 0; parts && parts[i]; i++) {
        if (text_equal(parts[i], "..")) {
            if (kept > 0)
                free(parts[--kept]);
            free(parts[i]);
        } else if (!parts[i][0] || text_equal(parts[i], ".")) {
            free(parts[i]);
        } else {
            parts[kept++] = parts[i];
        }
    }
    if (kept == 0) {
        free(parts);
        parts = NULL;
        return xstrdup("/");
    }
    parts[kept] = NULL;
    _cleanup_free_ char *joined = strv_join(parts, "/");
    return xasprintf("/%s", joined);
}

/* --- one mount -------------------------------------------------------------------------------- */

static struct api_mount *add_mount(struct api_container_spec *spec, const char *type,
                                   const char *source, const char *target)
{
    struct api_mount *mount = xnew(struct api_mount);

    mount->type = xstrdup(type);
    mount->source = source ? xstrdup(source) : NULL;
    mount->target = xstrdup(target);
    spec->mounts = xrealloc(spec->mounts, spec->mounts_count + 1, sizeof(*spec->mounts));
    spec->mounts[spec->mounts_count++] = mount;
    return mount;
}

static void set_text(char **field, const char *value)
{
    free(*field);
    *field = xstrdup(value);
}

static int complain(const struct api_mount *mount, const char *what, struct error *err)
{
    return error_set(err, -EINVAL, "invalid mount config for type \"%s\": %s", mount->type, what);
}

static int bind_word(struct api_mount *mount, const char *word, struct error *err)
{
    if (text_equal(word, "ro") || text_equal(word, "rw")) {
        mount->read_only = mount->has_read_only = text_equal(word, "ro");
        return 0;
    }
    if (mount->bind_options && is_among(word, propagations, ARRAY_SIZE(propagations))) {
        set_text(&mount->bind_options->propagation, word);
        return 0;
    }
    if (mount->bind_options && text_equal(word, "bind")) {
        mount->bind_options->non_recursive = mount->bind_options->has_non_recursive = true;
        return 0;
    }
    if (mount->bind_options && text_equal(word, "idmap")) {
        mount->bind_options->id_map = mount->bind_options->has_id_map = true;
        return 0;
    }
    if (mount->volume_options && text_equal(word, "nocopy")) {
        mount->volume_options->no_copy = mount->volume_options->has_no_copy = true;
        return 0;
    }
    if (mount->bind_options && text_equal(word, "nocopy"))
        return complain(mount, "field VolumeOptions must not be specified", err);
    if (mount->volume_options && is_among(word, propagations, ARRAY_SIZE(propagations)))
        return complain(mount, "field BindOptions must not be specified", err);
    if (is_among(word, words_without_effect, ARRAY_SIZE(words_without_effect)) ||
        text_equal(word, "idmap")) /* volumes are mapped anyway */
        return 0;
    return error_set(err, -EINVAL, "invalid mode: %.80s", word);
}

static void name_driver(struct api_mount *mount, const char *driver)
{
    mount->volume_options = xnew(struct api_volume_options);
    if (!text_empty(driver))
        mount->volume_options->driver = xstrdup(driver);
}

static int take_bind(struct api_container_spec *spec, const struct api_bind *bind,
                     struct error *err)
{
    bool named = bind->source[0] != '/';
    struct api_mount *mount =
        add_mount(spec, named ? "volume" : "bind", bind->source, bind->target);
    int r = 0;

    if (named) {
        name_driver(mount, spec->volume_driver);
    } else {
        mount->bind_options = xnew(struct api_bind_options);
        mount->bind_options->create_mountpoint = true;
        mount->bind_options->has_create_mountpoint = true;
    }
    mount->read_only = mount->has_read_only = bind->read_only;
    for (size_t i = 0; r == 0 && i < bind->options_count; i++)
        r = bind_word(mount, bind->options[i], err);
    return r;
}

static void take_tmpfs(struct api_container_spec *spec, const char *target, const char *options)
{
    struct api_mount *mount = add_mount(spec, "tmpfs", NULL, target);

    mount->tmpfs_options = xnew(struct api_tmpfs_options);
    mount->tmpfs_options->options = strv_split(options, ',');
    mount->tmpfs_options->options_count = strv_length(mount->tmpfs_options->options);
}

/* --- checks ----------------------------------------------------------------------------------- */

static int check_tmpfs_word(const char *word, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(tmpfs_settings); i++) {
        if (text_starts_with(word, tmpfs_settings[i]))
            return 0;
    }
    if (is_among(word, tmpfs_words, ARRAY_SIZE(tmpfs_words)) || !word[0])
        return 0;
    return error_set(err, -EINVAL, "invalid tmpfs option [\"%.80s\"]", word);
}

/* NULL and "": all of it. */
static bool is_part(const char *path)
{
    _cleanup_strv_ char **parts = path ? strv_split(path, '/') : NULL;

    return !path || (path[0] != '/' && !strv_contains(parts, ".."));
}

static int check_options(const struct api_mount *mount, struct error *err)
{
    const struct api_tmpfs_options *tmpfs = mount->tmpfs_options;
    const struct api_bind_options *bind = mount->bind_options;
    int r = 0;

    if (bind && !text_equal(mount->type, "bind"))
        return complain(mount, "field BindOptions must not be specified", err);
    if (mount->volume_options && !text_equal(mount->type, "volume"))
        return complain(mount, "field VolumeOptions must not be specified", err);
    if (tmpfs && !text_equal(mount->type, "tmpfs"))
        return complain(mount, "field TmpfsOptions must not be specified", err);
    if (mount->volume_options && !is_part(mount->volume_options->subpath))
        return complain(mount, "subpath must be a relative path within the volume", err);
    if (bind && !text_empty(bind->propagation) &&
        !is_among(bind->propagation, propagations, ARRAY_SIZE(propagations)))
        return complain(mount, "invalid propagation mode", err);
    if (bind && (bind->read_only_non_recursive || bind->read_only_force_recursive) &&
        !mount->read_only)
        return complain(mount, "mount must be read-only for its recursion to matter", err);
    for (size_t i = 0; tmpfs && r == 0 && i < tmpfs->options_count; i++)
        r = check_tmpfs_word(tmpfs->options[i], err);
    return r;
}

static int check_mount(const struct api_mount *mount, struct error *err)
{
    bool bind = text_equal(mount->type, "bind");

    if (text_empty(mount->target))
        return complain(mount, "field Target must not be empty", err);
    if (mount->target[0] != '/')
        return error_set(err, -EINVAL,
                         "invalid mount config for type \"%s\": invalid mount path: '%s' mount "
                         "path must be absolute",
                         mount->type, mount->target);
    if (strspn(mount->target, "/.") == strlen(mount->target))
        return complain(mount, "invalid specification: destination can't be '/'", err);
    if (bind && text_empty(mount->source))
        return complain(mount, "field Source must not be empty", err);
    if (bind && mount->source[0] != '/')
        return error_set(err, -EINVAL,
                         "invalid mount config for type \"bind\": invalid mount path: '%s' mount "
                         "path must be absolute",
                         mount->source);
    if (text_equal(mount->type, "tmpfs") && !text_empty(mount->source))
        return complain(mount, "field Source must not be specified", err);
    return check_options(mount, err);
}

static int check_all(const struct api_container_spec *spec, struct error *err)
{
    if (spec->mounts_count > SPEC_MOUNTS_MAX)
        return error_set(err, -EINVAL, "more than %d mounts", SPEC_MOUNTS_MAX);
    for (size_t i = 0; i < spec->mounts_count; i++) {
        int r = check_mount(spec->mounts[i], err);
        if (r < 0)
            return r;
        for (size_t j = 0; j < i; j++) {
            if (text_equal(spec->mounts[i]->target, spec->mounts[j]->target))
                return error_set(err, -EINVAL, "Duplicate mount point: %s",
                                 spec->mounts[i]->target);
        }
    }
    return 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

static size_t depth_of(const char *path)
{
    size_t depth = 0;

    for (; *path; path++)
        depth += *path == '/';
    return depth;
}

/* Parents first, else in the order they were asked for (an insertion sort keeps it). */
static void sort(struct api_container_spec *spec)
{
    for (size_t i = 1; i < spec->mounts_count; i++) {
        struct api_mount *mount = spec->mounts[i];
        size_t j = i;
        for (; j > 0 && depth_of(spec->mounts[j - 1]->target) > depth_of(mount->target); j--)
            spec->mounts[j] = spec->mounts[j - 1];
        spec->mounts[j] = mount;
    }
}

static void drop_sources(struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->binds_count; i++)
        api_bind_free(spec->binds[i]);
    free(spec->binds);
    spec->binds = NULL;
    spec->binds_count = 0;
    strv_free(spec->volumes);
    spec->volumes = NULL;
    spec->volumes_count = 0;
    json_string_map_free(spec->tmpfs);
    spec->tmpfs = NULL;
}

int spec_settle_mounts(struct api_container_spec *spec, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->binds_count; i++)
        r = take_bind(spec, spec->binds[i], err);
    for (size_t i = 0; r == 0 && i < spec->volumes_count; i++)
        name_driver(add_mount(spec, "volume", NULL, spec->volumes[i]), spec->volume_driver);
    for (size_t i = 0; r == 0 && spec->tmpfs && i < spec->tmpfs->count; i++)
        take_tmpfs(spec, spec->tmpfs->keys[i], spec->tmpfs->values[i]);
    for (size_t i = 0; r == 0 && i < spec->mounts_count; i++) {
        char *target = spec_clean_path(spec->mounts[i]->target);
        if (spec->mounts[i]->target[0] == '/') {
            free(spec->mounts[i]->target);
            spec->mounts[i]->target = steal_ptr(target);
        }
        free(target);
    }
    if (r == 0)
        r = check_all(spec, err);
    if (r < 0)
        return r;
    drop_sources(spec);
    sort(spec);
    return 0;
}
