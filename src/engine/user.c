#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "user.h"

enum { FIELDS_MAX = 7 }; /* of a passwd line */

/* One line of passwd or group, split at the colons. The text is the caller's copy. */
struct line {
    char *fields[FIELDS_MAX];
    size_t count;
};

static void line_split(char *text, struct line *line)
{
    line->count = 0;
    while (text && line->count < FIELDS_MAX)
        line->fields[line->count++] = strsep(&text, ":");
}

static bool to_id(const char *text, uint32_t *ret)
{
    uint64_t value;

    if (text_to_u64(text, 0, INT32_MAX, &value) < 0)
        return false;
    *ret = (uint32_t)value;
    return true;
}

struct lookup {
    char *user;  /* owned; NULL: uid 0 */
    char *group; /* owned; NULL: none was asked for */
    char *name;  /* owned; of the user found in passwd */
    struct user result;
};

static void lookup_finish(struct lookup *lookup)
{
    free(lookup->user);
    free(lookup->group);
    free(lookup->name);
    user_finish(&lookup->result);
}

static bool passwd_matches(const struct lookup *lookup, const struct line *line)
{
    uint32_t uid, wanted = 0;

    if (line->count < 4 || !to_id(line->fields[2], &uid))
        return false;
    if (!lookup->user)
        return uid == 0;
    return text_equal(line->fields[0], lookup->user) ||
           (to_id(lookup->user, &wanted) && uid == wanted);
}

/* The first line that matches decides. */
static int lookup_passwd(struct lookup *lookup, const char *passwd, struct error *err)
{
    _cleanup_free_ char *copy = xstrdup(passwd);
    struct user *result = &lookup->result;
    char *rest = copy;

    for (char *text; !lookup->name && (text = strsep(&rest, "\n"));) {
        struct line line;
        line_split(text, &line);
        if (!passwd_matches(lookup, &line) || !to_id(line.fields[3], &result->gid))
            continue;
        to_id(line.fields[2], &result->uid);
        lookup->name = xstrdup(line.fields[0]);
        if (line.count > 5 && line.fields[5][0] == '/')
            result->home = xstrdup(line.fields[5]);
    }
    if (!lookup->name && lookup->user && !to_id(lookup->user, &result->uid))
        return error_set(err, -ENOENT, "unable to find user %s: no matching entries in passwd file",
                         lookup->user);
    return 0;
}

static bool group_lists(const struct line *line, const char *name)
{
    char *rest = line->count > 3 ? line->fields[3] : NULL;

    for (char *member; (member = strsep(&rest, ","));) {
        if (text_equal(member, name))
            return true;
    }
    return false;
}

static void add_gid(struct user *user, uint32_t gid)
{
    for (size_t i = 0; i < user->additional_gids_count; i++) {
        if (user->additional_gids[i] == gid)
            return;
    }
    if (user->additional_gids_count == USER_GROUPS_MAX)
        return;
    user->additional_gids = xrealloc(user->additional_gids, user->additional_gids_count + 1,
                                     sizeof(*user->additional_gids));
    user->additional_gids[user->additional_gids_count++] = gid;
}

/* The group that was asked for; without one, those that list the user. */
static int lookup_group(struct lookup *lookup, const char *group, struct error *err)
{
    _cleanup_free_ char *copy = xstrdup(group);
    bool found = false;
    uint32_t gid, wanted;
    char *rest = copy;

    for (char *text; !found && (text = strsep(&rest, "\n"));) {
        struct line line;
        line_split(text, &line);
        if (line.count < 3 || !to_id(line.fields[2], &gid))
            continue;
        if (!lookup->group) {
            if (lookup->name && group_lists(&line, lookup->name))
                add_gid(&lookup->result, gid);
        } else if (text_equal(line.fields[0], lookup->group) ||
                   (to_id(lookup->group, &wanted) && gid == wanted)) {
            lookup->result.gid = gid;
            found = true;
        }
    }
    if (lookup->group && !found && !to_id(lookup->group, &lookup->result.gid))
        return error_set(err, -ENOENT, "unable to find group %s: no matching entries in group file",
                         lookup->group);
    return 0;
}

