#include "path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>

#include "limits.h"

enum { LINKS_FOLLOWED_MAX = 255 };

/* Appends a component, or takes the last one off for "..". */
static void add_component(struct buffer *clean, const char *component, size_t length)
{
    if (length == 2 && component[0] == '.' && component[1] == '.') {
        const char *slash = clean->length ? memrchr(clean->data, '/', clean->length) : NULL;
        clean->length = slash ? (size_t)(slash - clean->data) : 0;
    } else if (length && !(length == 1 && component[0] == '.')) {
        if (clean->length)
            buffer_append_char(clean, '/');
        buffer_append(clean, component, length);
    }
}

static char *take_text(struct buffer *text)
{
    buffer_reserve(text, 1);
    text->data[text->length] = '\0';
    return buffer_steal(text);
}

char *path_clean(const char *path)
{
    struct buffer clean = BUFFER_INIT;

    for (const char *at = path; *at;) {
        size_t length = strcspn(at, "/");
        add_component(&clean, at, length);
        at += length + (at[length] == '/');
    }
    return take_text(&clean);
}

static bool ends_in_dot(const char *path)
{
    return text_equal(path, ".") || text_ends_with(path, "/.");
}

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int open_followed(int root_fd, const char *path, struct place *place)
{
    place->fd = file_open_in_root(root_fd, path[0] ? path : ".", O_PATH | O_DIRECTORY, 0);
    return place->fd;
}

static int open_unfollowed(int root_fd, const char *path, struct place *place)
{
    const char *name = last_component(path);
    _cleanup_free_ char *parent = xstrndup(path, (size_t)(name - path));

    place->parent_fd =
        file_open_in_root(root_fd, parent[0] ? parent : ".", O_PATH | O_DIRECTORY, 0);
    if (place->parent_fd < 0)
        return place->parent_fd;
    place->fd = openat(place->parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return place->fd < 0 ? -errno : 0;
}

int place_find(int root_fd, const char *path, struct place *ret, struct error *err)
{
    _cleanup_place_ struct place place = {.parent_fd = -1, .fd = -1};
    bool dot = ends_in_dot(path), folder = dot || text_ends_with(path, "/");

    if (strlen(path) > PATH_LENGTH_MAX)
        return error_set(err, -ENAMETOOLONG, "the path is longer than %d bytes", PATH_LENGTH_MAX);
    place.path = path_clean(path);
    place.name = dot ? "." : place.path[0] ? last_component(place.path) : "/";
    int r = folder || !place.path[0] ? open_followed(root_fd, place.path, &place)
                                     : open_unfollowed(root_fd, place.path, &place);
    if (r >= 0 && fstat(place.fd, &place.status) < 0)
        r = -errno;
    if (r < 0)
        return error_errno(err, -r, "%s", path);
    *ret = place;
    place = (struct place){.parent_fd = -1, .fd = -1};
    return 0;
}

void place_finish(struct place *place)
{
    free(place->path);
    close_fd(place->parent_fd);
    close_fd(place->fd);
    *place = (struct place){.parent_fd = -1, .fd = -1};
}

/* --- where a link leads ----------------------------------------------------------------------- */

/* The target of the link at `path`, whose other components are no links; NULL: it is none. */
static char *read_link(int root_fd, const char *path)
{
    char target[PATH_MAX];
    ssize_t n = path[0] ? readlinkat(root_fd, path, target, sizeof(target) - 1) : -1;

    if (n < 0)
        return NULL;
    target[n] = '\0';
    return xstrdup(target);
}

/* All links followed inside the root by words, also to what is not there; what it says is for the
 * client to ask again with. NULL: too many links. */
static char *evaluate(int root_fd, const char *path)
{
    _cleanup_buffer_ struct buffer done = BUFFER_INIT;
    char *rest = xstrdup(path);
    int links = 0;

    for (const char *at = rest; *at;) {
        size_t length = strcspn(at, "/"), before = done.length;
        add_component(&done, at, length);
        at += length + (at[length] == '/');
        buffer_append_char(&done, '\0');
        done.length--;
        _cleanup_free_ char *target = read_link(root_fd, done.data);
        if (!target)
            continue;
        if (++links > LINKS_FOLLOWED_MAX) {
            free(rest);
            return NULL;
        }
        done.length = target[0] == '/' ? 0 : before;
        char *next = xasprintf("%s/%s", target, at);
        free(rest);
        at = rest = next;
    }
    free(rest);
    return take_text(&done);
}

struct image_worker_path_stat *place_describe(int root_fd, const struct place *place)
{
    struct image_worker_path_stat *stat = xnew(struct image_worker_path_stat);

    stat->name = xstrdup(place->name);
    stat->size = place->status.st_size;
    stat->mode = place->status.st_mode;
    stat->mtime =
        (int64_t)place->status.st_mtim.tv_sec * 1000000000 + place->status.st_mtim.tv_nsec;
    if (S_ISLNK(place->status.st_mode)) {
        _cleanup_free_ char *target = evaluate(root_fd, place->path);
        stat->link_target = xasprintf("/%s", target ? target : place->path);
    }
    return stat;
}
