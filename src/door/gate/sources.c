#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "gate.h"

enum { IPV6_PREFIX = 8 }; /* bytes: a /64 */

static void make_key(const struct sockaddr_storage *address, unsigned char key[16])
{
    memset(key, 0, 16);
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        memcpy(key, &in6->sin6_addr, IPV6_PREFIX);
        key[15] = 6;
    } else {
        memcpy(key, &((const struct sockaddr_in *)address)->sin_addr, 4);
        key[15] = 4;
    }
}

/* Whoever picks addresses to meet in a bucket needs as many connections as the gate allows. */
static struct source **find(struct sources *sources, const unsigned char key[16])
{
    uint32_t hash = 2166136261U;

    for (int i = 0; i < 16; i++)
        hash = (hash ^ key[i]) * 16777619U;
    struct source **at = &sources->buckets[hash % SOURCE_BUCKETS];
    while (*at && memcmp((*at)->key, key, 16) != 0)
        at = &(*at)->next;
    return at;
}

struct source *source_enter(struct gate *gate, const struct sockaddr_storage *address)
{
    unsigned char key[16];

    make_key(address, key);
    struct source **at = find(&gate->sources, key);
    if (!*at) {
        *at = xnew(struct source);
        memcpy((*at)->key, key, sizeof(key));
    }
    if ((*at)->connections >= gate->config->connections_per_address ||
        (*at)->handshakes >= gate->config->handshakes_per_address)
        return NULL;
    (*at)->connections++;
    (*at)->handshakes++;
    return *at;
}

void source_handshake_done(struct source *source)
{
    source->handshakes--;
}

void source_leave(struct gate *gate, struct source *source, bool in_handshake)
{
    if (in_handshake)
        source->handshakes--;
    if (--source->connections)
        return;
    struct source **at = find(&gate->sources, source->key);
    *at = source->next;
    free(source);
}
