#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <schema/json.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "annotations.h"
#include "config_version.h"
#include "kernel.h"
#include "state.h"
#include "users.h"

enum {
    PASSWD_FILE_MAX = 1 << 20,
};

static const char *const status_names[] = {
    [CLOCHE_RUNTIME_CREATING] = "creating", [CLOCHE_RUNTIME_CREATED] = "created",
    [CLOCHE_RUNTIME_RUNNING] = "running",   [CLOCHE_RUNTIME_PAUSED] = "paused",
    [CLOCHE_RUNTIME_STOPPED] = "stopped",
};

const char *cloche_runtime_status_name(enum cloche_runtime_status status)
{
    return (size_t)status < ARRAY_SIZE(status_names) ? status_names[status] : NULL;
}

int state_check_id(const char *id, struct error *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.";

    if (text_empty(id) || strlen(id) > RUNTIME_ID_MAX)
        return error_set(err, -EINVAL, "invalid container ID format: '%s' is empty or too long",
                         id ? id : "");
    if (id[strspn(id, allowed)] || id[0] == '.')
        return error_set(err, -EINVAL,
                         "invalid container ID format: invalid character in the container ID '%s'",
                         id);
    return 0;
}

/* Whoever can write here decides which processes get signals and which cgroups go: only the caller
 * and root may. The caller's own group is that of nobody else as a rule (and then umask is 002). */
static int check_owner(int fd, const char *name, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_errno(err, errno, "stat %s", name);
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return error_set(err, -EPERM,
                         "state folder %s belongs to user %u: only that user may work with it",
                         name, status.st_uid);
    bool by_group = (status.st_mode & S_IWGRP) && status.st_gid != getegid() && status.st_gid != 0;
    if ((by_group || (status.st_mode & S_IWOTH)) && !(status.st_mode & S_ISVTX))
        return error_set(err, -EPERM,
                         "state folder %s may be written to by others (mode %03o): chmod go-w it",
                         name, status.st_mode & 0777);
    return fd;
}

/* Takes fd over. */
static int checked(int fd, const char *name, struct error *err)
{
    int r = check_owner(fd, name, err);

    if (r < 0)
        close(fd);
    return r;
}

static int open_root(const char *root, bool create, struct error *err)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && create) {
        int r = file_mkdir_parents(root, 0711, err);
        if (r < 0)
            return r;
        fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd < 0 ? error_errno(err, errno, "open %s", root) : checked(fd, root, err);
}

/* The folder of a container that has ended, emptied, for the next one: no id. Freeing a folder's
 * block can mean waiting for the disk (ext4 without a journal, mounted with discard). */
#define SPARE_FOLDER ",spare"

static bool is_empty(int fd)
{
    char entries[512] __attribute__((aligned(8)));
    long n;

    if (lseek(fd, 0, SEEK_SET) < 0)
        return false;
    while ((n = syscall(SYS_getdents64, fd, entries, sizeof(entries))) > 0) {
        const struct dirent64 *entry;
        for (long at = 0; at < n; at += entry->d_reclen) {
            entry = (const struct dirent64 *)(entries + at);
            if (!text_equal(entry->d_name, ".") && !text_equal(entry->d_name, ".."))
                return false;
        }
    }
    return n == 0;
}

int state_retire(const char *root, const char *id, int fd, struct error *err)
{
    _cleanup_close_ int root_fd = open_root(root, false, err);

    if (root_fd < 0)
        return root_fd;
    unlinkat(fd, RECORD_FILE, 0);
    /* Who still works in it holds the lock. */
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_empty(fd) &&
        file_rename_free_at(root_fd, id, SPARE_FOLDER) == 0)
        return 0;
    return file_remove_tree_at(root_fd, id, err);
}

