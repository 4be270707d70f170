#include "volumes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "volume_fresh.h"
#include "volume_mount.h"

#define GONE_PREFIX ".gone-"

enum { GONE_DIGITS = 16, GONE_NAME_AT = sizeof(GONE_PREFIX) - 1 + GONE_DIGITS + 1 };

static const char anonymous_label[] = "com.docker.volume.anonymous";

static const char *const migrations[] = {
    "CREATE TABLE engine_volumes (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;",
};

int volumes_migrate(struct store_db *db, struct error *err)
{
    return store_db_migrate(db, "volumes", migrations, ARRAY_SIZE(migrations), err);
}

char *volumes_folder(const struct engine *engine)
{
    return xasprintf("%s/volumes", engine->instance->root);
}

char *volume_path(const struct engine *engine, const char *name)
{
    return xasprintf("%s/volumes/%s/_data", engine->instance->root, name);
}

char *volume_gone_name(const char *name)
{
    char digits[GONE_DIGITS + 1];

    text_random_hex(digits, GONE_DIGITS);
    return xasprintf(GONE_PREFIX "%s-%.*s", digits, NAME_MAX - GONE_NAME_AT, name);
}

/* --- the table, by name ----------------------------------------------------------------------- */

/* Where it is, or where it would be. */
static size_t place_of(const struct engine *engine, const char *name)
{
    size_t low = 0, high = engine->volumes_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(engine->volumes[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct volume *volume_find(struct engine *engine, const char *name)
{
    size_t place = place_of(engine, name);

    return place < engine->volumes_count && text_equal(engine->volumes[place]->name, name)
               ? engine->volumes[place]
               : NULL;
}

static void insert(struct engine *engine, struct volume *volume)
{
    size_t place = place_of(engine, volume->name);

    engine->volumes = xrealloc(engine->volumes, engine->volumes_count + 1, sizeof(struct volume *));
    memmove(&engine->volumes[place + 1], &engine->volumes[place],
            (engine->volumes_count - place) * sizeof(struct volume *));
    engine->volumes[place] = volume;
    engine->volumes_count++;
    volume->engine = engine;
}

static void volume_free(struct volume *volume)
{
    volume_use_unref(volume->use);
    free(volume->name);
    record_volume_free(volume->record);
    free(volume);
}

void volume_drop(struct volume *volume)
{
    struct engine *engine = volume->engine;
    size_t place = place_of(engine, volume->name);

    engine->volumes_count--;
    memmove(&engine->volumes[place], &engine->volumes[place + 1],
            (engine->volumes_count - place) * sizeof(struct volume *));
    volume_free(volume);
}

void volumes_free(struct engine *engine)
{
    for (size_t i = 0; i < engine->volumes_count; i++)
        volume_free(engine->volumes[i]);
    free(engine->volumes);
}

/* --- a new one -------------------------------------------------------------------------------- */

static int check_name(const char *name, struct error *err)
{
    size_t length = strlen(name);

    if (length < 2)
        return error_set(err, -EINVAL,
                         "create %s: volume name is too short, names should be at least two "
                         "alphanumeric characters",
                         name);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c >= 0x80 || !(isalnum(c) || (i && strchr("_.-", c))))
            return error_set(err, -EINVAL,
                             "create %.80s: \"%.80s\" includes invalid characters for a local "
                             "volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you "
                             "intended to pass a host directory, use absolute path",
                             name, name);
    }
    return length > VOLUME_NAME_MAX ? error_set(err, -EINVAL, "volume name is too long") : 0;
}

static int check_driver(const char *name, const char *driver, struct error *err)
{
    if (text_empty(driver) || text_equal(driver, "local"))
        return 0;
    return error_set(err, -ENOENT,
                     "create %s: error looking up volume plugin %.80s: plugin \"%.80s\" not found",
                     name, driver, driver);
}

static int check_options(const char *name, const struct json_string_map *options, struct error *err)
{
    static const char *const known[] = {"type", "o", "device"};

    for (size_t i = 0; options && i < options->count; i++) {
        bool found = false;
        for (size_t j = 0; j < ARRAY_SIZE(known); j++)
            found = found || text_equal(options->keys[i], known[j]);
        if (text_equal(options->keys[i], "size"))
            return error_set(err, -EOPNOTSUPP,
                             "create %s: quota size requested but no quota support", name);
        if (!found)
            return error_set(err, -EINVAL, "create %s: invalid option: \"%.80s\"", name,
                             options->keys[i]);
        if (strchr(options->values[i], '\n'))
            return error_set(err, -EINVAL, "create %s: option \"%s\" has more than a line", name,
                             options->keys[i]);
    }
    if (options && options->count && !json_string_map_get(options, "device"))
        return error_set(err, -EINVAL, "create %s: missing required option: \"device\"", name);
    if (options && options->count && !json_string_map_get(options, "type"))
        return error_set(err, -EINVAL, "create %s: missing required option: \"type\"", name);
    return 0;
}

static struct volume *new_volume(const char *name, bool anonymous)
{
    struct volume *volume = xnew(struct volume);

    volume->name = xstrdup(name);
    volume->record = xnew(struct record_volume);
    volume->record->version = 1;
    volume->record->driver = xstrdup("local");
    volume->record->created_at = clock_now();
    volume->record->anonymous = anonymous;
    volume->use = volume_use_new();
    return volume;
}

int volume_add(struct engine *engine, const char *name, const char *driver,
               const struct json_string_map *options, const struct json_string_map *labels,
               struct volume **ret, bool *ret_new, struct error *err)
{
    bool anonymous = text_empty(name);
    char digits[VOLUME_NAME_DIGITS + 1];

    text_random_hex(digits, VOLUME_NAME_DIGITS);
    if (anonymous)
        name = digits;
    int r = check_name(name, err);
    if (r == 0)
        r = check_driver(name, driver, err);
    if (r == 0)
        r = check_options(name, options, err);
    if (r < 0)
        return r;
    *ret = volume_find(engine, name);
    *ret_new = !*ret;
    if (*ret)
        return (*ret)->removing
                   ? error_set(err, -EBUSY, "create %s: the volume is being removed", name)
                   : 0;
    if (engine->volumes_count >= VOLUMES_MAX)
        return error_set(err, -ENOBUFS, "there are %d volumes already", VOLUMES_MAX);
    struct volume *volume = new_volume(name, anonymous);
    volume->record->labels = json_string_map_copy(labels);
    volume->record->options = json_string_map_copy(options);
    if (anonymous)
        json_string_map_set(&volume->record->labels, anonymous_label, "");
    insert(engine, volume);
    *ret = volume;
    return 0;
}

void volume_making_init(struct volume_making *making, const struct volume *volume)
{
    struct buffer text = BUFFER_INIT;

    record_volume_write(volume->record, &text);
    *making = (struct volume_making){
        .db = store_database(volume->engine->store),
        .folder = volumes_folder(volume->engine),
        .name = xstrdup(volume->name),
        .record = buffer_steal(&text),
    };
}

void volume_making_finish(struct volume_making *making)
{
    free(making->folder);
    free(making->name);
    free(making->record);
    *making = (struct volume_making){0};
}

/* The folder of all is passed through by containers of other users, not listed. */
static int make_folders(const struct volume_making *making, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", making->folder, making->name);
    _cleanup_free_ char *data = xasprintf("%s/_data", path);
    const struct {
        const char *path;
        mode_t mode;
    } folders[] = {{making->folder, 0711}, {path, 0711}, {data, 0755}};

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        if (mkdir(folders[i].path, folders[i].mode) == 0)
            chmod(folders[i].path, folders[i].mode); /* whatever the umask */
        else if (errno != EEXIST)
            return error_errno(err, errno, "create %s", folders[i].path);
    }
    return 0;
}

