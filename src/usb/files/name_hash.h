/* A hash of names whose key is drawn by chance: who makes a medium cannot choose names that share
 * one. */
#ifndef FILES_NAME_HASH_H
#define FILES_NAME_HASH_H

#include <stdint.h>

struct name_key {
    uint64_t words[2];
};
void name_key_draw(struct name_key *ret_key);

/* Of units of UTF-16: SipHash-1-3. */
uint64_t name_hash(const struct name_key *key, const uint16_t *units, unsigned length);

#endif
