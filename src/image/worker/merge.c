/*
 * Several layers become one that does to those below what they did together. Their folders are
 * walked side by side: of each name the highest layer's is the one that is seen, and folders of the
 * same name are one, down to the first that hides those below it. What the layers only hid from
 * each other leaves no trace: a whiteout or an opaque mark is written where there is something
 * below.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "commit.h"
#include "limits.h"
#include "whiteout.h"
#include "worker.h"

/* One folder as the layers have it, highest first. */
struct stack {
    int *fds;
    size_t count;
    bool hides; /* what is below its last layer is not seen */
};

static void stack_finish(struct stack *stack)
{
    for (size_t i = 0; i < stack->count; i++)
        close_fd(stack->fds[i]);
    free(stack->fds);
    *stack = (struct stack){.count = 0};
}

static int stack_add(struct stack *stack, int parent_fd, const char *name, struct error *err)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open %s", name);
    stack->fds = xrealloc(stack->fds, stack->count + 1, sizeof(*stack->fds));
    stack->fds[stack->count++] = fd;
    return 0;
}

static int stack_open(struct stack *stack, int layers_fd, char *const *names, size_t count,
                      struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = strchr(names[i], '/') || names[i][0] == '.'
                ? error_set(err, -EINVAL, "'%s' is no layer", names[i])
                : stack_add(stack, layers_fd, names[i], err);
    return r;
}

/* What a name is, seen through the stack. */
struct seen {
    struct stack folders; /* count 0: it is no folder */
    struct stat status;   /* of what is no folder */
    int fd;               /* the folder that it is in; -1: there is no such name */
    bool whiteout;        /* fd is -1, and it is hidden from those below, too */
};

static int look(const struct stack *stack, const char *name, struct seen *seen, struct error *err)
{
    int r = 0;

    *seen = (struct seen){.fd = -1};
    for (size_t i = 0; r == 0 && i < stack->count && !seen->folders.hides; i++) {
        struct stat status;
        if (fstatat(stack->fds[i], name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
            r = errno == ENOENT ? 0 : error_errno(err, errno, "%s", name);
            continue;
        }
        seen->folders.hides = !S_ISDIR(status.st_mode);
        if (S_ISDIR(status.st_mode)) {
            r = stack_add(&seen->folders, stack->fds[i], name, err);
            if (r == 0)
                seen->folders.hides =
                    whiteout_is_opaque(seen->folders.fds[seen->folders.count - 1]);
        } else if (seen->folders.count == 0 && whiteout_is_device(&status)) {
            seen->whiteout = true;
        } else if (seen->folders.count == 0) {
            seen->status = status;
            seen->fd = stack->fds[i];
        }
    }
    if (r < 0)
        stack_finish(&seen->folders);
    return r;
}

/* --- names ------------------------------------------------------------------------------------ */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, each once: the same layers give the same digest. Owned. */
static int list_names(const struct stack *stack, char ***ret, struct error *err)
{
    char **names = NULL;
    size_t count = 0, kept = 0;

    for (size_t i = 0; i < stack->count; i++) {
        struct dirent **entries = NULL;
        int found = scandirat(stack->fds[i], ".", &entries, NULL, NULL);
        if (found < 0) {
            strv_free(names);
            return error_errno(err, errno, "list a folder");
        }
        names = xrealloc(names, count + (size_t)found + 1, sizeof(*names));
        for (int j = 0; j < found; j++) {
            const char *name = entries[j]->d_name;
            if (!text_equal(name, ".") && !text_equal(name, ".."))
                names[count++] = xstrdup(name);
            free(entries[j]);
        }
        free(entries);
        names[count] = NULL;
    }
    qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 0; i < count; i++) {
        if (kept && text_equal(names[kept - 1], names[i]))
            free(names[i]);
        else
            names[kept++] = names[i];
    }
    if (names)
        names[kept] = NULL;
    *ret = names;
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static int write_stack(struct commit *commit, const struct stack *stack, const struct stack *below,
                       const char *path, int depth, struct error *err);

static int write_seen(struct commit *commit, const struct seen *seen, const struct seen *below,
                      const char *folder, const char *name, int depth, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s", folder, folder[0] ? "/" : "", name);

    if (seen->folders.count)
        return write_stack(commit, &seen->folders, &below->folders, path, depth + 1, err);
    if (seen->fd >= 0)
        return commit_write_file(commit, seen->fd, name, path, &seen->status, err);
    if (seen->whiteout && (below->folders.count || below->fd >= 0))
        return commit_write_mark(commit, folder, WHITEOUT_PREFIX, name, err);
    return 0;
}

static int write_name(struct commit *commit, const struct stack *stack, const struct stack *below,
                      const char *folder, const char *name, int depth, struct error *err)
{
    struct seen seen, under = {.fd = -1};
    int r = look(stack, name, &seen, err);

    if (r < 0)
        return r;
    if (!stack->hides)
        r = look(below, name, &under, err);
    if (r == 0)
        r = write_seen(commit, &seen, &under, folder, name, depth, err);
    stack_finish(&seen.folders);
    stack_finish(&under.folders);
    return r;
}

static int write_stack(struct commit *commit, const struct stack *stack, const struct stack *below,
                       const char *path, int depth, struct error *err)
{
    _cleanup_strv_ char **names = NULL;
    int r = commit_write_folder(commit, stack->fds[0], path, stack->hides && below->count, err);

    if (r == 0 && depth > PATH_DEPTH_MAX)
        r = error_set(err, -ENAMETOOLONG, "%.200s...: more than %d folders deep", path,
                      PATH_DEPTH_MAX);
    if (r == 0)
        r = list_names(stack, &names, err);
    for (size_t i = 0; r == 0 && names && names[i]; i++)
        r = write_name(commit, stack, below, path, names[i], depth, err);
    return r;
}

int merge_write(struct commit *commit, int layers_fd, const struct image_worker_merged *merged,
                struct error *err)
{
    struct stack stack = {.count = 0}, below = {.count = 0};
    int r = stack_open(&stack, layers_fd, merged->layers, merged->layers_count, err);

    if (r == 0)
        r = stack_open(&below, layers_fd, merged->below, merged->below_count, err);
    if (r == 0 && stack.count == 0)
        r = error_set(err, -EINVAL, "there is no layer to make one of");
    if (r == 0)
        r = write_stack(commit, &stack, &below, "", 0, err);
    stack_finish(&stack);
    stack_finish(&below);
    return r;
}
