#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <engine/engine.h>

#include "look_child.h"

enum { FOLDERS_DEEP_MAX = 16 };

int look_line_parse(const char *text, struct look_line *ret)
{
    int path = 0;

    if (sscanf(text, "%u %c %u %u %o %u %u %n", &ret->subject, &ret->type, &ret->major, &ret->minor,
               &ret->mode, &ret->uid, &ret->gid, &path) != 7 ||
        path == 0)
        return -EBADMSG;
    ret->path = text + path;
    return 0;
}

static void write_line(unsigned subject, const struct stat *status, const char *path)
{
    printf("%u %c %u %u %o %u %u %s", subject, S_ISBLK(status->st_mode) ? 'b' : 'c',
           major(status->st_rdev), minor(status->st_rdev), status->st_mode & 07777, status->st_uid,
           status->st_gid, path);
    putchar('\0');
}

static bool is_device(const struct stat *status)
{
    return S_ISBLK(status->st_mode) || S_ISCHR(status->st_mode);
}

/* docker leaves these out: they are the container's own, or pseudo file systems. */
static bool is_left_out(const char *name)
{
    static const char *const names[] = {"pts",  "shm",         "fd",    "mqueue",
                                        ".lxc", ".lxd-mounts", ".udev", "console"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (text_equal(name, names[i]))
            return true;
    }
    return false;
}

static void walk(unsigned subject, const char *folder, unsigned deep)
{
    DIR *entries = deep < FOLDERS_DEEP_MAX ? opendir(folder) : NULL;
    struct stat status;

    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        _cleanup_free_ char *path = xasprintf("%s/%s", folder, entry->d_name);
        if (text_equal(entry->d_name, ".") || text_equal(entry->d_name, "..") ||
            is_left_out(entry->d_name) || lstat(path, &status) < 0)
            continue;
        if (S_ISDIR(status.st_mode))
            walk(subject, path, deep + 1);
        else if (is_device(&status))
            write_line(subject, &status, path);
    }
    if (entries)
        closedir(entries);
}

static int look_device(unsigned subject, const char *path)
{
    struct stat status;

    errno = 0;
    if (stat(path, &status) < 0 || !(is_device(&status) || S_ISDIR(status.st_mode))) {
        fprintf(stderr, "error gathering device information while adding custom device \"%s\": %s",
                path, errno == ENOENT ? "no such file or directory" : "not a device node");
        return LOOK_EXIT_ASKED_WRONG;
    }
    if (S_ISDIR(status.st_mode))
        walk(subject, path, 0);
    else
        write_line(subject, &status, path);
    return 0;
}

static int look_at(unsigned subject, const char *request)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *path = strchr(request, ':') + 1;
    struct stat status;

    if (text_starts_with(request, LOOK_DEVICE))
        return look_device(subject, path);
    if (text_starts_with(request, LOOK_ALL_DEVICES)) {
        walk(subject, path, 0);
        return 0;
    }
    if (stat(path, &status) == 0)
        return 0;
    if (text_starts_with(request, LOOK_SOURCE)) {
        fprintf(stderr,
                "invalid mount config for type \"bind\": bind source path does not exist: %s",
                path);
        return LOOK_EXIT_ASKED_WRONG;
    }
    if (file_mkdir_parents(path, 0755, &err) == 0)
        return 0;
    fputs(error_message(&err), stderr);
    return EXIT_FAILURE;
}

int engine_look(char *const *requests)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && requests[i]; i++)
        r = strchr(requests[i], ':') ? look_at(i, requests[i]) : EXIT_FAILURE;
    return fflush(stdout) == 0 ? r : EXIT_FAILURE;
}
