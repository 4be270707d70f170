#include "volume_mount.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "errand.h"
#include "look_child.h"
#include "volumes.h"

/* --- who has them ----------------------------------------------------------------------------- */

struct volume_use {
    _Atomic unsigned references;
    _Atomic unsigned users;
};

struct volume_use *volume_use_new(void)
{
    struct volume_use *use = xnew(struct volume_use);

    use->references = 1;
    return use;
}

void volume_use_unref(struct volume_use *use)
{
    if (use && atomic_fetch_sub(&use->references, 1) == 1)
        free(use);
}

bool volume_has_options(const struct api_mount *mount)
{
    return text_equal(mount->type, "volume") && mount->volume_options &&
           mount->volume_options->driver_options && mount->volume_options->driver_options->count;
}

struct release {
    uv_work_t work;
    struct engine *engine;
    struct volume_use *use; /* a reference */
    char *folder;           /* owned */
};

static bool is_mounted(const char *folder)
{
    _cleanup_free_ char *data = xasprintf("%s/_data", folder);
    int own = look_mount_of(folder), there = look_mount_of(data);

    return own >= 0 && there >= 0 && own != there;
}

static int lock_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
            ;
    return fd;
}

/* use: NULL: whoever has it. */
static void unmount(const char *folder, const struct volume_use *use)
{
    _cleanup_close_ int lock = lock_folder(folder);
    _cleanup_free_ char *data = xasprintf("%s/_data", folder);

    if (lock < 0 || (use && use->users > 0) || !is_mounted(folder))
        return;
    if (umount2(data, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        log_warning("%s cannot be unmounted: %s", data, strerror(errno));
}

void volume_unmount(const char *folder)
{
    unmount(folder, NULL);
}

static void release_work(uv_work_t *work)
{
    struct release *release = work->data;

    unmount(release->folder, release->use);
}

static void release_done(uv_work_t *work, int status)
{
    struct release *release = work->data;

    release->engine->image_calls--;
    volume_use_unref(release->use);
    free(release->folder);
    free(release);
}

static void release_begin(const struct volume *volume)
{
    struct release *release = xnew(struct release);
    _cleanup_free_ char *folder = volumes_folder(volume->engine);

    atomic_fetch_add(&volume->use->references, 1);
    release->work.data = release;
    release->engine = volume->engine;
    release->use = volume->use;
    release->folder = xasprintf("%s/%s", folder, volume->name);
    release->engine->image_calls++;
    errand_run(volume->engine, &release->work, release_work, release_done);
}

static void settle(const struct volume *volume)
{
    const struct engine *engine = volume->engine;
    unsigned users = 0;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        users += (container_is_active(container) || container->holds_volumes) &&
                 container_has_volume(container, volume->name);
    }
    volume->use->users = users;
    if (users == 0)
        release_begin(volume);
}

void volumes_use_changed(const struct container *container)
{
    const struct api_container_spec *spec = container->effective;

    for (size_t i = 0; spec && i < spec->mounts_count; i++) {
        const struct volume *volume = volume_has_options(spec->mounts[i])
                                          ? volume_find(container->engine, spec->mounts[i]->source)
                                          : NULL;
        if (volume)
            settle(volume);
    }
}

void volumes_hold(struct container *container, bool hold)
{
    if (container->holds_volumes == hold)
        return;
    container->holds_volumes = hold;
    volumes_use_changed(container);
}

void volumes_use_settle(struct engine *engine)
{
    for (size_t i = 0; i < engine->volumes_count; i++) {
        const struct json_string_map *options = engine->volumes[i]->record->options;
        if (options && options->count)
            settle(engine->volumes[i]);
    }
}

/* --- what is mounted -------------------------------------------------------------------------- */

enum { FOLDER, TYPE, DEVICE, OPTIONS, PARTS };

/* A line each: a line's end in one of them was refused when the volume was made. */
char *volume_mount_request(const struct engine *engine, const struct api_mount *mount)
{
    const struct json_string_map *how = mount->volume_options->driver_options;
    _cleanup_free_ char *folder = volumes_folder(engine);
    const char *type = json_string_map_get(how, "type");
    const char *device = json_string_map_get(how, "device");
    const char *options = json_string_map_get(how, "o");

    return xasprintf("%s/%s\n%s\n%s\n%s", folder, mount->source, type ? type : "none",
                     device ? device : "none", options ? options : "");
}

/* The words of mount(8) that are flags of mount(2), and those that take one back. */
static const struct {
    const char *word;
    unsigned long set, clear;
} words[] = {
    {"defaults", 0, 0},
    {"bind", MS_BIND, 0},
    {"rbind", MS_BIND | MS_REC, 0},
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
    {"mand", MS_MANDLOCK, 0},
    {"nomand", 0, MS_MANDLOCK},
    {"noatime", MS_NOATIME, 0},
    {"atime", 0, MS_NOATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"relatime", MS_RELATIME, 0},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, 0},
    {"nostrictatime", 0, MS_STRICTATIME},
};

