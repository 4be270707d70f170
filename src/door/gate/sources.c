#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>

#include "gate.h"

enum {
    IPV6_NETWORK = 8, /* bytes: a /64, which one machine may have all of */
    IPV6_SITE = 6,    /* a /48, which one customer may have all of */
    SITE_SHARES = 4,  /* what a site may have, in shares of an address */
    HANDSHAKES_PER_SECOND = 64,
    HANDSHAKES_AT_ONCE = 256,
};

/* bytes: of an IPv6 address. */
static void make_key(const struct sockaddr_storage *address, size_t bytes, unsigned char key[16])
{
    memset(key, 0, 16);
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        memcpy(key, &in6->sin6_addr, bytes);
        key[15] = (unsigned char)bytes;
    } else {
        memcpy(key, &((const struct sockaddr_in *)address)->sin_addr, 4);
        key[15] = 4;
    }
}

static bool is_unused(const struct source *source, uint64_t now)
{
    return !source->connections && source->handshake_rate.paid <= now &&
           source->log_rate.paid <= now;
}

/* Whoever picks addresses to meet in a bucket needs as many connections as the gate allows. Those
 * that are passed and have nothing to remember go. */
static struct source **find(struct gate *gate, const unsigned char key[16])
{
    uint64_t now = rpc_loop_now(gate->loop);
    uint32_t hash = 2166136261U;

    for (int i = 0; i < 16; i++)
        hash = (hash ^ key[i]) * 16777619U;
    struct source **at = &gate->sources.buckets[hash % SOURCE_BUCKETS];
    while (*at && memcmp((*at)->key, key, 16) != 0) {
        struct source *source = *at;
        if (!is_unused(source, now)) {
            at = &source->next;
            continue;
        }
        *at = source->next;
        free(source);
    }
    return at;
}

static struct source *find_or_make(struct gate *gate, const struct sockaddr_storage *address,
                                   size_t bytes)
{
    unsigned char key[16];

    make_key(address, bytes, key);
    struct source **at = find(gate, key);
    if (!*at) {
        *at = xnew(struct source);
        memcpy((*at)->key, key, sizeof(key));
    }
    return *at;
}

static bool has_room(const struct source *source, const struct door_config *config, uint32_t shares)
{
    return source->connections / shares < config->connections_per_address &&
           source->handshakes / shares < config->handshakes_per_address;
}

struct source *source_enter(struct gate *gate, const struct sockaddr_storage *address, bool tls)
{
    const struct door_config *config = gate->config;
    struct source *source = find_or_make(gate, address, IPV6_NETWORK);

    source->connections++; /* in use, while the other one is looked for */
    struct source *site =
        address->ss_family == AF_INET6 ? find_or_make(gate, address, IPV6_SITE) : NULL;
    source->connections--;
    if (!has_room(source, config, 1) || (site && !has_room(site, config, SITE_SHARES)))
        return NULL;
    /* Each one costs a signature. */
    if (tls && !rate_take(site ? &site->handshake_rate : &source->handshake_rate,
                          rpc_loop_now(gate->loop), HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE))
        return NULL;
    source->site = site;
    for (struct source *at = source; at; at = at->site) {
        at->connections++;
        at->handshakes++;
    }
    gate->handshakes++;
    return source;
}

void source_handshake_done(struct gate *gate, struct source *source)
{
    gate->handshakes--;
    for (struct source *at = source; at; at = at->site)
        at->handshakes--;
}

void source_leave(struct gate *gate, struct source *source, bool in_handshake)
{
    uint64_t now = rpc_loop_now(gate->loop);

    if (in_handshake)
        source_handshake_done(gate, source);
    for (struct source *at = source, *site; at; at = site) {
        site = at->site;
        at->connections--;
        if (!is_unused(at, now))
            continue;
        struct source **place = find(gate, at->key);
        if (*place == at) {
            *place = at->next;
            free(at);
        }
    }
}

void sources_finish(struct gate *gate)
{
    for (size_t i = 0; i < SOURCE_BUCKETS; i++) {
        while (gate->sources.buckets[i]) {
            struct source *source = gate->sources.buckets[i];
            gate->sources.buckets[i] = source->next;
            free(source);
        }
    }
}
