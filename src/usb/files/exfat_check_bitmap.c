/* The bitmap beside the marks of what has been walked over. */
#include "exfat_checking.h"

enum { BITS_AT_ONCE = 4096 * 8 };

struct differences {
    uint64_t lost, missing; /* clusters */
    uint32_t first_lost, first_missing;
};

static void compare(const struct exfat_checking *check, const uint8_t *bits, uint32_t from,
                    uint32_t count, struct differences *found)
{
    for (uint32_t i = 0; i < count; i++) {
        bool used = check->marks[(from + i) / 8] & 1 << (from + i) % 8;
        bool taken = bits[i / 8] & 1 << i % 8;
        if (taken && !used && found->lost++ == 0)
            found->first_lost = from + i + EXFAT_FIRST_CLUSTER;
        if (used && !taken && found->missing++ == 0)
            found->first_missing = from + i + EXFAT_FIRST_CLUSTER;
    }
}

static int write_bits(struct exfat_checking *check, uint64_t offset, uint32_t from, size_t bytes,
                      struct error *err)
{
    int r = medium_begin(check->medium, EXFAT_CHECK_SECTORS, err);
    if (r != 0)
        return r;
    r = medium_write(check->medium, offset, check->marks + from / 8, bytes, err);
    if (r == 0)
        medium_end(check->medium);
    else
        medium_abort(check->medium);
    return r;
}

/* A piece of the bitmap that is within one cluster. */
static int check_bits(struct exfat_checking *check, uint64_t offset, uint32_t from, uint32_t count,
                      struct differences *found, struct error *err)
{
    uint8_t bits[BITS_AT_ONCE / 8];
    struct differences before = *found;
    int r = medium_read(check->medium, offset, bits, (count + 7) / 8, err);
    if (r != 0)
        return r;
    compare(check, bits, from, count, found);
    bool differ = found->lost != before.lost || found->missing != before.missing;
    return differ && check->options.repair ? write_bits(check, offset, from, (count + 7) / 8, err)
                                           : 0;
}

int exfat_check_bitmap(struct exfat_checking *check, struct error *err)
{
    struct differences found = {0};
    uint32_t cluster = check->bitmap.first, at = 0, size = check->layout.cluster_size;
    int r = 0;
    for (uint32_t from = 0, count; r == 0 && from < check->layout.clusters; from += count) {
        uint32_t room = (size - at) * 8;
        count = check->layout.clusters - from;
        count = count < room ? count : room;
        count = count < BITS_AT_ONCE ? count : BITS_AT_ONCE;
        r = steps_take(&check->steps, count, err);
        if (r == 0)
            r = check_bits(check, exfat_offset(&check->layout, cluster) + at, from, count, &found,
                           err);
        at += count / 8;
        if (r == 0 && at == size) {
            r = exfat_check_follow(check, false, cluster, &cluster, err);
            at = 0;
        }
    }
    if (found.lost)
        exfat_check_say(check, check->options.repair,
                        "%llu clusters are taken by nobody, the first is %u",
                        (unsigned long long)found.lost, found.first_lost);
    if (found.missing)
        exfat_check_say(check, check->options.repair,
                        "%llu clusters of files are marked as free, the first is %u",
                        (unsigned long long)found.missing, found.first_missing);
    return r;
}