/* Returns false for a word of the file system's own. */
static bool take_word(const char *word, unsigned long *flags)
{
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (!text_equal(words[i].word, word))
            continue;
        *flags = (*flags | words[i].set) & ~words[i].clear;
        return true;
    }
    return false;
}

/* A server's name is for us to look up: the kernel knows addresses only. Owned. */
static char *with_address(const char *word, struct error *err)
{
    static const char key[] = "addr=";
    struct addrinfo *found = NULL;
    char text[INET6_ADDRSTRLEN];

    if (!text_starts_with(word, key))
        return xstrdup(word);
    int r = getaddrinfo(word + strlen(key), NULL, NULL, &found);
    if (r != 0) {
        error_set(err, -EHOSTUNREACH, "error resolving passed in network volume address: %s: %s",
                  word + strlen(key), gai_strerror(r));
        return NULL;
    }
    r = getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    return r == 0 ? xasprintf("%s%s", key, text) : xstrdup(word);
}

static int take_options(const char *text, const char *type, unsigned long *flags, char **ret_data,
                        struct error *err)
{
    bool remote = text_starts_with(type, "nfs") || text_equal(type, "cifs");
    _cleanup_strv_ char **all = strv_split(text, ',');
    _cleanup_strv_ char **data = NULL;

    for (size_t i = 0; all && all[i]; i++) {
        if (!all[i][0] || take_word(all[i], flags))
            continue;
        char *word = remote ? with_address(all[i], err) : xstrdup(all[i]);
        if (!word)
            return err->code;
        strv_take(&data, word);
    }
    *ret_data = data ? strv_join(data, ",") : NULL;
    return 0;
}

/* For people's eyes, without what only the server is to see. Owned. */
static char *without_secrets(const char *data)
{
    static const char *const keys[] = {"pass=", "passwd=", "password=", "password2=", "secret="};
    _cleanup_strv_ char **all = strv_split(data ? data : "", ',');

    for (size_t i = 0; all && all[i]; i++)
        for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
            if (text_starts_with(all[i], keys[k])) {
                free(all[i]);
                all[i] = xasprintf("%s********", keys[k]);
            }
    return all ? strv_join(all, ",") : xstrdup("");
}

static struct mount_attr attributes_of(unsigned long flags)
{
    static const struct {
        unsigned long flag;
        uint64_t attribute;
    } same[] = {
        {MS_RDONLY, MOUNT_ATTR_RDONLY},     {MS_NOSUID, MOUNT_ATTR_NOSUID},
        {MS_NODEV, MOUNT_ATTR_NODEV},       {MS_NOEXEC, MOUNT_ATTR_NOEXEC},
        {MS_NOATIME, MOUNT_ATTR_NOATIME},   {MS_STRICTATIME, MOUNT_ATTR_STRICTATIME},
        {MS_RELATIME, MOUNT_ATTR_RELATIME}, {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME},
    };
    struct mount_attr attributes = {0};

    for (size_t i = 0; i < ARRAY_SIZE(same); i++)
        if (flags & same[i].flag)
            attributes.attr_set |= same[i].attribute;
    if (flags & (MS_NOATIME | MS_STRICTATIME | MS_RELATIME))
        attributes.attr_clr = MOUNT_ATTR__ATIME;
    return attributes;
}

/* It is there with all of its flags or not at all, whenever we are killed. */
static int bind_it(const char *source, const char *place, unsigned long flags)
{
    struct mount_attr attributes = attributes_of(flags);
    _cleanup_close_ int fd = open_tree(AT_FDCWD, source,
                                       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
                                           (flags & MS_REC ? (unsigned)AT_RECURSIVE : 0U));

    if (fd < 0)
        return -errno;
    if ((attributes.attr_set || attributes.attr_clr) &&
        mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
        return -errno;
    return move_mount(fd, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

static int mount_it(char *const *parts, const char *place, struct error *err)
{
    _cleanup_free_ char *data = NULL;
    unsigned long flags = 0;
    int r = take_options(parts[OPTIONS], parts[TYPE], &flags, &data, err);

    if (r < 0)
        return r;
    if (flags & MS_BIND)
        r = bind_it(parts[DEVICE], place, flags);
    else
        r = mount(parts[DEVICE], place, parts[TYPE], flags, data) < 0 ? -errno : 0;
    if (r == 0)
        return 0;
    _cleanup_free_ char *shown = without_secrets(data);
    return error_set(err, r,
                     "error while mounting volume '%s': failed to mount local volume: mount %s:%s, "
                     "data: %s: %s",
                     place, parts[DEVICE], place, shown, strerror(-r));
}

int volume_mount_run(const char *request, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(request, '\n');

    if (strv_length(parts) != PARTS)
        return error_set(err, -EINVAL, "the options of a volume have lines");
    _cleanup_free_ char *place = xasprintf("%s/_data", parts[FOLDER]);
    _cleanup_close_ int lock = lock_folder(parts[FOLDER]);
    if (lock < 0)
        return error_errno(err, errno, "open %s", parts[FOLDER]);
    return is_mounted(parts[FOLDER]) ? 0 : mount_it(parts, place, err);
}
