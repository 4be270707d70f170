#include <errno.h>
#include <string.h>

#include "library_options.h"

enum { SIZE_MAX_OF_ANY = 4096 }; /* what is larger was never a structure of ours */

int library_take(void *ret, size_t known, const void *given, const char *name, struct error *err)
{
    size_t size = 0;

    memset(ret, 0, known);
    if (!given)
        return 0;
    memcpy(&size, given, sizeof(size));
    if (size < sizeof(size) || size > SIZE_MAX_OF_ANY)
        return error_set(err, -EINVAL, "%s: the size is %zu: set it to sizeof of the structure",
                         name, size);
    for (size_t i = known; i < size; i++) {
        if (((const unsigned char *)given)[i])
            return error_set(err, -E2BIG,
                             "%s: a member is set that libcloche-runtime " CLOCHE_VERSION
                             " does not know",
                             name);
    }
    memcpy(ret, given, size < known ? size : known);
    return 0;
}
