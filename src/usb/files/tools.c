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

/* What a journal holds is brought back before anything is believed. What cannot be mounted is
 * looked at as it is. */
static void recover(const struct volume_ops *ops, struct medium *medium)
{
    struct volume_options options = {0};
    struct volume *volume;
    if (ops->mount(medium, &options, &volume, NULL) == 0)
        ops->unmount(volume, NULL);
}

int volume_check(struct medium *medium, const struct check_options *options, volume_finding found,
                 void *data, struct error *err)
{
    uint8_t sector[BOOT];
    int r = medium_size(medium) < BOOT ? -EMEDIUMTYPE
                                       : medium_read(medium, 0, sector, sizeof(sector), err);
    bool exfat = r == 0 && exfat_ops.probe(sector, sizeof(sector));
    bool fat = r == 0 && !exfat && fat_ops.probe(sector, sizeof(sector));
    if (options->repair && (exfat || fat))
        recover(exfat ? &exfat_ops : &fat_ops, medium);
    if (exfat)
        return exfat_check(medium, options, found, data, err);
    if (fat || (r == 0 && fat_check_has_backup(medium)))
        return fat_check(medium, options, found, data, err);
    return r == 0 || r == -EMEDIUMTYPE
               ? error_set(err, -EMEDIUMTYPE, "there is no volume that we know")
               : r;
}
