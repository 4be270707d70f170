#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "kernel.h"
#include "mount_options.h"

struct flag_option {
    const char *name;
    unsigned long flag;
    bool clear;
};

/* mount(8) names. */
static const struct flag_option flag_options[] = {
    {"ro", MS_RDONLY, false},
    {"rw", MS_RDONLY, true},
    {"nosuid", MS_NOSUID, false},
    {"suid", MS_NOSUID, true},
    {"nodev", MS_NODEV, false},
    {"dev", MS_NODEV, true},
    {"noexec", MS_NOEXEC, false},
    {"exec", MS_NOEXEC, true},
    {"sync", MS_SYNCHRONOUS, false},
    {"async", MS_SYNCHRONOUS, true},
    {"dirsync", MS_DIRSYNC, false},
    {"mand", MS_MANDLOCK, false},
    {"nomand", MS_MANDLOCK, true},
    {"noatime", MS_NOATIME, false},
    {"atime", MS_NOATIME, true},
    {"nodiratime", MS_NODIRATIME, false},
    {"diratime", MS_NODIRATIME, true},
    {"relatime", MS_RELATIME, false},
    {"norelatime", MS_RELATIME, true},
    {"strictatime", MS_STRICTATIME, false},
    {"nostrictatime", MS_STRICTATIME, true},
    {"lazytime", MS_LAZYTIME, false},
    {"nolazytime", MS_LAZYTIME, true},
    {"iversion", MS_I_VERSION, false},
    {"noiversion", MS_I_VERSION, true},
    {"silent", MS_SILENT, false},
    {"loud", MS_SILENT, true},
    {"nosymfollow", MS_NOSYMFOLLOW, false},
    {"symfollow", MS_NOSYMFOLLOW, true},
    {"defaults", 0, false},
    /* Flags of the file system, which a tree has not: as without the "r" (crun's names). */
    {"rsync", MS_SYNCHRONOUS, false},
    {"rasync", MS_SYNCHRONOUS, true},
    {"rdirsync", MS_DIRSYNC, false},
    {"rmand", MS_MANDLOCK, false},
    {"rnomand", MS_MANDLOCK, true},
};

struct attribute_option {
    const char *name;
    uint64_t set, clear;
};

/* For the whole tree (OCI config.md, "Linux mount options"). Access times are one field, which is
 * always cleared as a whole (mount_setattr(2)). */
