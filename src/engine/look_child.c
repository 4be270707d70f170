#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <engine/engine.h>

#include "look_child.h"
#include "volume_mount.h"

enum { FOLDERS_DEEP_MAX = 16, FDINFO_MAX = 4096 };

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

/* The mount that a path lies on: its number by /proc/self/fdinfo (proc(5)). */
int look_mount_of(const char *path)
{
    _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
    _cleanup_free_ char *place = xasprintf("/proc/self/fdinfo/%d", fd);
    _cleanup_free_ char *text = NULL;
    int number = -1;

    if (fd < 0 || file_read_at(AT_FDCWD, place, FDINFO_MAX, &text, NULL, NULL) < 0)
        return -1;
    const char *line = strstr(text, "mnt_id:");
    return line && sscanf(line, "mnt_id: %d", &number) == 1 ? number : -1;
}

/* A line of /proc/self/mountinfo: number, parent, device, root, mount point, options, and words of
 * its propagation up to "-". */
static bool mount_line(char *line, int number, char **ret_place, bool *ret_shared, bool *ret_slave)
{
    enum { PLACE = 4, PROPAGATION = 6 };
    char *rest, *word = strtok_r(line, " ", &rest);

    if (!word || atoi(word) != number)
        return false;
    for (int i = 0; word && !(i >= PROPAGATION && text_equal(word, "-")); i++) {
        if (i == PLACE)
            *ret_place = word;
        if (i >= PROPAGATION && text_starts_with(word, "shared:"))
            *ret_shared = true;
        if (i >= PROPAGATION && text_starts_with(word, "master:"))
            *ret_slave = true;
        word = strtok_r(NULL, " ", &rest);
    }
    return true;
}

static int look_propagation(const char *path, bool slave_is_enough)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    int number = look_mount_of(path), r = 0;
    bool shared = false, slave = false, found = false;
    char *line = NULL, *place = (char *)"/";
    size_t size = 0;

    while (mounts && number >= 0 && !found && getline(&line, &size, mounts) > 0)
        found = mount_line(line, number, &place, &shared, &slave);
    if (!shared && !(slave && slave_is_enough)) {
        fprintf(stderr, "path %s is mounted on %s but it is not a shared%s mount", path, place,
                slave_is_enough ? " or slave" : "");
        r = LOOK_EXIT_ASKED_WRONG;
    }
    if (mounts)
        fclose(mounts);
    free(line);
    return r;
}

static int look_volume(const char *request)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (volume_mount_run(request, &err) == 0)
        return 0;
    fputs(error_message(&err), stderr);
    return EXIT_FAILURE;
}

static int look_at(unsigned subject, const char *request)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *path = strchr(request, ':') + 1;
    struct stat status;

    if (text_starts_with(request, LOOK_DEVICE))
        return look_device(subject, path);
    if (text_starts_with(request, LOOK_SHARED) || text_starts_with(request, LOOK_SLAVE))
        return look_propagation(path, text_starts_with(request, LOOK_SLAVE));
    if (text_starts_with(request, LOOK_VOLUME))
        return look_volume(path);
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

int engine_look(void)
{
    _cleanup_free_ char *requests = NULL;
    size_t length;
    unsigned number = 0;
    int r = 0;

    if (file_read_fd(STDIN_FILENO, LOOK_REQUESTS_MAX, &requests, &length, NULL) < 0)
        return EXIT_FAILURE;
    for (const char *at = requests; r == 0 && at < requests + length; at += strlen(at) + 1) {
        alarm(text_starts_with(at, LOOK_VOLUME) ? 0 : LOOK_TIMEOUT_SECONDS);
        r = strchr(at, ':') ? look_at(number++, at) : EXIT_FAILURE;
    }
    return fflush(stdout) == 0 ? r : EXIT_FAILURE;
}
