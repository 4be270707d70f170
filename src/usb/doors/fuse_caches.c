/*
 * What the kernel must forget.
 *
 * Names are compared by the volume's rules, but the kernel knows them by their bytes only. So a
 * name is believed only when it is spelt as it is on the medium, and what there is none of is never
 * believed. That leaves one case: a file is removed or renamed by another spelling, and its own one
 * is in the kernel's cache. It is told then, when the request is answered: within it, the kernel
 * holds the folder's lock, for which telling waits. Until it knows, whoever asks for the file's
 * attributes, as the kernel does before it opens one, hears ESTALE, upon which the kernel looks the
 * path up anew; that it asks is seen to by not letting it believe attributes either of a file that
 * it has found by another spelling, and by taking from it those that it has before the request is
 * answered. That needs no lock of the kernel's.
 *
 * What other doors of the volume change, comes here too. With write-back the kernel keeps the size
 * of a file that is open, whatever it is asked to forget; but data that are stored behind it make
 * the file longer, and so the last byte of one is. That one is shorter, it cannot be told.
 *
 * One thread at a time tells, so that others are left to answer what the kernel may have to wait
 * for.
 */
#include "fuse_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <base/alloc.h>

enum { SPARES_AT_ONCE = 2 };

static struct forgotten **bucket_of(struct fuse_door *door, const struct forgotten *forgotten)
{
    uint64_t hash = forgotten->ino;
    for (const char *at = forgotten->name; *at; at++)
        hash = hash * 31 + (uint8_t)*at;
    hash *= UINT64_C(0x9E3779B97F4A7C15);
    return &door->forget_buckets[(size_t)(hash >> 32) % DOOR_FORGOTTEN_BUCKETS];
}

/* It is to be told already. With the lock. */
static bool is_there(struct fuse_door *door, const struct forgotten *wanted)
{
    const struct forgotten *at = *bucket_of(door, wanted);
    while (at && (at->ino != wanted->ino || at->longer != wanted->longer ||
                  strcmp(at->name, wanted->name) != 0))
        at = at->same;
    return at != NULL;
}

static void settle(struct fuse_door *door, struct forgotten *forgotten);

/* What nobody waits for need not be told twice, and where there is too much of it all is forgotten
 * in place of that. Else it is in the list. With the lock. */
static bool need_not(struct fuse_door *door, const struct forgotten *forgotten)
{
    if (forgotten->stale)
        return false;
    door->forget_all |= door->forget_count >= DOOR_FORGOTTEN;
    return door->forget_count >= DOOR_FORGOTTEN || is_there(door, forgotten);
}

static void add(struct fuse_door *door, fuse_ino_t ino, const char *name, struct door_node *stale,
                struct door_node *longer)
{
    size_t length = strlen(name);
    struct forgotten *forgotten = xcalloc(1, sizeof(*forgotten) + length + 1);
    forgotten->ino = ino;
    forgotten->stale = stale;
    forgotten->longer = longer;
    memcpy(forgotten->name, name, length);
    pthread_mutex_lock(&door->forget_lock);
    bool is_known = need_not(door, forgotten);
    if (!is_known) {
        struct forgotten **bucket = bucket_of(door, forgotten);
        forgotten->same = *bucket;
        *bucket = forgotten;
        *door->forget_end = forgotten;
        door->forget_end = &forgotten->next;
        door->forget_count++;
    }
    pthread_mutex_unlock(&door->forget_lock);
    if (is_known)
        settle(door, forgotten);
    eventfd_write(door->work, 1);
}

bool door_caches_are_full(struct fuse_door *door)
{
    pthread_mutex_lock(&door->forget_lock);
    bool full = door->forget_count >= (size_t)2 * DOOR_FORGOTTEN;
    pthread_mutex_unlock(&door->forget_lock);
    return full;
}

void door_forget_spare(struct fuse_door *door)
{
    fuse_ino_t folder = 0;
    pthread_mutex_lock(&door->forget_lock);
    bool is_behind = door->forget_count >= DOOR_FORGOTTEN / 2;
    pthread_mutex_unlock(&door->forget_lock);
    for (int i = 0; i < SPARES_AT_ONCE && !is_behind; i++) {
        _cleanup_free_ char *name = door_nodes_spare(door, &folder);
        if (!name)
            return;
        add(door, folder, name, NULL, NULL);
    }
}

void door_forget_name(struct fuse_door *door, fuse_ino_t folder, const char *name,
                      const struct node *node)
{
    add(door, folder, name, door_node_stale(door, node), NULL);
}

void door_doubt(struct fuse_door *door, const struct node *node)
{
    fuse_ino_t ino = door_node_known(door, node);
    if (ino != 0 && !atomic_load(&door->quiet))
        fuse_lowlevel_notify_inval_inode(door->session, ino, -1, 0);
}

/* With write-back the kernel keeps the size that it knows until it has forgotten the name, too. */
void door_forget_file(struct fuse_door *door, const struct node *node)
{
    fuse_ino_t ino = door_node_known(door, node), folder = 0;
    if (ino == 0)
        return;
    add(door, ino, "", NULL, NULL);
    _cleanup_free_ char *name = door->write_back ? door_node_name(door, node, &folder) : NULL;
    if (name)
        add(door, folder, name, NULL, NULL);
}