/* The primary group comes first among the others, so that leaving it does not gain anything. */
static void put_primary_first(struct user *user)
{
    size_t count = user->additional_gids_count;
    uint32_t *others = user->additional_gids;

    user->additional_gids = NULL;
    user->additional_gids_count = 0;
    add_gid(user, user->gid);
    for (size_t i = 0; i < count; i++)
        add_gid(user, others[i]);
    free(others);
}

static int group_number(const char *group, const char *wanted, uint32_t *ret)
{
    _cleanup_free_ char *copy = xstrdup(group);
    uint32_t gid, number;
    char *rest = copy;

    for (char *text; (text = strsep(&rest, "\n"));) {
        struct line line;
        line_split(text, &line);
        if (line.count < 3 || !to_id(line.fields[2], &gid) ||
            !(text_equal(line.fields[0], wanted) || (to_id(wanted, &number) && gid == number)))
            continue;
        *ret = gid;
        return 0;
    }
    return to_id(wanted, ret) ? 0 : -ENOENT;
}

static int add_groups(struct user *result, const char *group, char *const *wanted,
                      struct error *err)
{
    uint32_t gid;

    for (; wanted && *wanted; wanted++) {
        if (group_number(group, *wanted, &gid) < 0)
            return error_set(err, -ENOENT,
                             "Unable to find group %s: no matching entries in group file", *wanted);
        add_gid(result, gid);
    }
    return 0;
}

int user_lookup(const char *passwd, const char *group, const struct user_question *question,
                struct user *ret, struct error *err)
{
    _cleanup_(lookup_finish) struct lookup lookup = {0};
    const char *user = question->user;
    const char *colon = user ? strchr(user, ':') : NULL;

    if (!text_empty(user) && colon != user)
        lookup.user = colon ? xstrndup(user, (size_t)(colon - user)) : xstrdup(user);
    if (colon && colon[1])
        lookup.group = xstrdup(colon + 1);
    int r = lookup_passwd(&lookup, passwd, err);
    if (r == 0)
        r = lookup_group(&lookup, group, err);
    if (r == 0)
        r = add_groups(&lookup.result, group, question->groups, err);
    if (r < 0)
        return r;
    put_primary_first(&lookup.result);
    if (!lookup.result.home)
        lookup.result.home = xstrdup("/");
    *ret = lookup.result;
    lookup.result = (struct user){0};
    return 0;
}

/* Opens by O_PATH first: a FIFO or a device is never opened for reading. */
static int read_regular(int root_fd, const char *path, char **ret, struct error *err)
{
    _cleanup_close_ int place = file_open_in_root_flags(root_fd, path, O_PATH, 0, RESOLVE_NO_XDEV);
    char self[64];
    struct stat status;

    if (place < 0) {
        *ret = xstrdup("");
        return 0;
    }
    if (fstat(place, &status) < 0 || !S_ISREG(status.st_mode))
        return error_set(err, -EINVAL, "%s of the container is not a regular file", path);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", place);
    return file_read_at(AT_FDCWD, self, USER_FILE_MAX, ret, NULL, err);
}

int user_resolve(int root_fd, const struct user_question *question, struct user *ret,
                 struct error *err)
{
    _cleanup_free_ char *passwd = NULL;
    _cleanup_free_ char *group = NULL;
    int r;

    r = read_regular(root_fd, "/etc/passwd", &passwd, err);
    if (r == 0)
        r = read_regular(root_fd, "/etc/group", &group, err);
    return r < 0 ? r : user_lookup(passwd, group, question, ret, err);
}

void user_finish(struct user *user)
{
    free(user->additional_gids);
    free(user->home);
    *user = (struct user){0};
}
