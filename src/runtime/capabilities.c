#include <ctype.h>
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>

#include "capabilities.h"

enum { CAPABILITIES_MAX = 64 };

int capability_from_name(const char *name, struct error *err)
{
    static uint64_t known; /* to be in the kernel; the same names come in each of the sets */
    cap_value_t value;

    if (strncasecmp(name, "cap_", 4) != 0 || cap_from_name(name, &value) < 0 || value < 0 ||
        value >= CAPABILITIES_MAX)
        return error_set(err, -EINVAL, "unknown capability '%s'", name);
    if (!(known >> value & 1) && prctl(PR_CAPBSET_READ, value, 0, 0, 0) < 0)
        return error_set(err, -EINVAL, "this kernel has no capability '%s'", name);
    known |= UINT64_C(1) << value;
    return value;
}

char *capability_name(int capability)
{
    char *name = cap_to_name((cap_value_t)capability), *ret;

    ret = name ? xstrdup(name) : xasprintf("CAP_%d", capability);
    for (char *c = ret; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    cap_free(name);
    return ret;
}

int capability_limit_bounding(uint64_t bounding, struct error *err)
{
    for (int i = 0; i < CAPABILITIES_MAX; i++) {
        if (bounding >> i & 1 || prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0)
            continue;
        int failure = errno, have = prctl(PR_CAPBSET_READ, i, 0, 0, 0);
        if (have < 0)
            break;     /* past the kernel's last one */
        if (have == 1) /* without CAP_SETPCAP what is not there need not be dropped */
            return error_errno(err, failure, "drop capability %d from the bounding set", i);
    }
    return 0;
}

static int set(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };

    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static int get_permitted(uint64_t *ret)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    *ret = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return 0;
}

bool capability_is_effective(int capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    return syscall(SYS_capget, &header, data) == 0 &&
           (data[capability / 32].effective >> (capability % 32) & 1);
}

int capability_raise_permitted(uint64_t *ret, struct error *err)
{
    int r = get_permitted(ret);

    if (r == 0)
        r = set(*ret, *ret, 0);
    return r < 0 ? error_errno(err, -r, "raise capabilities") : 0;
}

int capability_apply(const struct capability_sets *sets, uint64_t have, struct error *err)
{
    /* What the runtime itself does not have cannot be given (a nested or unprivileged runtime):
     * runc and crun leave it out too, podman's and docker's default sets rely on it. */
    uint64_t permitted = sets->permitted & have;
    int r = set(sets->effective & permitted, permitted, sets->inheritable & have);
    if (r < 0)
        return error_errno(err, -r, "set capabilities");
    uint64_t ambient = sets->ambient & permitted & sets->inheritable;
    for (int i = 0; i < CAPABILITIES_MAX && ambient >> i; i++) {
        if ((ambient >> i & 1) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
            return error_errno(err, errno, "raise ambient capability %d", i);
    }
    return 0;
}
