#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "kernel.h"
#include "mount_options.h"

/* linux/mount.h has these since 5.14 and 5.12. */
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

struct attribute_option {
    const char *name;
    uint64_t set, clear;
};

/* mount(8) names; the same with "r" in front work on the whole tree (OCI config.md, "Linux mount
 * options"). atime modes are one field: it is always cleared as a whole. */
static const struct attribute_option attribute_options[] = {
    {"ro", MOUNT_ATTR_RDONLY, 0},
    {"rw", 0, MOUNT_ATTR_RDONLY},
    {"nosuid", MOUNT_ATTR_NOSUID, 0},
    {"suid", 0, MOUNT_ATTR_NOSUID},
    {"nodev", MOUNT_ATTR_NODEV, 0},
    {"dev", 0, MOUNT_ATTR_NODEV},
    {"noexec", MOUNT_ATTR_NOEXEC, 0},
    {"exec", 0, MOUNT_ATTR_NOEXEC},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"diratime", 0, MOUNT_ATTR_NODIRATIME},
    {"relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"norelatime", 0, MOUNT_ATTR__ATIME},
    {"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"atime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nostrictatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
    {"symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
};

static const struct {
    const char *name;
    uint64_t propagation;
} propagation_options[] = {
    {"private", MS_PRIVATE},
    {"shared", MS_SHARED},
    {"slave", MS_SLAVE},
    {"unbindable", MS_UNBINDABLE},
};

/* Words that change the super block, and words that mean "as it is anyway". */
static char *const super_options[] = {"sync", "dirsync", "mand", "lazytime", "silent", NULL};
static char *const neutral_options[] = {"defaults", "async",    "nomand",      "nolazytime",
                                        "loud",     "iversion", "notmpcopyup", NULL};
static char *const refused_options[] = {"idmap", "ridmap", "remount", NULL};

static const struct attribute_option *find_attribute(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(attribute_options); i++) {
        if (text_equal(attribute_options[i].name, name))
            return &attribute_options[i];
    }
    return NULL;
}

static bool take_attribute(struct mount_options *ret, const char *option)
{
    const struct attribute_option *found = find_attribute(option);

    if (found) {
        ret->set = (ret->set & ~found->clear) | found->set;
        ret->clear = (ret->clear & ~found->set) | found->clear;
        return true;
    }
    /* "rbind" and "ro" also start with r; neither "bind" nor "o" is in the table. */
    found = option[0] == 'r' ? find_attribute(option + 1) : NULL;
    if (!found)
        return false;
    ret->set_recursive = (ret->set_recursive & ~found->clear) | found->set;
    ret->clear_recursive = (ret->clear_recursive & ~found->set) | found->clear;
    return true;
}

static bool take_propagation(struct mount_options *ret, const char *option)
{
    bool recursive = option[0] == 'r';

    for (size_t i = 0; i < ARRAY_SIZE(propagation_options); i++) {
        if (text_equal(propagation_options[i].name, option + recursive)) {
            ret->propagation = propagation_options[i].propagation;
            ret->propagation_recursive = recursive;
            return true;
        }
    }
    return false;
}

static int take_option(struct mount_options *ret, const char *option, struct error *err)
{
    if (strv_contains(refused_options, option))
        return error_set(err, -ENOTSUP, "option '%s' is not supported yet", option);
    if (strv_contains(neutral_options, option))
        return 0;
    if (take_attribute(ret, option) || take_propagation(ret, option))
        return 0;
    if (text_equal(option, "bind") || text_equal(option, "rbind")) {
        ret->bind = true;
        ret->bind_recursive = option[0] == 'r';
    } else if (text_equal(option, "tmpcopyup")) {
        ret->copy_up = true;
    } else if (strv_contains(super_options, option)) {
        strv_append(&ret->super, option);
    } else {
        strv_append(&ret->data, option);
    }
    return 0;
}

int mount_options_parse(char *const *options, struct mount_options *ret, struct error *err)
{
    *ret = (struct mount_options){0};
    for (; options && *options; options++) {
        int r = take_option(ret, *options, err);
        if (r < 0) {
            mount_options_finish(ret);
            return r;
        }
    }
    return 0;
}

void mount_options_finish(struct mount_options *options)
{
    strv_free(options->super);
    strv_free(options->data);
    *options = (struct mount_options){0};
}

const char *mount_options_value(const struct mount_options *options, const char *key)
{
    size_t length = strlen(key);

    for (char **item = options->data; item && *item; item++) {
        if (strncmp(*item, key, length) == 0 && (*item)[length] == '=')
            return *item + length + 1;
    }
    return NULL;
}
