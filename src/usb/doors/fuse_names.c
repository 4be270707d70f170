/* Requests about names. */
#include "fuse_internal.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <base/alloc.h>

#define JOURNAL "CLOCHE.JNL"

enum { DOTS = 2 }; /* cookies of "." and ".."; those of the volume follow */

#define UNKNOWN_NUMBER UINT32_MAX /* of "." and "..": as libfuse says it */

/* The journal's file is nobody's business. FAT does not see dots and spaces at the end. */
static bool is_journal(fuse_ino_t parent, const char *name)
{
    size_t length = strlen(JOURNAL);
    return parent == FUSE_ROOT_ID && strncasecmp(name, JOURNAL, length) == 0 &&
           name[length + strspn(name + length, ". ")] == '\0';
}

/* What there is of a name: its node, held, and how it is spelt. */
static int find(struct fuse_door *door, fuse_ino_t parent, const char *name, struct node **ret_node,
                char spelling[VOLUME_NAME_MAX + 1], struct error *err)
{
    struct node *folder = door_node_of(door, parent)->node;
    int r = door->volume->ops->spelling(door->volume, folder, name, spelling, err);
    if (r == 0 && is_journal(parent, spelling))
        r = -ENOENT;
    return r == 0 ? door->volume->ops->lookup(door->volume, folder, name, ret_node, err) : r;
}

/* With write-back the kernel says when a file that it gathers something of was changed, unless it
 * believes that already: a new file is as old as the kernel takes it for (times_now()), by its time
 * of creation, which is kept more exactly, so that it is not dated once more when it is written. */
static void date_new(const struct fuse_door *door, struct node_facts *facts)
{
    if (door->write_back && facts->type == NODE_FILE)
        facts->modified = facts->created - facts->created % door->volume->ops->time_step;
}

/* Its node is taken over. */
static int fill_entry(struct fuse_door *door, struct node *node, fuse_ino_t parent,
                      const char *name, bool believed, bool is_new,
                      struct fuse_entry_param *ret_entry, struct error *err)
{
    struct node_facts facts;
    int r = door_nodes_are_full(door, node)
                ? error_set(err, -ENFILE, "too many files are known")
                : door->volume->ops->node_facts(door->volume, node, &facts, err);
    if (r != 0) {
        door->volume->ops->node_drop(door->volume, node, 1);
        return r;
    }
    if (is_new)
        date_new(door, &facts);
    struct door_node *taken = door_node_take(door, node, facts.type, parent, name);
    if (!believed)
        atomic_store(&taken->misspelt, true);
    *ret_entry = (struct fuse_entry_param){
        .ino = door_ino(door, taken),
        .attr_timeout = door_belief(taken),
        .entry_timeout = believed ? DOOR_BELIEF : 0,
    };
    door_attributes(door, &facts, &ret_entry->attr);
    return 0;
}

static int look_up(struct fuse_door *door, fuse_ino_t parent, const char *name,
                   struct fuse_entry_param *ret_entry, struct error *err)
{
    char spelling[VOLUME_NAME_MAX + 1];
    struct node *node;
    int r = find(door, parent, name, &node, spelling, err);
    return r == 0 ? fill_entry(door, node, parent, name, strcmp(name, spelling) == 0, false,
                               ret_entry, err)
                  : r;
}

void door_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct fuse_door *door = door_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct fuse_entry_param entry;
    if (!door_is_open(request))
        return;
    int r = look_up(door, parent, name, &entry, &err);
    if (r != 0)
        door_fail(request, r, &err);
    else if (fuse_reply_entry(request, &entry) != 0)
        door_node_forget(door, door_node_of(door, entry.ino), 1);
}

void door_forget(fuse_req_t request, fuse_ino_t ino, uint64_t lookups)
{
    struct fuse_door *door = door_of(request);
    door_node_forget(door, door_node_of(door, ino), lookups);
    fuse_reply_none(request);
}