static void hear_changed(struct neighbour *neighbour, struct node *node)
{
    struct fuse_door *door = (struct fuse_door *)neighbour;
    door_forget_file(door, node);
    struct door_node *longer = door->write_back ? door_node_keep(door, node) : NULL;
    if (longer)
        add(door, door_ino(door, longer), "", NULL, longer);
}

static void hear_name_changed(struct neighbour *neighbour, struct node *folder, const char *name)
{
    struct fuse_door *door = (struct fuse_door *)neighbour;
    fuse_ino_t ino = door_node_known(door, folder);
    if (ino == 0)
        return;
    add(door, ino, name, NULL, NULL);
    add(door, ino, "", NULL, NULL);
}

void door_caches_init(struct fuse_door *door)
{
    pthread_mutex_init(&door->forget_lock, NULL);
    pthread_mutex_init(&door->forgetting, NULL);
    door->forget_end = &door->forget;
    door->neighbour.changed = hear_changed;
    door->neighbour.name_changed = hear_name_changed;
}

static struct forgotten *take(struct fuse_door *door, bool *ret_all)
{
    pthread_mutex_lock(&door->forget_lock);
    struct forgotten *list = door->forget;
    *ret_all = door->forget_all;
    door->forget_all = false;
    door->forget = NULL;
    door->forget_end = &door->forget;
    door->forget_count = 0;
    memset(door->forget_buckets, 0, sizeof(door->forget_buckets));
    pthread_mutex_unlock(&door->forget_lock);
    return list;
}

static bool has_work(struct fuse_door *door)
{
    pthread_mutex_lock(&door->forget_lock);
    bool has = door->forget != NULL || door->forget_all;
    pthread_mutex_unlock(&door->forget_lock);
    return has;
}

static void settle(struct fuse_door *door, struct forgotten *forgotten)
{
    if (forgotten->longer)
        door_node_let_be(door, forgotten->longer);
    if (forgotten->stale)
        door_node_settled(door, forgotten->stale);
    free(forgotten);
}

void door_caches_finish(struct fuse_door *door)
{
    for (struct forgotten *at = door->forget, *next; at; at = next) {
        next = at->next;
        settle(door, at);
    }
    pthread_mutex_destroy(&door->forget_lock);
    pthread_mutex_destroy(&door->forgetting);
}

/* The byte may be believed: it is the one that is there. */
static void tell_size(struct fuse_door *door, const struct door_node *told)
{
    struct node *node = told->node;
    struct node_facts facts;
    uint8_t byte;
    struct fuse_bufvec last = FUSE_BUFVEC_INIT(1);
    last.buf[0].mem = &byte;
    if (door->volume->ops->node_facts(door->volume, node, &facts, NULL) == 0 &&
        facts.type == NODE_FILE && facts.size > 0 &&
        volume_read(door->volume, node, facts.size - 1, &byte, 1, NULL) == 1)
        fuse_lowlevel_notify_store(door->session, door_ino(door, told), (off_t)facts.size - 1,
                                   &last, 0);
}

/* What it does not know any more, it answers with an error: nothing is to be done then. */
static void tell(struct fuse_door *door, const struct forgotten *forgotten)
{
    size_t length = strlen(forgotten->name);
    if (forgotten->longer) {
        door_node_told(door, forgotten->longer);
        tell_size(door, forgotten->longer);
    } else if (length > 0) {
        fuse_lowlevel_notify_inval_entry(door->session, forgotten->ino, forgotten->name, length);
    } else {
        fuse_lowlevel_notify_inval_inode(door->session, forgotten->ino, 0, 0);
    }
}

static void tell_known(struct fuse_door *door, struct door_known *known)
{
    if (!atomic_load(&door->quiet)) {
        fuse_lowlevel_notify_inval_entry(door->session, known->folder, known->name,
                                         strlen(known->name));
        fuse_lowlevel_notify_inval_inode(door->session, door_ino(door, known->node), 0, 0);
        if (known->longer)
            tell_size(door, known->node);
    }
    door_node_let_be(door, known->node);
    free(known->name);
}

static void tell_all(struct fuse_door *door)
{
    struct door_known *list;
    ssize_t count;
    for (size_t bucket = 0; (count = door_nodes_known(door, bucket, &list)) >= 0; bucket++) {
        for (ssize_t i = 0; i < count; i++)
            tell_known(door, &list[i]);
        free(list);
    }
    if (!atomic_load(&door->quiet))
        fuse_lowlevel_notify_inval_inode(door->session, FUSE_ROOT_ID, 0, 0);
}

void door_tell_kernel(struct fuse_door *door)
{
    struct forgotten *list, *next;
    bool all;
    while (has_work(door) && pthread_mutex_trylock(&door->forgetting) == 0) {
        door_let_others();
        for (list = take(door, &all); list; list = next) {
            next = list->next;
            if (!atomic_load(&door->quiet))
                tell(door, list);
            settle(door, list);
        }
        if (all)
            tell_all(door);
        pthread_mutex_unlock(&door->forgetting);
    }
}

void door_caches_stop(struct fuse_door *door)
{
    atomic_store(&door->quiet, true);
    pthread_mutex_lock(&door->forgetting);
    pthread_mutex_unlock(&door->forgetting);
}
