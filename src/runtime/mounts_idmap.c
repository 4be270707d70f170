/*
 * Idmapped mounts: files show with other owners than they have on disk (mount_setattr(2),
 * MOUNT_ATTR_IDMAP).
 *
 * A mapping is given to the kernel as a user namespace that has it. For one that a mount has of its
 * own, a process is started in a new user namespace and ended again when its namespace is open. The
 * right to map a mount comes with that over the file system, which the container's user namespace
 * does not have: then the parent does it, on the detached mount, before the child or on its demand.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "kernel.h"
#include "mounts.h"

enum { RANGES_MAX = 340 }; /* user_namespaces(7) */

static int append_range(struct buffer *map, uint64_t inside, uint64_t outside, uint64_t size)
{
    if (size == 0 || inside + size - 1 > UINT32_MAX || outside + size - 1 > UINT32_MAX)
        return -ERANGE;
    buffer_printf(map, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", inside, outside, size);
    return 0;
}

/* Where the container's user is on the host; -ENOENT: nowhere, or not all of the range. */
static int64_t host_id(struct oci_id_mapping *const *map, size_t count, uint64_t id, uint64_t size)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t first = map[i]->container_id;
        if (id >= first && id - first < map[i]->size && size <= map[i]->size - (id - first))
            return (int64_t)(map[i]->host_id + (id - first));
    }
    return -ENOENT;
}

/* "0-1000-10": from the file system's 0 on to the host's 1000, ten of them. "@0-5-10": to where the
 * container's 5 is on the host. */
static int append_text_range(struct buffer *map, const char *text,
                             struct oci_id_mapping *const *users, size_t users_count)
{
    bool relative = text[0] == '@';
    _cleanup_strv_ char **parts = strv_split(text + relative, '-');
    uint64_t numbers[3];

    if (strv_length(parts) != 3)
        return -EINVAL;
    for (int i = 0; i < 3; i++) {
        if (text_to_u64(parts[i], 0, UINT32_MAX, &numbers[i]) < 0)
            return -EINVAL;
    }
    if (relative) {
        int64_t id = host_id(users, users_count, numbers[1], numbers[2]);
        if (id < 0)
            return (int)id;
        numbers[1] = (uint64_t)id;
    }
    return append_range(map, numbers[0], numbers[1], numbers[2]);
}

/* The part of `ranges` that starts with the key, e.g. "uids=", as lines of a uid_map. */
static int map_of_ranges(const char *ranges, const char *key, struct oci_id_mapping *const *users,
                         size_t users_count, struct buffer *map, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(ranges, ';');

    for (char **part = parts; part && *part; part++) {
        if (!text_starts_with(*part, key))
            continue;
        _cleanup_strv_ char **items = strv_split(*part + strlen(key), '#');
        if (strv_length(items) > RANGES_MAX)
            return error_set(err, -E2BIG, "options: idmap: more than %d ranges", RANGES_MAX);
        for (char **item = items; item && *item; item++) {
            int r = append_text_range(map, *item, users, users_count);
            if (r == -ENOENT)
                return error_set(err, r, "options: idmap: the container has no users for '%s'",
                                 *item);
            if (r < 0)
                return error_set(err, r, "options: idmap: '%s' is not a range (FIRST-FIRST-SIZE)",
                                 *item);
        }
    }
    return 0;
}

static int map_of_entries(struct oci_id_mapping *const *list, size_t count, const char *field,
                          struct buffer *map, struct error *err)
{
    if (count > RANGES_MAX)
        return error_set(err, -E2BIG, "%s: more than %d", field, RANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        if (append_range(map, list[i]->container_id, list[i]->host_id, list[i]->size) < 0)
            return error_set(err, -ERANGE, "%s[%zu]: is not a range of users", field, i);
    }
    return 0;
}

