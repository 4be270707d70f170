#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/json.h>
#include <schema/scan.h>

#include "config.h"

static const char folder[] = "/etc/cloche";

/* What a check needs to say where something is wrong. */
struct reading {
    struct config *config;
    const char *text;
    size_t length;
    const struct instance *instance;
    bool (*is_method)(const char *pattern);
};

/* ---- the text ---- */

/* Lines that begin with '#' are comments. They become blanks, so that line numbers stay; no JSON
 * value can have such a line in it, since strings have no line ends. */
static void blank_comments(char *text)
{
    for (char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (line[strspn(line, " \t\r")] == '#')
            memset(line, ' ', strcspn(line, "\n"));
    }
}

/* Who can write the file decides who gets at the daemon. */
static int check_owner(int fd, const char *name, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_errno(err, errno, "look at %s", name);
    if (!S_ISREG(status.st_mode))
        return error_set(err, -EINVAL, "%s is not a regular file", name);
    if ((status.st_uid != 0 && status.st_uid != geteuid()) ||
        status.st_mode & (S_IWGRP | S_IWOTH)) {
        error_set(err, -EPERM, "%s can be written by others than root", name);
        error_hint(err, "chown root:root %s; chmod go-w %s", name, name);
        return -EPERM;
    }
    return 0;
}

static int read_text(const char *name, char **ret, size_t *ret_length, struct error *err)
{
    _cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return error_errno(err, errno, "open %s", name);
    int r = check_owner(fd, name, err);
    if (r == 0)
        r = file_read_fd(fd, CONFIG_BYTES_MAX, ret, ret_length, err);
    if (r < 0)
        return r;
    blank_comments(*ret);
    return 0;
}

/* ---- where things stand ---- */

static bool enter(struct json_scan *scan, char bracket)
{
    json_scan_blank(scan);
    if (json_scan_peek(scan) != bracket)
        return false;
    scan->at++;
    json_scan_blank(scan);
    return true;
}

static void pass_comma(struct json_scan *scan)
{
    json_scan_blank(scan);
    if (json_scan_peek(scan) == ',')
        scan->at++;
    json_scan_blank(scan);
}

/* Moves to the value of a member of the object that begins here. */
static bool find_member(struct json_scan *scan, const char *name)
{
    struct json_token key, value;

    if (!enter(scan, '{'))
        return false;
    while (json_scan_peek(scan) == '"' && json_scan_string(scan, &key)) {
        if (!enter(scan, ':'))
            return false;
        if (key.length == strlen(name) && memcmp(key.text, name, key.length) == 0)
            return true;
        if (!json_scan_skip(scan, JSON_DEPTH_MAX, &value))
            return false;
        pass_comma(scan);
    }
    return false;
}

static bool find_item(struct json_scan *scan, size_t index)
{
    struct json_token value;

    if (!enter(scan, '['))
        return false;
    for (; index > 0; index--) {
        if (!json_scan_skip(scan, JSON_DEPTH_MAX, &value))
            return false;
        pass_comma(scan);
    }
    return json_scan_peek(scan) != ']';
}

/* The document is well-formed here. The line of the section, where it has no such member. */
static size_t line_of(const struct reading *reading, size_t section, const char *member,
                      size_t item)
{
    struct json_scan scan = {.at = reading->text, .end = reading->text + reading->length};
    size_t line = 1;

    if (find_member(&scan, "listen") && find_item(&scan, section)) {
        struct json_scan inside = scan;
        if (find_member(&inside, member)) {
            scan = inside;
            if (json_scan_peek(&inside) == '[' && find_item(&inside, item))
                scan = inside;
        }
    }
    for (const char *at = reading->text; at < scan.at; at++)
        line += *at == '\n';
    return line;
}

static int wrong(const struct reading *reading, size_t section, const char *member, size_t item,
                 struct error *err, const char *format, ...) _printf_(6, 7);

static int wrong(const struct reading *reading, size_t section, const char *member, size_t item,
                 struct error *err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *what = xvasprintf(format, args);
    va_end(args);
    return error_set(err, -EINVAL, "%s:%zu: listen[%zu].%s: %s", reading->config->name,
                     line_of(reading, section, member, item), section, member, what);
}

/* ---- words ---- */

static int parse_mode(const char *text, mode_t *ret)
{
    char *end;

    if (text_empty(text) || strspn(text, "01234567") != strlen(text))
        return -EINVAL;
    unsigned long mode = strtoul(text, &end, 8);
    if (mode > 0777)
        return -EINVAL;
    *ret = (mode_t)mode;
    return 0;
}

static int find_user(const char *text, unsigned *ret)
{
    const struct passwd *user;
    uint64_t number;

    if (text_to_u64(text, 0, UINT32_MAX - 1, &number) == 0) {
        *ret = (unsigned)number;
        return 0;
    }
    user = getpwnam(text);
    if (!user)
        return -ENOENT;
    *ret = user->pw_uid;
    return 0;
}

static int find_group(const char *text, unsigned *ret)
{
    const struct group *group;
    uint64_t number;

    if (text_to_u64(text, 0, UINT32_MAX - 1, &number) == 0) {
        *ret = (unsigned)number;
        return 0;
    }
    group = getgrnam(text);
    if (!group)
        return -ENOENT;
    *ret = group->gr_gid;
    return 0;
}

typedef int (*find_id)(const char *text, unsigned *ret);

static int parse_ids(const struct reading *reading, size_t section, const char *member,
                     char *const *words, size_t count, find_id find, struct config_ids *ret,
                     struct error *err)
{
    ret->ids = xnew_array(unsigned, count + 1);
    for (size_t i = 0; i < count; i++) {
        if (find(words[i], &ret->ids[i]) < 0)
            return wrong(reading, section, member, i, err, "there is no such one: '%s'", words[i]);
        ret->count++;
    }
    return 0;
}

