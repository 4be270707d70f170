/*
 * Files in the format of subuid(5), and ranges chosen from them. The name looked for is "a"; the
 * first byte says how many IDs are wanted, the second how many are in use at the beginning.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include "idmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pool(const struct id_pool *pool)
{
    if (pool->count == 0 || pool->count > IDMAP_RANGES_MAX)
        abort();
    for (size_t i = 0; i < pool->count; i++) {
        const struct id_range *range = &pool->ranges[i];

        if (range->first == 0 || range->count == 0 ||
            (uint64_t)range->first + range->count - 1 > UINT32_MAX - 1)
            abort();
    }
}

static bool holds(const struct id_pool *pool, uint64_t first, uint64_t count)
{
    for (size_t i = 0; i < pool->count; i++) {
        const struct id_range *range = &pool->ranges[i];

        if (first >= range->first && first + count <= (uint64_t)range->first + range->count)
            return true;
    }
    return false;
}

static void choose(const struct id_pool *pool, uint32_t wanted, uint32_t taken)
{
    struct id_range used = {pool->ranges[0].first, taken};
    uint32_t first;

    if (!idmap_find_free(pool, &used, taken ? 1 : 0, wanted, &first))
        return;
    if (!holds(pool, first, wanted) || (taken && first < (uint64_t)used.first + used.count &&
                                        used.first < (uint64_t)first + wanted))
        abort();
}

/* What is recorded can be read again. */
static void fill(const struct id_pool *pool)
{
    _cleanup_api_id_mappings_ struct api_id_mappings *mappings = xnew(struct api_id_mappings);
    _cleanup_error_ struct error err = ERROR_INIT;

    mappings->kind = xstrdup("remap");
    idmap_fill(pool, &mappings->uids, &mappings->uids_count);
    idmap_fill(pool, &mappings->gids, &mappings->gids_count);
    if (idmap_check(mappings, &err) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct id_pool pool;

    if (size < 2)
        return 0;
    _cleanup_free_ char *text = xstrndup((const char *)data + 2, size - 2);
    int r = idmap_read_pool(text, "/etc/subuid", "a", &pool, &err);
    if (r < 0) {
        if ((r != -ENOENT && r != -EINVAL) || !error_message(&err)[0])
            abort();
        return 0;
    }
    check_pool(&pool);
    choose(&pool, data[0] + 1U, data[1]);
    fill(&pool);
    return 0;
}
