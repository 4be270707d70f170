#include "idmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#define LAST_ID (UINT32_MAX - 1) /* (uid_t)-1 is nobody at all */

/* --- subordinate IDs -------------------------------------------------------------------------- */

/* NAME:FIRST:COUNT. 0: another name's. */
static int read_line(const char *line, size_t length, const char *name, struct id_range *ret)
{
    _cleanup_free_ char *text = xstrndup(line, length);
    _cleanup_strv_ char **parts = strv_split(text, ':');
    uint64_t first, count;

    if (strv_length(parts) == 0 || !text_equal(parts[0], name))
        return 0;
    if (strv_length(parts) != 3 || text_to_u64(parts[1], 0, LAST_ID, &first) < 0 ||
        text_to_u64(parts[2], 0, LAST_ID, &count) < 0)
        return -EINVAL;
    if (first == 0)
        return -EPERM;
    if (count == 0 || first + count - 1 > LAST_ID)
        return -EINVAL;
    *ret = (struct id_range){(uint32_t)first, (uint32_t)count};
    return 1;
}

static bool overlaps(const struct id_pool *pool, const struct id_range *range)
{
    for (size_t i = 0; i < pool->count; i++) {
        const struct id_range *other = &pool->ranges[i];

        if (other->first < (uint64_t)range->first + range->count &&
            range->first < (uint64_t)other->first + other->count)
            return true;
    }
    return false;
}

int idmap_read_pool(const char *text, const char *file, const char *name, struct id_pool *ret,
                    struct error *err)
{
    struct id_pool pool = {.count = 0};
    unsigned number = 1;

    for (const char *line = text; *line; number++) {
        size_t length = strcspn(line, "\n");
        struct id_range range;
        int r = read_line(line, length, name, &range);
        if (r == -EPERM)
            return error_set(err, -EINVAL, "%s:%u: %s has ID 0, which is the machine's root", file,
                             number, name);
        if (r < 0)
            return error_set(err, -EINVAL, "%s:%u: '%.*s' is not NAME:FIRST:COUNT", file, number,
                             length > 80 ? 80 : (int)length, line);
        if (r > 0 && pool.count == IDMAP_RANGES_MAX)
            return error_set(err, -EINVAL, "%s: %s has more than %d ranges", file, name,
                             IDMAP_RANGES_MAX);
        if (r > 0 && overlaps(&pool, &range))
            return error_set(err, -EINVAL, "%s:%u: %s has some of these IDs already", file, number,
                             name);
        if (r > 0)
            pool.ranges[pool.count++] = range;
        line += length + (line[length] == '\n');
    }
    if (pool.count == 0) {
        error_set(err, -ENOENT, "%s has no IDs for '%s'", file, name);
        return error_hint(err, "add a line like %s:1000000:1048576 to it, of IDs that nobody has",
                          name),
               -ENOENT;
    }
    *ret = pool;
    return 0;
}

static int by_first(const void *a, const void *b)
{
    const struct id_range *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

static bool find_gap(const struct id_range *within, const struct id_range *used, size_t count,
                     uint32_t size, uint32_t *ret_first)
{
    uint64_t at = within->first, end = at + within->count;

    for (size_t i = 0; i < count && used[i].first < at + size; i++) {
        uint64_t used_end = (uint64_t)used[i].first + used[i].count;
        if (used_end > at)
            at = used_end;
    }
    if (at + size > end)
        return false;
    *ret_first = (uint32_t)at;
    return true;
}

bool idmap_find_free(const struct id_pool *pool, struct id_range *used, size_t used_count,
                     uint32_t size, uint32_t *ret_first)
{
    if (used_count)
        qsort(used, used_count, sizeof(*used), by_first);
    for (size_t i = 0; i < pool->count; i++) {
        if (find_gap(&pool->ranges[i], used, used_count, size, ret_first))
            return true;
    }
    return false;
}

void idmap_fill(const struct id_pool *pool, struct api_id_range ***ret, size_t *ret_count)
{
    uint64_t inside = 0;

    *ret = xnew_array(struct api_id_range *, pool->count + 1);
    *ret_count = 0;
    for (size_t i = 0; i < pool->count && inside + pool->ranges[i].count - 1 <= LAST_ID; i++) {
        struct api_id_range *range = xnew(struct api_id_range);
        range->container_id = (uint32_t)inside;
        range->host_id = pool->ranges[i].first;
        range->size = pool->ranges[i].count;
        (*ret)[(*ret_count)++] = range;
        inside += range->size;
    }
}

/* --- whole mappings --------------------------------------------------------------------------- */

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static bool is_sound(struct api_id_range *const *ranges, size_t count)
{
    bool root = false;

    if (count == 0 || count > IDMAP_RANGES_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct api_id_range *one = ranges[i];
        if (one->size == 0 || one->host_id == 0 ||
            (uint64_t)one->host_id + one->size - 1 > LAST_ID ||
            (uint64_t)one->container_id + one->size - 1 > LAST_ID)
            return false;
        root = root || one->container_id == 0;
        for (size_t j = 0; j < i; j++) {
            const struct api_id_range *other = ranges[j];
            if (overlap(one->host_id, one->size, other->host_id, other->size) ||
                overlap(one->container_id, one->size, other->container_id, other->size))
                return false;
        }
    }
    return root;
}

int idmap_check(const struct api_id_mappings *mappings, struct error *err)
{
    if (!is_sound(mappings->uids, mappings->uids_count))
        return error_set(err, -EBADMSG, "its user IDs are no mapping of a user namespace");
    if (!is_sound(mappings->gids, mappings->gids_count))
        return error_set(err, -EBADMSG, "its group IDs are no mapping of a user namespace");
    return 0;
}

static bool ranges_equal(struct api_id_range *const *a, size_t a_count,
                         struct api_id_range *const *b, size_t b_count)
{
    bool equal = a_count == b_count;

    for (size_t i = 0; equal && i < a_count; i++)
        equal = a[i]->container_id == b[i]->container_id && a[i]->host_id == b[i]->host_id &&
                a[i]->size == b[i]->size;
    return equal;
}

bool idmap_equal(const struct api_id_mappings *a, const struct api_id_mappings *b)
{
    if (!a || !b)
        return a == b;
    return ranges_equal(a->uids, a->uids_count, b->uids, b->uids_count) &&
           ranges_equal(a->gids, a->gids_count, b->gids, b->gids_count);
}

struct api_id_mappings *idmap_copy(const struct api_id_mappings *mappings)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_id_mappings *copy = NULL;

    if (!mappings)
        return NULL;
    api_id_mappings_write(mappings, &text);
    return api_id_mappings_parse(text.data, text.length, NULL, &copy, NULL) == 0 ? copy : NULL;
}

void idmap_write_lines(struct api_id_range *const *ranges, size_t count, struct buffer *out)
{
    for (size_t i = 0; i < count; i++)
        buffer_printf(out, "%" PRIu32 " %" PRIu32 " %" PRIu32 "\n", ranges[i]->container_id,
                      ranges[i]->host_id, ranges[i]->size);
}

uint32_t idmap_root(struct api_id_range *const *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ranges[i]->container_id == 0)
            return ranges[i]->host_id;
    }
    return 0;
}