int state_create(const char *root, const char *id, struct error *err)
{
    int r = state_check_id(id, err);
    if (r < 0)
        return r;
    _cleanup_close_ int root_fd = open_root(root, true, err);
    if (root_fd < 0)
        return root_fd;
    if (file_rename_free_at(root_fd, SPARE_FOLDER, id) < 0 && mkdirat(root_fd, id, 0711) < 0) {
        if (errno == EEXIST)
            return error_set(err, -EEXIST, "container with id exists: %s", id);
        return error_errno(err, errno, "create %s/%s", root, id);
    }
    int fd = openat(root_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? error_errno(err, errno, "open %s/%s", root, id) : checked(fd, id, err);
}

/* Numbers as wide as they can get: the text stays in its place when they are written. */
static void make_room(struct buffer *text, const struct runtime_state *state)
{
    _cleanup_free_ char *numbers =
        xasprintf("\"pid\":%" PRId32 ",\"startTime\":%" PRIu64, state->pid, state->start_time);
    /* Within a string the quotes would be escaped. */
    const char *place = strstr(buffer_text(text), numbers);
    _cleanup_buffer_ struct buffer wide = BUFFER_INIT;

    if (!place)
        return;
    size_t before = (size_t)(place - text->data), after = before + strlen(numbers);
    buffer_append(&wide, text->data, before);
    buffer_printf(&wide, "\"pid\":%10" PRId32 ",\"startTime\":%20" PRIu64, state->pid,
                  state->start_time);
    buffer_append(&wide, text->data + after, text->length - after);
    buffer_finish(text);
    *text = wide;
    wide = (struct buffer)BUFFER_INIT;
}

/* runc prints the owner's name. Without NSS only those in /etc/passwd are known. */
static void name_owner(char *ret, size_t size)
{
    _cleanup_free_ char *text = NULL;
    uid_t uid = geteuid();

    snprintf(ret, size, uid ? "#%u" : "root", uid);
    if (uid == 0 || file_read_at(AT_FDCWD, "/etc/passwd", PASSWD_FILE_MAX, &text, NULL, NULL) < 0)
        return;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        char *name = strsep(&line, ":"), *password = strsep(&line, ":");
        uint64_t number;
        if (password && line && name[0] &&
            text_to_u64(strsep(&line, ":"), 0, UINT32_MAX, &number) == 0 && number == uid) {
            snprintf(ret, size, "%s", name);
            return;
        }
    }
}

/* made and pointers: room for each hierarchy. */
static void list_made(struct cgroup *cgroup, struct runtime_state *state, struct runtime_made *made,
                      struct runtime_made **pointers)
{
    state->cgroup_made_depth = cgroup->count ? cgroup->hierarchies[0].made_depth : 0;
    state->cgroup_made_elsewhere = pointers;
    for (size_t i = 1; i < cgroup->count; i++) {
        struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        size_t n = state->cgroup_made_elsewhere_count;
        if (hierarchy->made_depth == state->cgroup_made_depth)
            continue;
        made[n] =
            (struct runtime_made){.hierarchy = hierarchy->name, .depth = hierarchy->made_depth};
        pointers[n] = &made[n];
        state->cgroup_made_elsewhere_count++;
    }
}

int state_write(struct container *container, pid_t pid, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    char owner[64];
    struct runtime_state state = {
        .format_version = RUNTIME_FORMAT_VERSION,
        .oci_version = (char *)(uintptr_t)RUNTIME_SPEC_VERSION,
        .id = (char *)(uintptr_t)container->id,
        .bundle = container->bundle,
        .rootfs = container->rootfs,
        .pid = pid,
        .created = container->created,
        .owner = owner,
        .cgroup_path = container->cgroup.path,
        .systemd_unit = container->cgroup.unit,
        .has_systemd_user = container->cgroup.user_manager,
        .systemd_user = container->cgroup.user_manager,
        .own_pid_namespace = container->namespaces.create & CLONE_NEWPID,
        .has_shared_root = container->shared_root,
        .shared_root = container->shared_root,
        .no_new_keyring = container->no_new_keyring,
        .has_no_new_keyring = container->no_new_keyring,
        .rdt_was_there = container->rdt_was_there,
        .has_rdt_was_there = container->rdt_was_there,
        .annotations = container->config->annotations,
    };

    struct runtime_made made[CGROUP_HIERARCHIES_MAX], *pointers[CGROUP_HIERARCHIES_MAX];

    name_owner(owner, sizeof(owner));
    list_made(&container->cgroup, &state, made, pointers);
    if (pid) {
        int r = process_start_time(pid, &state.start_time);
        if (r < 0)
            return error_errno(err, -r, "the container's process ended");
    }
    runtime_state_write(&state, &text);
    make_room(&text, &state);
    if (!container->record_room)
        return record_create(container->state_fd, &text, container->config_text,
                             container->config_length, &container->record_room, err);
    return record_update(container->state_fd, &text, container->record_room, container->config_text,
                         container->config_length, err);
}

bool state_never_executed(pid_t pid)
{
    const uint64_t forked_without_execution = 0x40; /* PF_FORKNOEXEC of linux/sched.h */
    char state;
    uint64_t flags;

    return process_stat(pid, 9, &state, &flags) == 0 && (flags & forked_without_execution);
}

static bool is_frozen(const struct stored *stored)
{
    struct cgroup cgroup;
    bool frozen;

    if (cgroup_open_for(&cgroup, stored->state->cgroup_path, "freezer", NULL) < 0)
        return false;
    frozen = cgroup.ops->is_frozen(&cgroup) > 0;
    cgroup_finish(&cgroup);
    return frozen;
}

/* The pidfd first, then the start time: a number that was taken by another process in between is
 * seen. */
