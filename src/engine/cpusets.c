#include "cpusets.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

enum { NUMBER_MAX = 8192 }; /* docker's */

struct numbers {
    bool has[NUMBER_MAX + 1];
};

/* "5" or "0-2". -ERANGE: more than NUMBER_MAX. */
static int take_range(const char *text, struct numbers *numbers)
{
    const char *dash = strchr(text, '-');
    _cleanup_free_ char *start = dash ? xstrndup(text, (size_t)(dash - text)) : xstrdup(text);
    uint64_t first, last;
    int r = text_to_u64(start, 0, NUMBER_MAX, &first);

    if (r == 0)
        r = text_to_u64(dash ? dash + 1 : start, 0, NUMBER_MAX, &last);
    if (r < 0)
        return r;
    if (first > last)
        return -EINVAL;
    for (uint64_t i = first; i <= last; i++)
        numbers->has[i] = true;
    return 0;
}

static int take_list(const char *text, struct numbers *numbers)
{
    _cleanup_strv_ char **ranges = strv_split(text, ',');
    int r = 0;

    for (size_t i = 0; r == 0 && ranges && ranges[i]; i++)
        r = take_range(ranges[i], numbers);
    return r;
}

int cpusets_compare(const char *kind, const char *wanted, const char *there, struct error *err)
{
    struct numbers asked = {0}, known = {0};

    if (text_empty(wanted))
        return 0;
    int r = take_list(wanted, &asked);
    if (r == -ERANGE)
        return error_set(err, -EINVAL,
                         "Invalid value %.200s for cpuset %s: value of out range, maximum is %d",
                         wanted, kind, NUMBER_MAX);
    if (r < 0)
        return error_set(err, -EINVAL, "Invalid value %.200s for cpuset %s: invalid format: %.200s",
                         wanted, kind, wanted);
    if (text_empty(there) || take_list(there, &known) < 0)
        return 0; /* the kernel has the last word */
    for (size_t i = 0; i <= NUMBER_MAX; i++) {
        if (asked.has[i] && !known.has[i])
            return error_set(err, -EINVAL,
                             "Requested %s are not available - requested %.200s, available: %s",
                             text_equal(kind, "cpus") ? "CPUs" : "memory nodes", wanted, there);
    }
    return 0;
}

static int check(const char *kind, const char *wanted, const char *path, struct error *err)
{
    _cleanup_free_ char *there = NULL;

    if (text_empty(wanted))
        return 0;
    if (file_read_at(AT_FDCWD, path, 65536, &there, NULL, NULL) == 0)
        there[strcspn(there, "\n")] = '\0';
    return cpusets_compare(kind, wanted, there, err);
}

int cpusets_check(const struct api_resources *resources, struct error *err)
{
    int r = check("cpus", resources->cpuset_cpus, "/sys/devices/system/cpu/online", err);

    return r < 0 ? r
                 : check("mems", resources->cpuset_mems, "/sys/devices/system/node/online", err);
}