/* The half that was not given. */
static int map_as_container(struct oci_id_mapping *const *list, size_t count, struct buffer *map,
                            struct error *err)
{
    if (!count)
        return append_range(map, 0, 0, UINT32_MAX);
    return map_of_entries(list, count, "linux.uidMappings", map, err);
}

static int collect_maps(const struct container *container, const struct mount_entry *entry,
                        struct buffer *uids, struct buffer *gids, struct error *err)
{
    const struct oci_mount *mount = entry->mount;
    const struct oci_linux *config = container->config->linux;
    const char *ranges = entry->options.id_map_ranges;
    int r;

    if (mount->uid_mappings_count) {
        r = map_of_entries(mount->uid_mappings, mount->uid_mappings_count, "uidMappings", uids,
                           err);
        return r < 0 ? r
                     : map_of_entries(mount->gid_mappings, mount->gid_mappings_count, "gidMappings",
                                      gids, err);
    }
    r = map_of_ranges(ranges, "uids=", config->uid_mappings, config->uid_mappings_count, uids, err);
    if (r == 0)
        r = map_of_ranges(ranges, "gids=", config->gid_mappings, config->gid_mappings_count, gids,
                          err);
    if (r == 0 && !uids->length && !gids->length)
        r = error_set(err, -EINVAL, "options: idmap: '%s' has neither uids= nor gids=", ranges);
    if (r == 0 && !uids->length)
        r = map_as_container(config->uid_mappings, config->uid_mappings_count, uids, err);
    if (r == 0 && !gids->length)
        r = map_as_container(config->gid_mappings, config->gid_mappings_count, gids, err);
    return r;
}

static int write_map(int proc_fd, pid_t pid, const char *file, const struct buffer *map,
                     struct error *err)
{
    char path[48];

    if (!map->length)
        return 0;
    snprintf(path, sizeof(path), "%d/%s", pid, file);
    return file_write_existing_at(proc_fd, path, map->data, map->length, err);
}

static int open_users(int proc_fd, pid_t pid, struct error *err)
{
    char path[48];

    snprintf(path, sizeof(path), "%d/ns/user", pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open the user namespace of %d", pid) : fd;
}

int mounts_new_mapping(struct container *container, const struct mount_entry *entry,
                       struct error *err)
{
    _cleanup_buffer_ struct buffer uids = BUFFER_INIT, gids = BUFFER_INIT;
    int r = collect_maps(container, entry, &uids, &gids, err);

    if (r < 0)
        return r;
    pid_t pid = kernel_clone(CLONE_NEWUSER, -1, NULL);
    if (pid < 0)
        return error_errno(err, -pid, "start a process in a user namespace for the mapping");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    r = write_map(container->proc_fd, pid, "gid_map", &gids, err);
    if (r == 0)
        r = write_map(container->proc_fd, pid, "uid_map", &uids, err);
    if (r == 0)
        r = open_users(container->proc_fd, pid, err);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return r;
}

int mounts_mapping_of(const struct container *container, const struct mount_entry *entry)
{
    if (entry->user_fd >= 0)
        return entry->user_fd;
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        if (namespace_kinds[i].flag == CLONE_NEWUSER)
            return container->namespaces.fds[i];
    }
    return -1;
}

int mounts_set_mapping(int mount_fd, const struct mount_entry *entry, int user_fd,
                       struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP,
                              .userns_fd = (uint64_t)(unsigned)user_fd};
    int r =
        kernel_mount_setattr(mount_fd, entry->options.id_map_recursive ? AT_RECURSIVE : 0, &attr);

    if (r == -EINVAL) {
        error_set(err, r,
                  "source: %s cannot be id-mapped: its file system does not support it, or a mount "
                  "below it",
                  entry->source);
        error_hint(err, "without idmap and mappings it can be mounted as it is");
        return r;
    }
    return r < 0 ? error_errno(err, -r, "source: id-map %s", entry->source) : 0;
}

