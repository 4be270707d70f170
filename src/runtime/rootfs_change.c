#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "kernel.h"
#include "rootfs_change.h"

enum { MOUNTINFO_MAX = 64 << 20 };

int rootfs_chroot(struct container *container, struct error *err)
{
    if (fchdir(container->root_fd) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return error_errno(err, errno, "enter the root");
    return 0;
}

/* One line of mountinfo, proc_pid_mountinfo(5). */
struct mount_line {
    uint64_t id, parent;
    char *root, *place, *type; /* into the line */
};

static bool parse_line(char *line, struct mount_line *ret)
{
    char *fields[5], *rest = line;

    for (int i = 0; i < 5; i++) {
        fields[i] = strsep(&rest, " ");
        if (!rest)
            return false;
    }
    char *type = strstr(rest, " - ");
    if (!type || text_to_u64(fields[0], 0, UINT64_MAX, &ret->id) < 0 ||
        text_to_u64(fields[1], 0, UINT64_MAX, &ret->parent) < 0)
        return false;
    type += 3;
    type[strcspn(type, " ")] = '\0';
    ret->root = fields[3];
    ret->place = fields[4];
    ret->type = type;
    return true;
}

/* "\040" -> " ", in place. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

struct mount_table {
    struct mount_line *lines; /* owned */
    size_t count;
};

static void parse_table(char *text, struct mount_table *ret)
{
    *ret = (struct mount_table){0};
    for (char *line; (line = strsep(&text, "\n"));) {
        struct mount_line parsed;
        if (!parse_line(line, &parsed))
            continue;
        ret->lines = xrealloc(ret->lines, ret->count + 1, sizeof(*ret->lines));
        ret->lines[ret->count++] = parsed;
    }
}

/* Whether the mount is the container's root or below it. */
static bool is_in_root(const struct mount_table *table, const struct mount_line *line,
                       uint64_t root_id)
{
    for (size_t depth = 0; line && depth < table->count; depth++) {
        if (line->id == root_id)
            return true;
        uint64_t parent = line->parent;
        line = NULL;
        for (size_t i = 0; i < table->count && !line; i++) {
            if (table->lines[i].id == parent)
                line = &table->lines[i];
        }
    }
    return false;
}

static int hide_one(const char *place, struct error *err)
{
    int r = kernel_mount(NULL, place, NULL, MS_SLAVE | MS_REC, NULL);

    if (r == -ENOENT) /* it was below another one */
        return 0;
    if (r == 0)
        r = kernel_umount(place, MNT_DETACH);
    if (r == -EINVAL || r == -EPERM)
        r = kernel_mount("tmpfs", place, "tmpfs", MS_RDONLY, NULL);
    return r < 0 ? error_errno(err, -r, "hide the host's %s", place) : 0;
}

static int hide_host(struct container *container, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    struct mount_table table;
    uint64_t root_mount;
    int r = file_read_at(container->proc_fd, "self/mountinfo", MOUNTINFO_MAX, &text, NULL, err);

    if (r < 0)
        return r;
    r = kernel_mount_id(container->root_fd, &root_mount, NULL);
    if (r < 0)
        return error_errno(err, -r, "stat the root");
    parse_table(text, &table);
    for (size_t i = 0; r == 0 && i < table.count; i++) {
        const struct mount_line *line = &table.lines[i];
        if (!text_equal(line->root, "/") ||
            (!text_equal(line->type, "proc") && !text_equal(line->type, "sysfs")) ||
            is_in_root(&table, line, root_mount))
            continue;
        unescape(line->place);
        r = hide_one(line->place, err);
    }
    free(table.lines);
    return r;
}

static int move_to_top(struct container *container, struct error *err)
{
    _cleanup_close_ int top_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = top_fd < 0 ? -errno : kernel_move_mount(container->root_fd, top_fd);

    return r < 0 ? error_errno(err, -r, "move the root to /") : 0;
}

int rootfs_chroot_hardened(struct container *container, struct error *err)
{
    int r = hide_host(container, err);

    if (r == 0 && container->root_in_place)
        r = move_to_top(container, err);
    return r < 0 ? r : rootfs_chroot(container, err);
}

int rootfs_pivot(struct container *container, struct error *err)
{
    _cleanup_close_ int old_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old_fd < 0 || fchdir(container->root_fd) < 0)
        return error_errno(err, errno, "enter the root");
    /* With both names the same the old root ends up on top of the new one (pivot_root(2), NOTES).
     */
    int r = kernel_pivot_root(".", ".");
    if (r == -EINVAL)
        return rootfs_chroot_hardened(container, err);
    if (r < 0)
        return error_errno(err, -r, "pivot_root");
    if (fchdir(old_fd) < 0)
        return error_errno(err, errno, "enter the old root");
    /* Where rootfsPropagation made it shared, the unmount would reach the host. */
    r = kernel_mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL);
    if (r == 0)
        r = kernel_umount(".", MNT_DETACH);
    if (r < 0)
        return error_errno(err, -r, "detach the host's mounts");
    if (chdir("/") < 0)
        return error_errno(err, errno, "enter the root");
    return 0;
}
