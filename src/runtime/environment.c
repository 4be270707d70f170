#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "environment.h"
#include "lookup.h"

int environment_check(const char *field, char *const *list, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(list[i], '=');
        if (!equals)
            return error_set(err, -EINVAL, "%s[%zu]: invalid environment variable: missing '='",
                             field, i);
        if (equals == list[i])
            return error_set(err, -EINVAL,
                             "%s[%zu]: invalid environment variable: name cannot be empty", field,
                             i);
    }
    return 0;
}

/* A hash table with open addressing of the names that are in the list already: the number of
 * variables is the configuration's choice. */
struct names {
    const char **slots; /* "NAME=value", borrowed */
    size_t mask;
};

static bool is_new(struct names *names, const char *variable)
{
    size_t length = strcspn(variable, "=");
    uint64_t hash = 14695981039346656037U; /* FNV-1a */

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)variable[i]) * 1099511628211U;
    for (;; hash++) {
        const char **slot = &names->slots[hash & names->mask];
        if (!*slot) {
            *slot = variable;
            return true;
        }
        if (strncmp(*slot, variable, length + 1) == 0)
            return false;
    }
}

/* Backwards, so that the last one of a name stays, in its place. */
static char **put_before(char **end, char *const *list, struct names *names)
{
    for (size_t i = strv_length(list); i-- > 0;) {
        bool empty_home = strcmp(list[i], "HOME=") == 0;
        if (is_new(names, list[i]) && !empty_home)
            *--end = list[i];
    }
    return end;
}

char **environment_build(char *const *first, char *const *second, uint32_t uid)
{
    size_t count = strv_length(first) + strv_length(second), slots = 16;

    while (slots < 2 * count + 2)
        slots *= 2;
    struct names names = {.slots = xnew_array(const char *, slots), .mask = slots - 1};
    char **all = xnew_array(char *, count + 2), **end = all + count;
    char **start = put_before(put_before(end, second, &names), first, &names);
    size_t kept = (size_t)(end - start);
    memmove(all, start, kept * sizeof(*all));
    all[kept] = NULL;
    free(names.slots);
    if (!lookup_environment(all, "HOME")) {
        _cleanup_free_ char *home = lookup_home(uid);
        all[kept] = xasprintf("HOME=%s", home);
        all[kept + 1] = NULL;
    }
    return all;
}
