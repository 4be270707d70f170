#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "library_root.h"

static bool wants_user_folder(void)
{
    const char *user = getenv("USER");

    if (geteuid() != 0)
        return true;
    return runtime_caller_is_limited() && !text_equal(user, "root");
}

int library_root_default(char **ret, struct error *err)
{
    const char *folder = getenv("XDG_RUNTIME_DIR");
    bool for_user = (geteuid() != 0 || !text_empty(folder)) && wants_user_folder();

    if (!for_user) {
        *ret = xstrdup(CLOCHE_RUNTIME_ROOT);
        return 0;
    }
    if (!folder || folder[0] != '/')
        return error_set(err, -EINVAL,
                         "XDG_RUNTIME_DIR is %s: it, or --root, names the folder for the state of "
                         "containers",
                         text_empty(folder) ? "not set" : "not an absolute path");
    _cleanup_free_ char *path = xasprintf("%s/cloche-runtime", folder);
    int r = file_mkdir_parents(path, 0700, err);
    if (r < 0) {
        error_context(err, "the path in $XDG_RUNTIME_DIR must be writable by the user");
        return r;
    }
    /* What has no sticky bit may be pruned there (XDG Base Directory Specification). */
    if (chmod(path, S_ISVTX | 0700) < 0)
        return error_errno(err, errno,
                           "you should check permission of the path in $XDG_RUNTIME_DIR: chmod %s",
                           path);
    *ret = steal_ptr(path);
    return 0;
}
