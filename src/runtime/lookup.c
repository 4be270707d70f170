#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "lookup.h"

enum { PASSWD_MAX = 1 << 20 }; /* bytes of /etc/passwd that are looked at */

const char *lookup_environment(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    const char *value = NULL;

    for (; environment && *environment; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            value = *environment + length + 1;
    }
    return value;
}

/* 0, -ENOENT, -EACCES (also for directories, as Go's exec.LookPath sees them) ... With overrides
 * the program will be executed with CAP_DAC_OVERRIDE, which this process does not have in effect.
 */
static int is_executable(const char *path, bool overrides)
{
    struct stat status;

    if (stat(path, &status) < 0)
        return -errno;
    if (S_ISDIR(status.st_mode))
        return -EISDIR;
    if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 &&
        !(overrides && errno == EACCES && (status.st_mode & 0111)))
        return -errno;
    return 0;
}

const char *lookup_error_text(int code)
{
    switch (-code) {
    case ENOENT:
        return "no such file or directory";
    case EACCES:
        return "permission denied";
    case ENOEXEC:
        return "exec format error";
    case EINVAL:
        return "invalid argument";
    case EPERM:
        return "operation not permitted";
    case E2BIG:
        return "argument list too long";
    case ETXTBSY:
        return "text file busy";
    case EISDIR: /* engines look for the latter to choose the exit code 126 */
        return "is a directory: permission denied";
    default:
        return strerror(-code);
    }
}

int lookup_executable(const char *args0, char *const *environment, bool overrides, char **ret,
                      struct error *err)
{
    int r;

    if (strchr(args0, '/')) {
        r = is_executable(args0, overrides);
        if (r == -ENOENT || r == -ENOTDIR)
            return error_set(err, r, "exec: \"%s\": stat %s: %s", args0, args0,
                             lookup_error_text(r));
        if (r < 0)
            return error_set(err, r, "exec: \"%s\": %s", args0, lookup_error_text(r));
        *ret = xstrdup(args0);
        return 0;
    }
    const char *search = lookup_environment(environment, "PATH");
    _cleanup_strv_ char **directories = strv_split(search ? search : "", ':');
    int denied = 0;
    for (size_t i = 0; args0[0] && directories && directories[i]; i++) {
        _cleanup_free_ char *path =
            xasprintf("%s/%s", directories[i][0] ? directories[i] : ".", args0);
        r = is_executable(path, overrides);
        if (r == 0) {
            *ret = steal_ptr(path);
            return 0;
        }
        if (r == -EACCES)
            denied = r;
    }
    if (denied)
        return error_set(err, denied, "exec: \"%s\": permission denied", args0);
    return error_set(err, -ENOENT, "exec: \"%s\": executable file not found in $PATH", args0);
}

/* name:password:uid:gid:gecos:home:shell */
static char *home_of_line(char *line, uint32_t uid)
{
    _cleanup_strv_ char **fields = strv_split(line, ':');
    uint64_t value;

    if (strv_length(fields) < 6 || text_to_u64(fields[2], 0, UINT32_MAX, &value) < 0 ||
        value != uid || fields[5][0] != '/')
        return NULL;
    return xstrdup(fields[5]);
}

char *lookup_home(uint32_t uid)
{
    _cleanup_close_ int root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_free_ char *text = NULL;
    struct stat status;

    /* The file belongs to the image: it may be a pipe, or endless, or a link to one of our
     * descriptors. */
    _cleanup_close_ int fd =
        file_open_in_root(root_fd, "/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
        file_read_fd(fd, PASSWD_MAX, &text, NULL, NULL) < 0)
        return xstrdup("/");
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *home = home_of_line(line, uid);
        if (home)
            return home;
    }
    return xstrdup("/");
}