int volume_make(const struct volume_making *making, struct error *err)
{
    int r = make_folders(making, err);

    if (r == 0)
        r = store_db_run(making->db, err,
                         "INSERT OR REPLACE INTO engine_volumes (name, record) VALUES (?, ?)", "tt",
                         making->name, making->record);
    return r < 0 ? r : 0;
}

/* --- loading ---------------------------------------------------------------------------------- */

/* One that this version cannot read stays as it is, for one that can; its files are there. */
static void load_row(struct engine *engine, struct store_statement *row)
{
    const char *name = store_statement_text(row, 0);
    const char *text = store_statement_text(row, 1);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct record_volume *record = NULL;
    int r = check_name(name, &err);

    if (r == 0)
        r = record_volume_parse(text, strlen(text), "record", &record, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "the record of volume %.80s cannot be read", name);
    if (r < 0 && check_name(name, NULL) < 0)
        return;
    struct volume *volume = new_volume(name, false);
    volume->unreadable = r < 0;
    if (record) {
        record_volume_free(volume->record);
        volume->record = record;
    }
    insert(engine, volume);
}

static bool is_used(const struct engine *engine, const char *name)
{
    for (size_t i = 0; i < engine->containers_count; i++)
        if (container_has_volume(engine->containers[i], name))
            return true;
    return false;
}

/* A removal that was cut off before its record went. Names that were too long to keep whole stay,
 * empty. */
