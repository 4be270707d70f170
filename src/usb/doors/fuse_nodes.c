#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>

#include "fuse_internal.h"

enum { ROOM_FIRST = 64, PATIENCE = 1 /* seconds */, BUCKETS_LOOKED_AT = 16 };

static _Atomic size_t all; /* of all doors */

static size_t bucket(const struct door_nodes *nodes, const struct node *node)
{
    uint64_t key = (uint64_t)(uintptr_t)node * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(key >> 32) & (nodes->room - 1);
}

void door_nodes_init(struct fuse_door *door)
{
    struct door_nodes *nodes = &door->nodes;
    pthread_mutex_init(&nodes->lock, NULL);
    pthread_cond_init(&nodes->settled, NULL);
    nodes->room = ROOM_FIRST;
    nodes->buckets = xnew_array(struct door_node *, ROOM_FIRST);
    nodes->root.node = door->volume->ops->root(door->volume);
    nodes->root.type = NODE_FOLDER;
}

static void let_go(struct fuse_door *door, struct door_node *node)
{
    door->volume->ops->node_drop(door->volume, node->node, 1);
    free(node->name);
    free(node);
}

void door_nodes_finish(struct fuse_door *door)
{
    struct door_nodes *nodes = &door->nodes;
    for (size_t i = 0; i < nodes->room; i++)
        for (struct door_node *node = nodes->buckets[i], *next; node; node = next) {
            next = node->next;
            let_go(door, node);
        }
    atomic_fetch_sub(&all, nodes->count);
    door->volume->ops->node_drop(door->volume, nodes->root.node, 1);
    free(nodes->buckets);
    pthread_mutex_destroy(&nodes->lock);
    pthread_cond_destroy(&nodes->settled);
}

static void put_in(struct door_nodes *nodes, struct door_node *node)
{
    struct door_node **at = &nodes->buckets[bucket(nodes, node->node)];
    node->next = *at;
    *at = node;
}

static void grow(struct door_nodes *nodes)
{
    struct door_node **old = nodes->buckets;
    size_t room = nodes->room;
    nodes->room *= 2;
    nodes->buckets = xnew_array(struct door_node *, nodes->room);
    for (size_t i = 0; i < room; i++)
        for (struct door_node *node = old[i], *next; node; node = next) {
            next = node->next;
            put_in(nodes, node);
        }
    free(old);
}

static struct door_node *find(const struct door_nodes *nodes, const struct node *node)
{
    struct door_node *found = nodes->buckets[bucket(nodes, node)];
    while (found && found->node != node)
        found = found->next;
    return found;
}

static void set_name(struct door_node *node, fuse_ino_t folder, const char *name)
{
    if (node->folder == folder && node->name && strcmp(node->name, name) == 0)
        return;
    free(node->name);
    node->name = xstrdup(name);
    node->folder = folder;
}

struct door_node *door_node_take(struct fuse_door *door, struct node *node, enum node_type type,
                                 fuse_ino_t folder, const char *name)
{
    struct door_nodes *nodes = &door->nodes;
    pthread_mutex_lock(&nodes->lock);
    struct door_node *found = find(nodes, node);
    bool had = found != NULL;
    if (!had) {
        if (nodes->count++ >= nodes->room)
            grow(nodes);
        found = xnew(struct door_node);
        found->node = node;
        found->type = type;
        put_in(nodes, found);
        atomic_fetch_add(&all, 1);
    }
    found->lookups++;
    found->spared = false;
    found->suspect = found->stale > 0;
    set_name(found, folder, name);
    pthread_mutex_unlock(&nodes->lock);
    if (had)
        door->volume->ops->node_drop(door->volume, node, 1);
    else
        door_forget_spare(door);
    return found;
}

/* Out of the table when nobody needs it. The lock is held. */
static bool take_out(struct door_nodes *nodes, struct door_node *node)
{
    if (node->lookups > 0 || node->stale > 0 || node->kept > 0)
        return false;
    struct door_node **at = &nodes->buckets[bucket(nodes, node->node)];
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    nodes->count--;
    atomic_fetch_sub(&all, 1);
    return true;
}

void door_node_forget(struct fuse_door *door, struct door_node *node, uint64_t times)
{
    if (node == &door->nodes.root)
        return;
    pthread_mutex_lock(&door->nodes.lock);
    node->lookups -= times < node->lookups ? times : node->lookups;
    bool last = take_out(&door->nodes, node);
    pthread_mutex_unlock(&door->nodes.lock);
    if (last)
        let_go(door, node);
}

struct door_node *door_node_stale(struct fuse_door *door, const struct node *node)
{
    if (!node)
        return NULL;
    pthread_mutex_lock(&door->nodes.lock);
    struct door_node *found = find(&door->nodes, node);
    if (found) {
        found->stale++;
        found->suspect = true;
    }
    pthread_mutex_unlock(&door->nodes.lock);
    return found;
}

void door_node_settled(struct fuse_door *door, struct door_node *node)
{
    pthread_mutex_lock(&door->nodes.lock);
    node->stale--;
    node->settled = clock_milliseconds();
    pthread_cond_broadcast(&door->nodes.settled);
    bool last = take_out(&door->nodes, node);
    pthread_mutex_unlock(&door->nodes.lock);
    if (last)
        let_go(door, node);
}

