#include <files/tools.h>

#include <errno.h>
#include <string.h>

#include "exfat_check.h"
#include "exfat_format.h"
#include "fat_check.h"
#include "fat_format.h"
#include "kinds.h"

enum { BOOT = 512 };

static const char *const names[] = {
    [VOLUME_FAT12] = "fat12",
    [VOLUME_FAT16] = "fat16",
    [VOLUME_FAT32] = "fat32",
    [VOLUME_EXFAT] = "exfat",
};

int volume_kind_parse(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -EINVAL;
}

const char *volume_kind_name(enum volume_kind kind)
{
    return names[kind];
}

int volume_format(struct medium *medium, const struct format_options *options, struct error *err)
{
    return options->kind == VOLUME_EXFAT ? exfat_format(medium, options, err)
                                         : fat_format(medium, options, err);
}

static bool is_of_the_device(int r)
{
    return r == -EIO || r == -ENODEV || r == -ENOMEDIUM || r == -ETIMEDOUT;
}

/* What a journal holds is brought back before anything is believed and repaired; who does not want
 * that is told. What cannot be mounted is looked at as it is. Findings that are left. */
static int recover(const struct volume_ops *ops, struct medium *medium, bool repair,
                   volume_finding found, void *data, struct error *err)
{
    static const struct finding pending = {
        .what = "the journal has updates that are not in place: repair brings them back"};
    struct volume_options options = {.read_only = !repair};
    struct volume *volume;
    _cleanup_error_ struct error why = ERROR_INIT;
    int r = ops->mount(medium, &options, &volume, &why);
    if (r == 0)
        r = ops->unmount(volume, &why);
    if (is_of_the_device(r))
        return error_set(err, r, "recover the journal: %s", error_message(&why));
    if (medium_recovered(medium) != MEDIUM_PENDING)
        return 0;
    found(&pending, data);
    return 1;
}

static int check_one(const struct volume_ops *ops, struct medium *medium,
                     const struct check_options *options, volume_finding found, void *data,
                     struct error *err)
{
    int pending = recover(ops, medium, options->repair, found, data, err);
    if (pending < 0)
        return pending;
    int r = (ops == &exfat_ops ? exfat_check : fat_check)(medium, options, found, data, err);
    return r < 0 ? r : r + pending;
}

int volume_check(struct medium *medium, const struct check_options *options, volume_finding found,
                 void *data, struct error *err)
{
    uint8_t sector[BOOT];
    int r = medium_size(medium) < BOOT ? -EMEDIUMTYPE
                                       : medium_read(medium, 0, sector, sizeof(sector), err);
    bool exfat = r == 0 && exfat_ops.probe(sector, sizeof(sector));
    bool fat = r == 0 && !exfat && fat_ops.probe(sector, sizeof(sector));
    if (exfat || fat)
        return check_one(exfat ? &exfat_ops : &fat_ops, medium, options, found, data, err);
    if (r == 0 && fat_check_has_backup(medium))
        return fat_check(medium, options, found, data, err);
    return r == 0 || r == -EMEDIUMTYPE
               ? error_set(err, -EMEDIUMTYPE, "there is no volume that we know")
               : r;
}