static void finish_removal(struct engine *engine, int folder_fd, const char *gone)
{
    const char *name = strlen(gone) > GONE_NAME_AT ? gone + GONE_NAME_AT : "";
    struct volume *volume = volume_find(engine, name);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (volume && faccessat(folder_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT &&
        !is_used(engine, name)) {
        if (store_db_run(store_database(engine->store), &err,
                         "DELETE FROM engine_volumes WHERE name = ?", "t", name) < 0)
            log_failure(LOG_ERROR, &err, "volume %s is not removed", name);
        else
            volume_drop(volume);
    }
    if (file_remove_tree_at(folder_fd, gone, &err) < 0)
        log_failure(LOG_ERROR, &err, "files of a removed volume are left");
}

static void adopt_folder(struct engine *engine, int folder_fd, const char *name)
{
    _cleanup_free_ char *path = xasprintf("%s/_data", name);
    _cleanup_(volume_making_finish) struct volume_making making = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct stat status;

    if (text_starts_with(name, GONE_PREFIX)) {
        finish_removal(engine, folder_fd, name);
        return;
    }
    if (check_name(name, NULL) < 0 || fstatat(folder_fd, path, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISDIR(status.st_mode))
        return;
    volume_fresh_recover(folder_fd, name);
    if (volume_find(engine, name))
        return;
    struct volume *volume = new_volume(name, text_is_hex(name, VOLUME_NAME_DIGITS));
    volume->record->created_at = (int64_t)status.st_mtim.tv_sec * CLOCK_SECOND;
    insert(engine, volume);
    volume_making_init(&making, volume);
    if (volume_make(&making, &err) < 0)
        log_failure(LOG_ERROR, &err, "volume %s has no record", name);
    else
        log_info("volume %s was there without a record, and has one now", name);
}

/* A power cut kept the record and lost the folder, or somebody has deleted it. */
static void make_missing(struct engine *engine)
{
    for (size_t i = 0; i < engine->volumes_count; i++) {
        struct volume *volume = engine->volumes[i];
        _cleanup_free_ char *path = volume_path(engine, volume->name);
        _cleanup_(volume_making_finish) struct volume_making making = {0};
        _cleanup_error_ struct error err = ERROR_INIT;

        if (access(path, F_OK) == 0)
            continue;
        volume_making_init(&making, volume);
        if (make_folders(&making, &err) < 0)
            log_failure(LOG_ERROR, &err, "volume %s has no folder", volume->name);
        else
            log_warning("the files of volume %s are lost: it is empty now", volume->name);
    }
}

int volumes_load(struct engine *engine, struct error *err)
{
    _cleanup_free_ char *folder = volumes_folder(engine);
    struct store_statement *row = NULL;
    int r = store_db_query(store_database(engine->store), &row, err,
                           "SELECT name, record FROM engine_volumes ORDER BY name", "");

    while (r >= 0 && (r = store_statement_step(row, err)) > 0)
        load_row(engine, row);
    store_statement_finish(row);
    if (r < 0) {
        error_context(err, "read the volume records");
        return r;
    }
    _cleanup_closedir_ DIR *directory = opendir(folder);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (!text_equal(entry->d_name, ".") && !text_equal(entry->d_name, ".."))
            adopt_folder(engine, dirfd(directory), entry->d_name);
    make_missing(engine);
    return 0;
}

/* --- who has them ----------------------------------------------------------------------------- */

bool container_has_volume(const struct container *container, const char *name)
{
    const struct api_container_spec *spec = container->effective;

    for (size_t i = 0; spec && i < spec->mounts_count; i++)
        if (text_equal(spec->mounts[i]->type, "volume") &&
            text_equal(spec->mounts[i]->source, name))
            return true;
    return false;
}

size_t volume_references(const struct volume *volume)
{
    const struct engine *engine = volume->engine;
    size_t count = volume->pins;

    for (size_t i = 0; i < engine->containers_count; i++)
        if (!engine->containers[i]->hidden)
            count += container_has_volume(engine->containers[i], volume->name);
    return count;
}

char **volumes_anonymous(const struct container *container)
{
    const struct api_container_spec *spec = container->effective;
    char **names = NULL;

    for (size_t i = 0; spec && i < spec->mounts_count; i++) {
        const struct api_mount *mount = spec->mounts[i];
        struct volume *volume = text_equal(mount->type, "volume") && !text_empty(mount->source)
                                    ? volume_find(container->engine, mount->source)
                                    : NULL;
        if (volume && volume->record->anonymous)
            strv_append(&names, volume->name);
    }
    return names;
}

struct api_volume *volume_describe(const struct volume *volume)
{
    struct api_volume *description = xnew(struct api_volume);

    description->name = xstrdup(volume->name);
    description->driver = xstrdup(volume->record->driver);
    description->mountpoint = volume_path(volume->engine, volume->name);
    description->created_at = clock_format(volume->record->created_at);
    description->labels = json_string_map_copy(volume->record->labels);
    description->options = json_string_map_copy(volume->record->options);
    description->anonymous = volume->record->anonymous;
    return description;
}