struct door_node *door_node_keep(struct fuse_door *door, const struct node *node)
{
    pthread_mutex_lock(&door->nodes.lock);
    struct door_node *found = find(&door->nodes, node);
    if (found) {
        found->kept++;
        found->longer = true;
    }
    pthread_mutex_unlock(&door->nodes.lock);
    return found;
}

void door_node_let_be(struct fuse_door *door, struct door_node *node)
{
    pthread_mutex_lock(&door->nodes.lock);
    node->kept--;
    bool last = take_out(&door->nodes, node);
    pthread_mutex_unlock(&door->nodes.lock);
    if (last)
        let_go(door, node);
}

void door_node_told(struct fuse_door *door, struct door_node *node)
{
    pthread_mutex_lock(&door->nodes.lock);
    node->longer = false;
    pthread_mutex_unlock(&door->nodes.lock);
}

/* The lock is held. */
static bool in_doubt(struct door_node *node)
{
    if (node->stale == 0 && clock_milliseconds() - node->settled > PATIENCE * 1000)
        node->suspect = false;
    return node->suspect;
}

bool door_node_is_in_doubt(struct fuse_door *door, struct door_node *node)
{
    pthread_mutex_lock(&door->nodes.lock);
    bool doubt = in_doubt(node);
    pthread_mutex_unlock(&door->nodes.lock);
    return doubt;
}

bool door_node_is_suspect(struct fuse_door *door, struct door_node *node)
{
    struct timespec end;
    int r = 0;
    if (node->type != NODE_FILE)
        return false; /* of a folder the kernel has one name only */
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE;
    pthread_mutex_lock(&door->nodes.lock);
    while (node->suspect && node->stale > 0 && r == 0) {
        door_let_others();
        r = pthread_cond_timedwait(&door->nodes.settled, &door->nodes.lock, &end);
    }
    bool suspect = in_doubt(node);
    pthread_mutex_unlock(&door->nodes.lock);
    return suspect;
}

void door_node_moved(struct fuse_door *door, const struct node *node, fuse_ino_t folder,
                     const char *name)
{
    pthread_mutex_lock(&door->nodes.lock);
    struct door_node *found = find(&door->nodes, node);
    if (found)
        set_name(found, folder, name);
    pthread_mutex_unlock(&door->nodes.lock);
}

char *door_node_name(struct fuse_door *door, const struct node *node, fuse_ino_t *ret_folder)
{
    char *name = NULL;
    pthread_mutex_lock(&door->nodes.lock);
    const struct door_node *found = find(&door->nodes, node);
    if (found) {
        name = xstrdup(found->name);
        *ret_folder = found->folder;
    }
    pthread_mutex_unlock(&door->nodes.lock);
    return name;
}

fuse_ino_t door_node_known(struct fuse_door *door, const struct node *node)
{
    struct door_nodes *nodes = &door->nodes;
    if (node == nodes->root.node)
        return FUSE_ROOT_ID;
    pthread_mutex_lock(&nodes->lock);
    const struct door_node *found = find(nodes, node);
    pthread_mutex_unlock(&nodes->lock);
    return (fuse_ino_t)(uintptr_t)found;
}

bool door_nodes_are_full(struct fuse_door *door, const struct node *node)
{
    return atomic_load(&all) >= (size_t)2 * DOOR_NODES &&
           (!node || door_node_known(door, node) == 0);
}

/* A folder only when it must be: who works in it does not know any more where that is. */
static struct door_node *spare_of(struct door_nodes *nodes, bool also_folders)
{
    struct door_node *node = nodes->buckets[nodes->hand];
    for (; node; node = node->next) {
        if (node->stale > 0 || (node->type != NODE_FILE && !also_folders))
            continue;
        if (!node->spared)
            return node;
        node->spared = false; /* the kernel needs it; the next time round */
    }
    return NULL;
}

char *door_nodes_spare(struct fuse_door *door, fuse_ino_t *ret_folder)
{
    struct door_nodes *nodes = &door->nodes;
    size_t known = atomic_load(&all);
    char *name = NULL;
    if (known <= DOOR_NODES)
        return NULL;
    pthread_mutex_lock(&nodes->lock);
    for (int i = 0; i < BUCKETS_LOOKED_AT && !name && nodes->count > DOOR_NODES_FAIR; i++) {
        struct door_node *node = spare_of(nodes, known > DOOR_NODES / 2 * 3);
        if (!node) {
            nodes->hand = (nodes->hand + 1) & (nodes->room - 1);
            continue;
        }
        node->spared = true;
        name = xstrdup(node->name);
        *ret_folder = node->folder;
    }
    pthread_mutex_unlock(&nodes->lock);
    return name;
}

ssize_t door_nodes_known(struct fuse_door *door, size_t at, struct door_known **ret_list)
{
    struct door_nodes *nodes = &door->nodes;
    ssize_t count = 0;
    *ret_list = NULL;
    pthread_mutex_lock(&nodes->lock);
    for (struct door_node *node = at < nodes->room ? nodes->buckets[at] : NULL; node;
         node = node->next) {
        *ret_list = xrealloc(*ret_list, (size_t)count + 1, sizeof(**ret_list));
        node->kept++;
        (*ret_list)[count++] =
            (struct door_known){node->folder, node, xstrdup(node->name), node->longer};
        node->longer = false;
    }
    bool is_over = at >= nodes->room;
    pthread_mutex_unlock(&nodes->lock);
    return is_over ? -1 : count;
}