bool mounts_needs_mapping_by_parent(const struct container *container,
                                    const struct mount_entry *entry)
{
    return entry->options.id_map && (container_own_namespaces(container) & CLONE_NEWUSER) &&
           (entry->source_in_root || (container->namespaces.join & CLONE_NEWNS));
}

static bool waits_for_users(const struct mount_entry *entry)
{
    return entry->options.id_map && entry->user_fd < 0 && entry->source_fd >= 0;
}

int mounts_map_users(struct container *container, struct error *err)
{
    _cleanup_close_ int user_fd = -1;

    for (size_t i = 0; i < container->mounts_count; i++) {
        const struct mount_entry *entry = &container->mounts[i];
        if (!waits_for_users(entry))
            continue;
        if (user_fd < 0)
            user_fd = open_users(container->proc_fd, container->pid, err);
        int r = user_fd < 0 ? user_fd : mounts_set_mapping(entry->source_fd, entry, user_fd, err);
        if (r < 0) {
            error_context(err, "mounts[%zu] (%s)", i, entry->mount->destination);
            return r;
        }
    }
    return 0;
}

struct map_request {
    uint32_t index; /* into the entries */
};

struct map_reply {
    int32_t result; /* 0 or -errno */
    char message[256];
};

static int serve_one(struct container *container, uint32_t index, int mount_fd, struct error *err)
{
    _cleanup_close_ int own_fd = -1;

    if (index >= container->mounts_count)
        return error_set(err, -EPROTO, "no such mount");
    const struct mount_entry *entry = &container->mounts[index];
    int user_fd = mounts_mapping_of(container, entry);
    if (user_fd < 0)
        user_fd = own_fd = open_users(container->proc_fd, container->pid, err);
    return user_fd < 0 ? user_fd : mounts_set_mapping(mount_fd, entry, user_fd, err);
}

int mounts_serve(struct container *container, struct error *err)
{
    size_t left = 0;

    if (container->map_fds[0] < 0)
        return 0;
    close_fd(steal_fd(&container->map_fds[1]));
    for (size_t i = 0; i < container->mounts_count; i++)
        left += mounts_needs_mapping_by_parent(container, &container->mounts[i]);
    for (; left; left--) {
        _cleanup_error_ struct error failure = ERROR_INIT;
        struct map_request request;
        struct map_reply reply = {0};
        int mount_fd = -1;
        size_t count = 1;
        ssize_t n =
            socket_receive(container->map_fds[0], &request, sizeof(request), &mount_fd, &count);
        if (n == 0) /* it failed before, and says why on the other socket */
            return 0;
        if (n != sizeof(request) || count != 1)
            return error_errno(err, n < 0 ? (int)-n : EPROTO, "receive a mount to be mapped");
        reply.result = serve_one(container, request.index, mount_fd, &failure);
        close_fd(mount_fd);
        snprintf(reply.message, sizeof(reply.message), "%s", error_message(&failure));
        n = socket_send(container->map_fds[0], &reply, sizeof(reply), NULL, 0);
        if (n < 0)
            return n == -EPIPE ? 0 : error_errno(err, (int)-n, "answer that a mount is mapped");
    }
    return 0;
}

int mounts_ask_mapping(struct container *container, const struct mount_entry *entry, int mount_fd,
                       struct error *err)
{
    const struct map_request request = {.index = (uint32_t)(entry - container->mounts)};
    struct map_reply reply;
    size_t count = 0;
    ssize_t n = socket_send(container->map_fds[1], &request, sizeof(request), &mount_fd, 1);

    if (n >= 0)
        n = socket_receive(container->map_fds[1], &reply, sizeof(reply), NULL, &count);
    if (n != sizeof(reply))
        return error_errno(err, n < 0 ? (int)-n : EPIPE, "have a mount mapped");
    reply.message[sizeof(reply.message) - 1] = '\0';
    return reply.result < 0 ? error_set(err, reply.result, "%s", reply.message) : 0;
}
