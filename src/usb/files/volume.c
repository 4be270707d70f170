#include <files/volume.h>

#include <errno.h>

#include "content.h"
#include "discards.h"
#include "kinds.h"

enum { BOOT = 512 };

static const struct volume_ops *const kinds[] = {&exfat_ops, &fat_ops};

bool volume_is_known(const uint8_t *sector, size_t size)
{
    for (size_t i = 0; size >= BOOT && i < ARRAY_SIZE(kinds); i++)
        if (kinds[i]->probe(sector, size))
            return true;
    return false;
}

int volume_mount(struct medium *medium, const struct volume_options *options,
                 struct volume **ret_volume, struct error *err)
{
    uint8_t sector[BOOT];
    if (medium_size(medium) < BOOT)
        return error_set(err, -EMEDIUMTYPE, "there is no volume that we know");
    int r = medium_read(medium, 0, sector, sizeof(sector), err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(kinds); i++)
        if (kinds[i]->probe(sector, sizeof(sector)))
            return kinds[i]->mount(medium, options, ret_volume, err);
    return r == 0 ? error_set(err, -EMEDIUMTYPE, "there is no volume that we know") : r;
}

int volume_tick(struct volume *volume, uint64_t now_ms, struct error *err)
{
    int r = medium_tick(volume->medium, now_ms, err);
    if (r == 0 && medium_rests(volume->medium, now_ms))
        r = volume->ops->rest(volume, err);
    int64_t end = discards_end(DISCARDS_A_TICK_MS);
    while (r == 0 && volume->ops->discard(volume) && discards_have_time(end))
        volume_let_others();
    return r;
}
