#include "libexec.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

char *libexec_find(const char *name)
{
    const char *set = getenv("CLOCHE_LIBEXEC");
    char self[PATH_MAX];

    if (!text_empty(set))
        return xasprintf("%s/%s", set, name);
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length > 0) {
        self[length] = '\0';
        *strrchr(self, '/') = '\0';
        _cleanup_free_ char *beside = xasprintf("%s/%s", self, name);
        if (access(beside, X_OK) == 0)
            return steal_ptr(beside);
    }
    return xasprintf(CLOCHE_LIBEXECDIR "/%s", name);
}