static void find_status(struct stored *stored)
{
    const struct runtime_state *state = stored->state;
    uint64_t start_time;

    stored->status = state->pid ? CLOCHE_RUNTIME_STOPPED : CLOCHE_RUNTIME_CREATING;
    if (!state->pid)
        return;
    stored->pidfd = kernel_pidfd_open(state->pid);
    if (stored->pidfd < 0 || process_start_time(state->pid, &start_time) < 0 ||
        start_time != state->start_time) {
        close_fd(stored->pidfd);
        stored->pidfd = -1;
        return;
    }
    /* A created container can be paused too: resume must find it so. */
    if (is_frozen(stored))
        stored->status = CLOCHE_RUNTIME_PAUSED;
    else
        stored->status = faccessat(stored->fd, STATE_FIFO, F_OK, 0) == 0 ? CLOCHE_RUNTIME_CREATED
                                                                         : CLOCHE_RUNTIME_RUNNING;
}

static int open_stored(struct stored *stored, const char *root, const char *id, struct error *err)
{
    stored->root_fd = open_root(root, false, err);
    if (stored->root_fd < 0)
        return stored->root_fd;
    stored->fd = openat(stored->root_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (stored->fd < 0)
        return -errno;
    return check_owner(stored->fd, id, err);
}

/* The folder is one of a name that was opened before: it can be another container's by now. */
static int read_record(struct stored *stored, const char *id, struct error *err)
{
    runtime_state_free(stored->state);
    stored->state = NULL;
    record_finish(&stored->record);
    int r = record_read(stored->fd, &stored->record, err);

    if (r == 0)
        r = runtime_state_parse(stored->record.state, strlen(stored->record.state), RECORD_FILE,
                                &stored->state, err);
    if (r == 0 && stored->state->format_version > RUNTIME_FORMAT_VERSION)
        r = error_set(err, -ENOTSUP,
                      "%s has format version %u, this program knows %d: it is too old for this "
                      "container",
                      RECORD_FILE, stored->state->format_version, RUNTIME_FORMAT_VERSION);
    if (r == 0 && !text_equal(stored->state->id, id))
        r = error_set(err, -ESTALE, "the folder is another container's by now");
    return r;
}

static int load(struct stored *stored, const char *root, const char *id, bool lock,
                struct error *err)
{
    *stored = (struct stored){.fd = -1, .root_fd = -1, .pidfd = -1};
    int r = state_check_id(id, err);
    if (r < 0)
        return r;
    r = open_stored(stored, root, id, err);
    if (r < 0) {
        state_finish(stored);
        return r == -EPERM ? r : error_set(err, -ENOENT, "container does not exist");
    }
    r = lock && flock(stored->fd, LOCK_EX) < 0 ? error_errno(err, errno, "lock the container")
                                               : read_record(stored, id, err);
    if (r < 0) {
        if (r == -ESTALE)
            r = error_set(err, -ENOENT, "container does not exist");
        else if (r != -ENOENT)
            error_context(err, "container %s", id);
        else
            error_set(err, r,
                      "container %s is being created, or was left half made: delete --force", id);
        state_finish(stored);
        return r;
    }
    find_status(stored);
    return 0;
}

int state_load(struct stored *stored, const char *root, const char *id, struct error *err)
{
    return load(stored, root, id, false, err);
}

int state_load_locked(struct stored *stored, const char *root, const char *id, struct error *err)
{
    return load(stored, root, id, true, err);
}

int state_load_config(const struct stored *stored, struct oci_config **ret, struct error *err)
{
    int r = oci_config_parse(stored->record.config, stored->record.config_length, RECORD_FILE, ret,
                             err);

    if (r < 0)
        return r;
    config_modernize(*ret);
    annotations_apply(*ret);
    users_fill_maps((*ret)->linux);
    return 0;
}

int state_open_cgroup(const struct stored *stored, struct cgroup *ret, struct error *err)
{
    const struct runtime_state *state = stored->state;
    int r = cgroup_open(ret, state->cgroup_path, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ret->count; i++) {
        struct cgroup_hierarchy *hierarchy = &ret->hierarchies[i];
        hierarchy->made_depth = state->cgroup_made_depth;
        for (size_t k = 0; k < state->cgroup_made_elsewhere_count; k++) {
            if (text_equal(state->cgroup_made_elsewhere[k]->hierarchy, hierarchy->name))
                hierarchy->made_depth = state->cgroup_made_elsewhere[k]->depth;
        }
    }
    if (state->systemd_unit) {
        ret->unit = xstrdup(state->systemd_unit);
        ret->user_manager = state->systemd_user;
    }
    return 0;
}

void state_finish(struct stored *stored)
{
    runtime_state_free(stored->state);
    record_finish(&stored->record);
    close_fd(stored->fd);
    close_fd(stored->root_fd);
    close_fd(stored->pidfd);
    *stored = (struct stored){.fd = -1, .root_fd = -1, .pidfd = -1};
}

int state_remove(const char *root, const char *id, struct error *err)
{
    _cleanup_close_ int root_fd = open_root(root, false, err);

    if (root_fd < 0)
        return root_fd;
    return file_remove_tree_at(root_fd, id, err);
}

void state_for_hooks(const struct runtime_state *state, const char *status, pid_t pid,
                     struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    json_writer_key(&writer, "ociVersion");
    json_writer_string(&writer, state->oci_version);
    json_writer_key(&writer, "id");
    json_writer_string(&writer, state->id);
    json_writer_key(&writer, "status");
    json_writer_string(&writer, status);
    json_writer_key(&writer, "pid");
    json_writer_integer(&writer, pid);
    json_writer_key(&writer, "bundle");
    json_writer_string(&writer, state->bundle);
    if (state->annotations) {
        json_writer_key(&writer, "annotations");
        json_writer_value(&writer, &json_string_map_type, state->annotations);
    }
    json_writer_object_end(&writer);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int runtime_list(const char *root, char ***ret, struct error *err)
{
    char **names = NULL;
    _cleanup_closedir_ DIR *directory = opendir(root);

    if (!directory && errno != ENOENT)
        return error_errno(err, errno, "open %s", root);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (state_check_id(entry->d_name, NULL) == 0)
            strv_append(&names, entry->d_name);
    }
    if (names)
        qsort(names, strv_length(names), sizeof(*names), compare_names);
    *ret = names;
    return 0;
}

/* What a caller gets, in front of what it points into. */
struct owned_info {
    struct cloche_runtime_info info;
    struct runtime_state *state;
    const char **annotations;
};

static void fill_info(struct owned_info *owned, const struct stored *stored)
{
    const struct runtime_state *state = owned->state;
    const struct json_string_map *map = state->annotations;

    owned->info = (struct cloche_runtime_info){
        .oci_version = state->oci_version,
        .id = state->id,
        .bundle = state->bundle,
        .rootfs = state->rootfs,
        .created = state->created,
        .owner = state->owner,
        .pid = stored->status == CLOCHE_RUNTIME_STOPPED ? 0 : state->pid,
        .status = stored->status,
        .systemd_unit = state->systemd_unit,
    };
    if (!map || !map->count)
        return;
    owned->annotations = xnew_array(const char *, 2 * map->count + 1);
    for (size_t i = 0; i < map->count; i++) {
        owned->annotations[2 * i] = map->keys[i];
        owned->annotations[2 * i + 1] = map->values[i];
    }
    owned->info.annotations = owned->annotations;
}

int runtime_info(const char *root, const char *id, struct cloche_runtime_info **ret,
                 struct error *err)
{
    struct stored stored;
    int r = state_load(&stored, root, id, err);

    if (r < 0)
        return r;
    struct owned_info *owned = xnew(struct owned_info);
    owned->state = steal_ptr(stored.state);
    fill_info(owned, &stored);
    state_finish(&stored);
    *ret = &owned->info;
    return 0;
}

void cloche_runtime_info_free(struct cloche_runtime_info *info)
{
    struct owned_info *owned = (struct owned_info *)info;

    if (!owned)
        return;
    runtime_state_free(owned->state);
    free(owned->annotations);
    free(owned);
}

int runtime_pidfd(const char *root, const char *id, struct error *err)
{
    struct stored stored;
    int r = state_load(&stored, root, id, err);

    if (r < 0)
        return r;
    int fd = steal_fd(&stored.pidfd);
    state_finish(&stored);
    return fd < 0 ? error_set(err, -ESRCH, "container not running") : fd;
}

static void write_field(struct json_writer *writer, const char *key, const char *value)
{
    json_writer_key(writer, key);
    json_writer_string(writer, value ? value : "");
}

void runtime_info_write(const struct cloche_runtime_info *info, enum json_layout layout,
                        struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, layout);
    json_writer_object_begin(&writer);
    write_field(&writer, "ociVersion", info->oci_version);
    write_field(&writer, "id", info->id);
    json_writer_key(&writer, "pid");
    json_writer_integer(&writer, info->pid);
    write_field(&writer, "status", cloche_runtime_status_name(info->status));
    write_field(&writer, "bundle", info->bundle);
    write_field(&writer, "rootfs", info->rootfs);
    write_field(&writer, "created", info->created);
    if (info->annotations) {
        json_writer_key(&writer, "annotations");
        json_writer_object_begin(&writer);
        for (const char *const *item = info->annotations; *item; item += 2)
            write_field(&writer, item[0], item[1]);
        json_writer_object_end(&writer);
    }
    if (info->systemd_unit)
        write_field(&writer, "systemd-scope", info->systemd_unit);
    write_field(&writer, "owner", info->owner);
    json_writer_object_end(&writer);
}
