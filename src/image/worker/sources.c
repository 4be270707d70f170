/* Which files the sources of a COPY or ADD are. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <dockerfile/ignore.h>

#include "building.h"
#include "limits.h"

void sources_finish(struct sources *sources)
{
    strv_free(sources->paths);
    *sources = (struct sources){0};
}

static void add_source(struct sources *sources, const char *path)
{
    strv_append(&sources->paths, path);
    sources->count++;
}

/* "./a//b/" -> "a/b", "/" -> ".". Negative: ".." leads out. */
static int clean_source(const char *path, char **ret)
{
    _cleanup_strv_ char **parts = strv_split(path, '/');
    char **kept = NULL;
    size_t count = 0;
    bool out = false;

    for (size_t i = 0; parts && parts[i]; i++) {
        if (!parts[i][0] || text_equal(parts[i], "."))
            continue;
        if (text_equal(parts[i], "..")) {
            out = out || count == 0;
            if (count) {
                free(kept[--count]);
                kept[count] = NULL;
            }
            continue;
        }
        strv_append(&kept, parts[i]);
        count++;
    }
    *ret = count ? strv_join(kept, "/") : xstrdup(".");
    strv_free(kept);
    return out ? -EPERM : 0;
}

int source_open(int source_fd, const char *path, struct stat *ret_status, struct error *err)
{
    int fd = file_open_in_root(source_fd, path, O_PATH, 0);

    if (fd < 0)
        return error_errno(err, -fd, "open %s", path);
    if (fstat(fd, ret_status) < 0) {
        int r = error_errno(err, errno, "look at %s", path);
        close_fd(fd);
        return r;
    }
    return fd;
}

/* --- wildcards -------------------------------------------------------------------------------- */

static size_t count_slashes(const char *text)
{
    size_t count = 0;

    for (; *text; text++)
        count += *text == '/';
    return count;
}

static int match_folder(int folder_fd, const char *folder, const char *pattern, size_t depth,
                        struct sources *sources, struct error *err);

static int match_item(int folder_fd, const char *folder, const char *name, const char *pattern,
                      size_t depth, struct sources *sources, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s", folder, folder[0] ? "/" : "", name);

    if (depth == 0) {
        if (glob_match(pattern, path))
            add_source(sources, path);
        return 0;
    }
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? 0 : match_folder(fd, path, pattern, depth - 1, sources, err);
}

/* Takes folder_fd over. A pattern fits paths with as many components as it has. */
static int match_folder(int folder_fd, const char *folder, const char *pattern, size_t depth,
                        struct sources *sources, struct error *err)
{
    _cleanup_close_ int fd = folder_fd;
    struct dirent **names = NULL;
    int count = scandirat(fd, ".", &names, NULL, alphasort), r = 0;

    if (count < 0)
        return error_errno(err, errno, "list %s", folder);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = match_item(fd, folder, name, pattern, depth, sources, err);
        free(names[i]);
    }
    free(names);
    return r;
}

static int find_matches(int source_fd, const char *pattern, struct sources *sources,
                        struct error *err)
{
    size_t depth = count_slashes(pattern);

    if (depth > PATH_DEPTH_MAX)
        return error_set(err, -ENAMETOOLONG, "a pattern of more than %d components",
                         PATH_DEPTH_MAX);
    int fd = openat(source_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open the sources")
                  : match_folder(fd, "", pattern, depth, sources, err);
}

/* --- the whole -------------------------------------------------------------------------------- */

static int find_one(int source_fd, const char *source, bool in_context, struct sources *sources,
                    struct error *err)
{
    _cleanup_free_ char *path = NULL;
    struct stat status;

    if (clean_source(source, &path) < 0 && in_context)
        return error_set(err, -EPERM, "forbidden path outside the build context: %s ()", source);
    if (glob_has_wildcard(path))
        return find_matches(source_fd, path, sources, err);
    _cleanup_close_ int fd = source_open(source_fd, path, &status, NULL);
    if (fd < 0 && in_context)
        return error_set(err, -ENOENT,
                         "file not found in build context or excluded by .dockerignore: stat %s: "
                         "file does not exist",
                         source);
    if (fd < 0)
        return error_set(err, -ENOENT, "stat %s: file does not exist", source);
    add_source(sources, path);
    return 0;
}

int sources_find(int source_fd, const struct build_copy *copy, bool in_context, struct sources *ret,
                 struct error *err)
{
    struct sources sources = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < copy->sources_count; i++)
        r = find_one(source_fd, copy->sources[i], in_context, &sources, err);
    size_t count = sources.count + copy->files_count + copy->remotes_count;
    if (r == 0 && count == 0)
        r = error_set(err, -ENOENT, "no source files were specified");
    if (r == 0 && count > 1 && !text_ends_with(copy->destination, "/"))
        r = error_set(err, -EINVAL,
                      "When using %s with more than one source file, the destination must be a "
                      "directory and end with a /",
                      copy->word);
    if (r < 0)
        sources_finish(&sources);
    else
        *ret = sources;
    return r;
}