void door_forget_many(fuse_req_t request, size_t count, struct fuse_forget_data *forgets)
{
    struct fuse_door *door = door_of(request);
    for (size_t i = 0; i < count; i++)
        door_node_forget(door, door_node_of(door, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(request);
}

/* A new name is spelt as it was given, but for what FAT does not keep at its end. */
static bool is_kept(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && name[length - 1] != '.' && name[length - 1] != ' ';
}

static int make(struct fuse_door *door, fuse_ino_t parent, const char *name, enum node_type type,
                struct fuse_entry_param *ret_entry, struct error *err)
{
    struct node *folder = door_node_of(door, parent)->node, *node;
    if (is_journal(parent, name))
        return error_set(err, -EPERM, "%s is the journal's name", name);
    if (door_nodes_are_full(door, NULL))
        return error_set(err, -ENFILE, "too many files are known");
    int r = door->volume->ops->create(door->volume, folder, name, type, &node, err);
    if (r == 0)
        r = fill_entry(door, node, parent, name, is_kept(name), true, ret_entry, err);
    if (r == 0)
        served_tell_changed(door->served, &door->neighbour, folder);
    return r;
}

static void make_and_answer(fuse_req_t request, fuse_ino_t parent, const char *name,
                            enum node_type type)
{
    struct fuse_door *door = door_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct fuse_entry_param entry;
    if (!door_is_writable(request))
        return;
    int r = make(door, parent, name, type, &entry, &err);
    if (r != 0) {
        door_fail(request, r, &err);
        return;
    }
    if (fuse_reply_entry(request, &entry) != 0)
        door_node_forget(door, door_node_of(door, entry.ino), 1);
}

/* Linux' vfat has no devices. */
void door_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    if (S_ISREG(mode))
        make_and_answer(request, parent, name, NODE_FILE);
    else
        fuse_reply_err(request, EPERM);
}

void door_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
    make_and_answer(request, parent, name, NODE_FOLDER);
}

/* A name is gone that was asked for as `name` and is spelt as `spelling`. */
static void name_is_gone(struct fuse_door *door, fuse_ino_t parent, const char *name,
                         const char *spelling, struct node *node)
{
    struct node *folder = door_node_of(door, parent)->node;
    if (strcmp(name, spelling) != 0) {
        door_forget_name(door, parent, spelling, node);
        door_doubt(door, node);
    }
    served_tell_name(door->served, &door->neighbour, folder, spelling);
    served_tell_changed(door->served, &door->neighbour, node);
}

static void remove_name(fuse_req_t request, fuse_ino_t parent, const char *name,
                        enum node_type type)
{
    struct fuse_door *door = door_of(request);
    struct node *folder = door_node_of(door, parent)->node, *node;
    _cleanup_error_ struct error err = ERROR_INIT;
    char spelling[VOLUME_NAME_MAX + 1];
    if (!door_is_writable(request))
        return;
    int r = door_caches_are_full(door) ? -EBUSY : find(door, parent, name, &node, spelling, &err);
    if (r == 0) {
        r = door->volume->ops->remove(door->volume, folder, name, type, &err);
        if (r == 0)
            name_is_gone(door, parent, name, spelling, node);
        door->volume->ops->node_drop(door->volume, node, 1);
    }
    if (r != 0)
        door_fail(request, r, &err);
    else
        fuse_reply_err(request, 0);
}

void door_unlink(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    remove_name(request, parent, name, NODE_FILE);
}

void door_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    remove_name(request, parent, name, NODE_FOLDER);
}

/* What has the new name may be spelt otherwise, and be in the kernel's cache by that. */
static int move(struct fuse_door *door, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                const char *new_name, bool replace, struct error *err)
{
    char spelling[VOLUME_NAME_MAX + 1], replaced_spelling[VOLUME_NAME_MAX + 1];
    struct node *node, *replaced = NULL, *to = door_node_of(door, new_parent)->node;
    if (is_journal(new_parent, new_name))
        return error_set(err, -EPERM, "%s is the journal's name", new_name);
    if (door_caches_are_full(door))
        return error_set(err, -EBUSY, "the kernel is behind with forgetting");
    int r = find(door, parent, name, &node, spelling, err);
    if (r != 0)
        return r;
    r = find(door, new_parent, new_name, &replaced, replaced_spelling, err);
    if (r == 0 || r == -ENOENT || r == -EINVAL)
        r = door->volume->ops->rename(door->volume, door_node_of(door, parent)->node, name, to,
                                      new_name, replace, err);
    if (r == 0) {
        name_is_gone(door, parent, name, spelling, node);
        door_node_moved(door, node, new_parent, new_name);
        if (!is_kept(new_name))
            door_forget_name(door, new_parent, new_name, NULL);
        if (replaced && replaced != node)
            name_is_gone(door, new_parent, new_name, replaced_spelling, replaced);
        served_tell_changed(door->served, &door->neighbour, to);
    }
    if (replaced)
        door->volume->ops->node_drop(door->volume, replaced, 1);
    door->volume->ops->node_drop(door->volume, node, 1);
    return r;
}

void door_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                 const char *new_name, unsigned flags)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    if (!door_is_writable(request))
        return;
    int r = -EINVAL;
    if (!(flags & ~(unsigned)RENAME_NOREPLACE))
        r = move(door_of(request), parent, name, new_parent, new_name, !(flags & RENAME_NOREPLACE),
                 &err);
    if (r != 0)
        door_fail(request, r, &err);
    else
        fuse_reply_err(request, 0);
}

/* Reading folders. Entries are gathered first, since the volume is not asked anything while it
 * tells them; the attributes of each come afterwards. */