/* ---- a section ---- */

static int check_path(const struct reading *reading, size_t index, struct config_socket *socket,
                      struct error *err)
{
    const struct config *config = reading->config;
    const char *path = socket->section->path;

    if (strchr(path, '\n') || strstr(path, "/../") || text_starts_with(path, "../") ||
        text_ends_with(path, "/") || text_ends_with(path, "/.."))
        return wrong(reading, index, "path", 0, err, "'%s' does not name a file plainly", path);
    socket->path =
        path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", reading->instance->run, path);
    if (text_equal(socket->path, reading->instance->socket))
        return wrong(reading, index, "path", 0, err, "that is the main socket");
    for (size_t i = 0; i < index; i++) {
        if (text_equal(config->sockets[i].path, socket->path))
            return wrong(reading, index, "path", 0, err, "listen[%zu] has '%s' already", i, path);
    }
    return 0;
}

static int check_methods(const struct reading *reading, size_t index,
                         const struct config_listen *section, struct error *err)
{
    for (size_t i = 0; i < section->methods_count; i++) {
        if (reading->is_method(section->methods[i]))
            continue;
        wrong(reading, index, "methods", i, err, "no method fits '%s'", section->methods[i]);
        return error_hint(err, "See: cloche rpc methods");
    }
    return 0;
}

static int check_access(const struct reading *reading, size_t index, struct config_socket *socket,
                        struct error *err)
{
    const struct config_listen *section = socket->section;

    if (section->mode && parse_mode(section->mode, &socket->mode) < 0)
        return wrong(reading, index, "mode", 0, err,
                     "'%s' is not a mode in octal, from 0000 to 0777", section->mode);
    if (section->owner && find_user(section->owner, &socket->owner) < 0)
        return wrong(reading, index, "owner", 0, err, "there is no user '%s'", section->owner);
    if (section->group && find_group(section->group, &socket->group) < 0)
        return wrong(reading, index, "group", 0, err, "there is no group '%s'", section->group);
    int r = parse_ids(reading, index, "users", section->users, section->users_count, find_user,
                      &socket->users, err);
    if (r == 0)
        r = parse_ids(reading, index, "groups", section->groups, section->groups_count, find_group,
                      &socket->groups, err);
    return r;
}

static int check_section(const struct reading *reading, size_t index, struct error *err)
{
    struct config_socket *socket = &reading->config->sockets[index];
    int r;

    *socket = (struct config_socket){.section = reading->config->file->listen[index], .mode = 0600};
    reading->config->sockets_count++;
    r = check_path(reading, index, socket, err);
    if (r == 0)
        r = check_access(reading, index, socket, err);
    if (r == 0)
        r = check_methods(reading, index, socket->section, err);
    return r;
}

/* ---- the door ---- */

static int check_patterns(const struct reading *reading, const char *where, char *const *patterns,
                          size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (reading->is_method(patterns[i]))
            continue;
        error_set(err, -EINVAL, "%s: %s: no method fits '%s'", reading->config->name, where,
                  patterns[i]);
        return error_hint(err, "See: cloche rpc methods"), -EINVAL;
    }
    return 0;
}

static int check_door(const struct reading *reading, const struct door_settings *door,
                      struct error *err)
{
    int r = check_patterns(reading, "door.methods", door->methods, door->methods_count, err);

    for (size_t i = 0; r == 0 && i < door->grants_count; i++)
        r = check_patterns(reading, "door.grants[].methods", door->grants[i]->methods,
                           door->grants[i]->methods_count, err);
    return r;
}

/* ---- the file ---- */

static int check_file(const struct reading *reading, struct error *err)
{
    struct config *config = reading->config;
    int r = config_file_parse(reading->text, reading->length, config->name, &config->file, err);

    if (r < 0)
        return r;
    config->sockets = xnew_array(struct config_socket, config->file->listen_count + 1);
    for (size_t i = 0; r == 0 && i < config->file->listen_count; i++)
        r = check_section(reading, i, err);
    if (r == 0 && config->file->door)
        r = check_door(reading, config->file->door, err);
    return r;
}

static char *own_name(const struct instance *instance)
{
    return instance->name[0] ? xasprintf("%s/cloched-%s.conf", folder, instance->name)
                             : xasprintf("%s/cloched.conf", folder);
}

int config_load(const char *given, const struct instance *instance,
                bool (*is_method)(const char *pattern), struct config **ret, struct error *err)
{
    const char *named = text_empty(given) ? getenv("CLOCHE_CONFIG") : given;
    struct config *config = xnew(struct config);
    _cleanup_free_ char *text = NULL;
    struct reading reading = {.config = config, .instance = instance, .is_method = is_method};

    config->name = text_empty(named) ? own_name(instance) : xstrdup(named);
    int r = read_text(config->name, &text, &reading.length, err);
    if (r == -ENOENT && text_empty(named)) {
        error_finish(err);
        config->file = xnew(struct config_file);
        *ret = config;
        return 0;
    }
    reading.text = text;
    if (r == 0)
        r = check_file(&reading, err);
    if (r < 0) {
        config_free(config);
        return r;
    }
    *ret = config;
    return 0;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->sockets_count; i++) {
        free(config->sockets[i].path);
        free(config->sockets[i].users.ids);
        free(config->sockets[i].groups.ids);
    }
    free(config->sockets);
    config_file_free(config->file);
    free(config->name);
    free(config);
}
