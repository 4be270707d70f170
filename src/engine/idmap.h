/*
 * Mappings of user namespaces: which IDs of the machine a container's users and groups are.
 * Subordinate IDs are read from texts in the format of subuid(5). Nothing here touches the machine.
 */
#ifndef ENGINE_IDMAP_H
#define ENGINE_IDMAP_H

#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>
#include <base/error.h>
#include <schema/management.h>

enum {
    IDMAP_RANGES_MAX = 32, /* of one name in subuid(5), and of one mapping */
    IDMAP_SIZE_DEFAULT = 65536,
};

/* IDs of the machine. */
struct id_range {
    uint32_t first;
    uint32_t count; /* > 0 */
};

/* What belongs to one name. */
struct id_pool {
    struct id_range ranges[IDMAP_RANGES_MAX];
    size_t count;
};

/* file: the text's name, for messages. -ENOENT: it has no line for name; -EINVAL: such a line makes
 * no sense, has IDs of another one, or gives away ID 0, which is the machine's root. */
int idmap_read_pool(const char *text, const char *file, const char *name, struct id_pool *ret,
                    struct error *err);

/* The first range of size IDs in the pool that touches none of used, which is sorted by this.
 * false: there is none. */
bool idmap_find_free(const struct id_pool *pool, struct id_range *used, size_t used_count,
                     uint32_t size, uint32_t *ret_first);

/* All of the pool, one range after the other from the container's 0 on. The mapping's list is
 * owned by the caller. */
void idmap_fill(const struct id_pool *pool, struct api_id_range ***ret, size_t *ret_count);

/* -EBADMSG: what stands in a record cannot be a mapping: empty, IDs twice on either side, without
 * the container's root, with the machine's, or beyond the last ID. */
int idmap_check(const struct api_id_mappings *mappings, struct error *err);

bool idmap_equal(const struct api_id_mappings *a, const struct api_id_mappings *b);
struct api_id_mappings *idmap_copy(const struct api_id_mappings *mappings); /* NULL stays NULL */

/* As user_namespaces(7) writes them in uid_map. */
void idmap_write_lines(struct api_id_range *const *ranges, size_t count, struct buffer *out);

/* What the container's 0 is on the machine, of a mapping that was checked. */
uint32_t idmap_root(struct api_id_range *const *ranges, size_t count);

#endif