struct gathered {
    uint64_t number;
    off_t next; /* where to go on behind it */
    enum node_type type;
    bool is_dot;
    uint32_t name;  /* where in names */
    fuse_ino_t ino; /* looked up; 0: not */
};

struct gathering {
    fuse_req_t request;
    bool plus;
    fuse_ino_t folder;
    size_t left; /* bytes of the answer */
    struct gathered *entries;
    char *names;
    size_t count, room, names_size, names_room;
};

static bool gather(struct gathering *gathering, const char *name, struct gathered entry)
{
    size_t length = strlen(name) + 1;
    size_t size = gathering->plus
                      ? fuse_add_direntry_plus(gathering->request, NULL, 0, name, NULL, 0)
                      : fuse_add_direntry(gathering->request, NULL, 0, name, NULL, 0);
    if (size > gathering->left)
        return false;
    gathering->left -= size;
    if (gathering->count == gathering->room) {
        gathering->room = gathering->room ? gathering->room * 2 : 32;
        gathering->entries =
            xrealloc(gathering->entries, gathering->room, sizeof(*gathering->entries));
    }
    if (gathering->names_size + length > gathering->names_room) {
        gathering->names_room = gathering->names_room * 2 + length;
        gathering->names = xrealloc(gathering->names, gathering->names_room, 1);
    }
    memcpy(gathering->names + gathering->names_size, name, length);
    entry.name = (uint32_t)gathering->names_size;
    gathering->entries[gathering->count++] = entry;
    gathering->names_size += length;
    return true;
}

static bool hear_entry(const char *name, uint64_t number, enum node_type type, uint64_t cookie,
                       void *data)
{
    struct gathering *gathering = data;
    struct gathered entry = {.number = number, .type = type, .next = (off_t)(cookie + DOTS)};
    return is_journal(gathering->folder, name) || gather(gathering, name, entry);
}

/* 0: there is no room for more, and the volume is not asked. */
static int gather_dots(struct gathering *gathering, off_t offset)
{
    struct gathered entry = {.type = NODE_FOLDER, .is_dot = true, .number = UNKNOWN_NUMBER};
    for (off_t dot = offset; dot < DOTS; dot++) {
        entry.next = dot + 1;
        if (!gather(gathering, dot == 0 ? "." : "..", entry))
            return 0;
    }
    return 1;
}

/* One entry of the answer. What has gone meanwhile is told without attributes. */
static size_t put(struct gathering *gathering, struct gathered *entry, char *at, size_t room)
{
    struct fuse_door *door = door_of(gathering->request);
    const char *name = gathering->names + entry->name;
    struct fuse_entry_param found = {
        .attr.st_ino = entry->number,
        .attr.st_mode = entry->type == NODE_FOLDER ? S_IFDIR : S_IFREG,
    };
    if (!gathering->plus)
        return fuse_add_direntry(gathering->request, at, room, name, &found.attr, entry->next);
    struct fuse_entry_param full;
    if (!entry->is_dot && look_up(door, gathering->folder, name, &full, NULL) == 0) {
        found = full;
        entry->ino = full.ino;
    }
    return fuse_add_direntry_plus(gathering->request, at, room, name, &found, entry->next);
}

static void answer_entries(struct gathering *gathering, size_t size)
{
    struct fuse_door *door = door_of(gathering->request);
    char *answer = (char *)door_self->content;
    size_t used = 0;
    for (size_t i = 0; i < gathering->count; i++)
        used += put(gathering, &gathering->entries[i], answer + used, size - used);
    bool heard = fuse_reply_buf(gathering->request, answer, used) == 0;
    for (size_t i = 0; !heard && i < gathering->count; i++)
        if (gathering->entries[i].ino != 0)
            door_node_forget(door, door_node_of(door, gathering->entries[i].ino), 1);
}

static void read_folder(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
    struct fuse_door *door = door_of(request);
    struct node *folder = door_node_of(door, ino)->node;
    _cleanup_error_ struct error err = ERROR_INIT;
    if (!door_is_open(request))
        return;
    if (size > FUSE_DOOR_REQUEST)
        size = FUSE_DOOR_REQUEST;
    struct gathering gathering = {.request = request, .plus = plus, .folder = ino, .left = size};
    int r = gather_dots(&gathering, offset);
    if (r == 1)
        r = door->volume->ops->read_folder(door->volume, folder,
                                           offset > DOTS ? (uint64_t)(offset - DOTS) : 0,
                                           hear_entry, &gathering, &err);
    if (r < 0 && gathering.count == 0)
        door_fail(request, r, &err);
    else
        answer_entries(&gathering, size);
    free(gathering.entries);
    free(gathering.names);
}

void door_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *info)
{
    read_folder(request, ino, size, offset, false);
}

void door_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *info)
{
    read_folder(request, ino, size, offset, true);
}