static const struct attribute_option attribute_options[] = {
    {"rro", MOUNT_ATTR_RDONLY, 0},
    {"rrw", 0, MOUNT_ATTR_RDONLY},
    {"rnosuid", MOUNT_ATTR_NOSUID, 0},
    {"rsuid", 0, MOUNT_ATTR_NOSUID},
    {"rnodev", MOUNT_ATTR_NODEV, 0},
    {"rdev", 0, MOUNT_ATTR_NODEV},
    {"rnoexec", MOUNT_ATTR_NOEXEC, 0},
    {"rexec", 0, MOUNT_ATTR_NOEXEC},
    {"rnodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"rdiratime", 0, MOUNT_ATTR_NODIRATIME},
    {"rrelatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"rnorelatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"rnoatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"ratime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"rstrictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"rnostrictatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"rnosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
    {"rsymfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
};

static const struct flag_option propagation_options[] = {
    {"private", MS_PRIVATE, false},       {"rprivate", MS_PRIVATE | MS_REC, false},
    {"shared", MS_SHARED, false},         {"rshared", MS_SHARED | MS_REC, false},
    {"slave", MS_SLAVE, false},           {"rslave", MS_SLAVE | MS_REC, false},
    {"unbindable", MS_UNBINDABLE, false}, {"runbindable", MS_UNBINDABLE | MS_REC, false},
};

static const struct {
    const char *name;
    size_t member;
} switch_options[] = {
    {"bind", offsetof(struct mount_options, bind)},
    {"rbind", offsetof(struct mount_options, bind_recursive)},
    {"remount", offsetof(struct mount_options, remount)},
    {"tmpcopyup", offsetof(struct mount_options, copy_up)},
    {"idmap", offsetof(struct mount_options, id_map)},
    {"ridmap", offsetof(struct mount_options, id_map_recursive)},
    {"copy-symlink", offsetof(struct mount_options, copy_symlink)},
    {"src-nofollow", offsetof(struct mount_options, source_nofollow)},
    {"dest-nofollow", offsetof(struct mount_options, destination_nofollow)},
};

static bool take_flag(struct mount_options *ret, const char *option)
{
    for (size_t i = 0; i < ARRAY_SIZE(flag_options); i++) {
        const struct flag_option *found = &flag_options[i];
        if (!text_equal(found->name, option))
            continue;
        ret->set = (ret->set & ~found->flag) | (found->clear ? 0 : found->flag);
        ret->cleared = (ret->cleared & ~found->flag) | (found->clear ? found->flag : 0);
        return true;
    }
    return false;
}

static bool take_attribute(struct mount_options *ret, const char *option)
{
    if (option[0] != 'r')
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(attribute_options); i++) {
        const struct attribute_option *found = &attribute_options[i];
        if (!text_equal(found->name, option))
            continue;
        ret->set_recursive = (ret->set_recursive & ~found->clear) | found->set;
        ret->clear_recursive = (ret->clear_recursive & ~found->set) | found->clear;
        return true;
    }
    return false;
}

static int take_propagation(struct mount_options *ret, const char *option, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(propagation_options); i++) {
        if (!text_equal(propagation_options[i].name, option))
            continue;
        if (ret->propagation_count == MOUNT_PROPAGATIONS_MAX)
            return error_set(err, -E2BIG, "more than %d words of propagation",
                             MOUNT_PROPAGATIONS_MAX);
        ret->propagation[ret->propagation_count++] = propagation_options[i].flag;
        return 1;
    }
    return 0;
}

static bool take_switch(struct mount_options *ret, const char *option)
{
    for (size_t i = 0; i < ARRAY_SIZE(switch_options); i++) {
        if (text_equal(switch_options[i].name, option)) {
            *(bool *)((char *)ret + switch_options[i].member) = true;
            return true;
        }
    }
    return false;
}

/* crun's form "idmap=uids=0-1000-10#10-2000-5;gids=0-1000-10". */
static bool take_id_map_ranges(struct mount_options *ret, const char *option)
{
    bool recursive = text_starts_with(option, "ridmap=");

    if (!recursive && !text_starts_with(option, "idmap="))
        return false;
    ret->id_map = true;
    ret->id_map_recursive = recursive;
    free(ret->id_map_ranges);
    ret->id_map_ranges = xstrdup(strchr(option, '=') + 1);
    return true;
}

static int take_option(struct mount_options *ret, const char *option, struct error *err)
{
    if (!option[0] || text_equal(option, "notmpcopyup") || take_flag(ret, option) ||
        take_attribute(ret, option) || take_switch(ret, option) || take_id_map_ranges(ret, option))
        return 0;
    int r = take_propagation(ret, option, err);
    if (r == 0)
        strv_append(&ret->data, option);
    return r < 0 ? r : 0;
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
    ret->bind |= ret->bind_recursive;
    ret->id_map |= ret->id_map_recursive;
    if (ret->copy_symlink && (ret->source_nofollow || ret->destination_nofollow)) {
        mount_options_finish(ret);
        return error_set(err, -EINVAL,
                         "'copy-symlink' does not go together with 'src-nofollow' and "
                         "'dest-nofollow'");
    }
    return 0;
}

void mount_options_finish(struct mount_options *options)
{
    strv_free(options->data);
    free(options->id_map_ranges);
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

uint64_t mount_options_attributes(unsigned long set)
{
    /* Of these both have the same bits. */
    uint64_t attributes = set & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);

    if (set & MS_NOSYMFOLLOW)
        attributes |= MOUNT_ATTR_NOSYMFOLLOW;
    if (set & MS_NODIRATIME)
        attributes |= MOUNT_ATTR_NODIRATIME;
    if (set & MS_STRICTATIME)
        attributes |= MOUNT_ATTR_STRICTATIME;
    else if (set & MS_NOATIME)
        attributes |= MOUNT_ATTR_NOATIME;
    return attributes;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

_Static_assert(ARRAY_SIZE(flag_options) + ARRAY_SIZE(attribute_options) +
                       ARRAY_SIZE(propagation_options) + ARRAY_SIZE(switch_options) <=
                   MOUNT_OPTION_NAMES_MAX,
               "all names have room");

size_t mount_options_names(const char *ret[MOUNT_OPTION_NAMES_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(flag_options); i++)
        ret[count++] = flag_options[i].name;
    for (size_t i = 0; i < ARRAY_SIZE(attribute_options); i++)
        ret[count++] = attribute_options[i].name;
    for (size_t i = 0; i < ARRAY_SIZE(propagation_options); i++)
        ret[count++] = propagation_options[i].name;
    for (size_t i = 0; i < ARRAY_SIZE(switch_options); i++)
        ret[count++] = switch_options[i].name;
    qsort(ret, count, sizeof(*ret), compare_names);
    return count;
}
