/* Requests about one file or folder: attributes, content, the volume as a whole. */
#include "fuse_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <base/clock.h>

enum {
    WRITABLE = 0222,
    SAID_BLOCK = 128 << 10, /* bytes: what programs take for a good size of a buffer */
    MODES_OF_VOLUME = 0777,
};

static struct timespec time_of(int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / CLOCK_SECOND, rest = nanoseconds % CLOCK_SECOND;
    if (rest < 0) {
        seconds--;
        rest += CLOCK_SECOND;
    }
    return (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

static int64_t from_time(struct timespec time)
{
    int64_t most = INT64_MAX / CLOCK_SECOND - 1;
    int64_t seconds = time.tv_sec > most ? most : time.tv_sec < -most ? -most : time.tv_sec;
    return seconds * CLOCK_SECOND + time.tv_nsec;
}

void door_attributes(const struct fuse_door *door, const struct node_facts *facts,
                     struct stat *ret_status)
{
    bool folder = facts->type == NODE_FOLDER;
    mode_t mode = folder ? door->options.folder_mode : door->options.file_mode;
    if (!folder && facts->read_only)
        mode &= ~(mode_t)WRITABLE;
    *ret_status = (struct stat){
        .st_ino = facts->number,
        .st_mode = (folder ? S_IFDIR : S_IFREG) | mode,
        .st_nlink = facts->links,
        .st_uid = door->options.uid,
        .st_gid = door->options.gid,
        .st_size = (off_t)facts->size,
        .st_blocks = (blkcnt_t)(facts->allocated / 512),
        .st_blksize = SAID_BLOCK,
        .st_atim = time_of(facts->accessed),
        .st_mtim = time_of(facts->modified),
        .st_ctim = time_of(facts->modified),
    };
}

static void answer_attributes(fuse_req_t request, struct door_node *node)
{
    struct fuse_door *door = door_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct node_facts facts;
    struct stat status;
    int r = door->volume->ops->node_facts(door->volume, node->node, &facts, &err);
    if (r != 0) {
        door_fail(request, r, &err);
        return;
    }
    door_attributes(door, &facts, &status);
    fuse_reply_attr(request, &status, door_node_is_in_doubt(door, node) ? 0 : door_belief(node));
}

void door_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    struct door_node *node = door_node_of(door_of(request), ino);
    if (!door_is_open(request))
        return;
    if (!info && door_node_is_suspect(door_of(request), node)) /* who writes to it, means it */
        fuse_reply_err(request, ESTALE);
    else
        answer_attributes(request, node);
}

/* What Linux' vfat takes of modes: whether anybody may write is kept of files, all else stays as it
 * is and is no error. */
static unsigned mode_change(const struct fuse_door *door, const struct door_node *node, mode_t mode,
                            struct node_facts *facts)
{
    mode_t full = door->options.file_mode, bits = mode & MODES_OF_VOLUME;
    if (node->type != NODE_FILE || (bits != full && bits != (full & ~(mode_t)WRITABLE)))
        return 0;
    bool read_only = !(bits & WRITABLE);
    if (read_only == facts->read_only)
        return 0;
    facts->read_only = read_only;
    return NODE_ATTRIBUTES;
}

static unsigned time_changes(const struct stat *status, int changes, struct node_facts *facts)
{
    unsigned result = 0;
    if (changes & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
        facts->modified =
            changes & FUSE_SET_ATTR_MTIME_NOW ? clock_now() : from_time(status->st_mtim);
        result |= NODE_MODIFIED;
    }
    if (changes & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
        facts->accessed =
            changes & FUSE_SET_ATTR_ATIME_NOW ? clock_now() : from_time(status->st_atim);
        result |= NODE_ACCESSED;
    }
    return result;
}

static bool may_change(const struct fuse_door *door, const struct stat *status, int changes)
{
    return !((changes & FUSE_SET_ATTR_UID && status->st_uid != door->options.uid) ||
             (changes & FUSE_SET_ATTR_GID && status->st_gid != door->options.gid) ||
             (changes & FUSE_SET_ATTR_MODE && status->st_mode & 07000));
}

/* Files that become longer take what is counted, too. */
static int set_size(struct fuse_door *door, struct door_node *node, unsigned changes,
                    const struct node_facts *now, const struct node_facts *facts, struct error *err)
{
    uint64_t more = changes & NODE_SIZE && facts->size > now->size ? facts->size - now->size : 0;
    if (!door_use(door, more))
        return -ENOSPC;
    int r = door->volume->ops->node_set(door->volume, node->node, changes, facts, err);
    if (r != 0)
        door_unuse(door, more);
    else
        served_tell_changed(door->served, &door->neighbour, node->node);
    return r;
}

void door_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *status, int changes,
                  struct fuse_file_info *info)
{
    struct fuse_door *door = door_of(request);
    struct door_node *node = door_node_of(door, ino);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct node_facts now;
    unsigned what = 0;
    if (!door_is_writable(request))
        return;
    /* Who has it open (info), means it. */
    if (changes & FUSE_SET_ATTR_SIZE && !info && door_node_is_suspect(door, node)) {
        fuse_reply_err(request, ESTALE);
        return;
    }
    int r = door->volume->ops->node_facts(door->volume, node->node, &now, &err);
    struct node_facts facts = now;
    if (r == 0 && !may_change(door, status, changes))
        r = -EPERM;
    if (r == 0) {
        what = time_changes(status, changes, &facts);
        if (changes & FUSE_SET_ATTR_MODE)
            what |= mode_change(door, node, status->st_mode, &facts);
        if (changes & FUSE_SET_ATTR_SIZE) {
            facts.size = (uint64_t)status->st_size;
            what |= NODE_SIZE;
        }
    }
    /* The root folder has no times; that is nobody's fault. */
    if (r == 0 && what != 0 && node != &door->nodes.root)
        r = set_size(door, node, what, &now, &facts, &err);
    if (r != 0)
        door_fail(request, r, &err);
    else
        answer_attributes(request, node);
}

void door_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
               struct fuse_file_info *info)
{
    struct fuse_door *door = door_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    if (!door_is_open(request))
        return;
    if (size > FUSE_DOOR_REQUEST)
        size = FUSE_DOOR_REQUEST;
    int64_t count = volume_read(door->volume, door_node_of(door, ino)->node, (uint64_t)offset,
                                door_self->content, size, &err);
    if (count < 0) {
        door_fail(request, (int)count, &err);
        return;
    }
    if (!door_limit(door, &door->bytes, (uint64_t)count)) {
        fuse_reply_err(request, ENODEV);
        return;
    }
    atomic_fetch_add(&door->bytes_read, (uint64_t)count);
    fuse_reply_buf(request, (char *)door_self->content, (size_t)count);
}

bool door_write_is_small(const struct door_write *write)
{
    return write->result == 0 && write->move.size <= CONTENT_PIECE;
}

static int begin_write(struct fuse_door *door, struct door_write *write, struct node *node,
                       uint64_t offset, uint64_t size, bool alone)
{
    if (!door_use(door, size))
        return -ENOSPC;
    int r = alone
                ? volume_write_begin(door->volume, &write->move, node, offset, size, &write->error)
                : volume_write_try(door->volume, &write->move, node, offset, size, &write->error);
    if (r != 0)
        door_unuse(door, size);
    else
        write->move.dated = door->write_back; /* by SETATTR */
    return r;
}

/* Before it takes its place, for which requests of other doors would wait as long. */
static bool pay(struct fuse_door *door, uint64_t bytes)
{
    return door_limit(door, &door->operations, 1) && door_limit(door, &door->bytes, bytes);
}

int door_write_begin(struct door_thread *thread, const struct fuse_buf *buffer)
{
    struct fuse_door *door = thread->door;
    bool limited = door->operations.per_second || door->bytes.per_second;
    if (limited && thread->write_count > 0)
        return -EAGAIN; /* those that have their places would wait with it */
    const struct fuse_in_header *header = buffer->mem;
    const struct fuse_write_in *in = (const struct fuse_write_in *)(header + 1);
    struct door_write *write = &thread->writes[thread->write_count];
    *write = (struct door_write){.buffer = *buffer, .data = in + 1, .error = ERROR_INIT};
    if (buffer->size < sizeof(*header) + sizeof(*in) ||
        buffer->size - sizeof(*header) - sizeof(*in) < in->size)
        write->result = -EINVAL;
    else if (atomic_load(&door->gone))
        write->result = -ENODEV;
    else if (door->options.read_only)
        write->result = -EROFS;
    else if (!pay(door, in->size))
        write->result = error_set(&write->error, -EIO, "the door is being closed");
    else
        write->result = begin_write(door, write, door_node_of(door, header->nodeid)->node,
                                    in->offset, in->size, thread->write_count == 0);
    if (write->result == -EAGAIN && thread->write_count > 0)
        return -EAGAIN;
    thread->write_count++;
    return 0;
}

/* Of one file: in the order of its bytes, in which it grows. */
static int by_file(const void *a, const void *b)
{
    const struct content_move *left = &(*(struct door_write *const *)a)->move,
                              *right = &(*(struct door_write *const *)b)->move;
    uintptr_t left_file = (uintptr_t)left->file, right_file = (uintptr_t)right->file;
    if (left_file != right_file)
        return left_file < right_file ? -1 : 1;
    return left->offset < right->offset ? -1 : left->offset > right->offset;
}

/* Of those that have their room; others are not moved. */
static void move_small(struct fuse_door *door, struct door_thread *thread)
{
    struct content_piece pieces[CONTENT_PIECES];
    struct door_write *of[CONTENT_PIECES];
    size_t count = 0;
    for (unsigned i = 0; i < thread->write_count; i++) {
        struct door_write *write = &thread->writes[i];
        if (!door_write_is_small(write))
            continue;
        of[count] = write;
        pieces[count++] =
            (struct content_piece){.write = &write->move, .data = write->data, .error = ERROR_INIT};
    }
    volume_write_pieces(door->volume, pieces, count);
    for (size_t i = 0; i < count; i++) {
        of[i]->result = pieces[i].result;
        of[i]->moved = true;
        error_move(&of[i]->error, &pieces[i].error);
    }
}

void door_writes_move(struct door_thread *thread)
{
    struct fuse_door *door = thread->door;
    for (unsigned i = 0; i < thread->write_count; i++)
        thread->ordered[i] = &thread->writes[i];
    qsort(thread->ordered, thread->write_count, sizeof(thread->ordered[0]), by_file);
    move_small(door, thread);
    for (unsigned i = 0; i < thread->write_count; i++) {
        struct door_write *write = &thread->writes[i];
        if (write->result != 0 || write->moved)
            continue;
        write->moved = true;
        write->result =
            volume_write_content(door->volume, &write->move, write->data, &write->error);
    }
}

void door_write(fuse_req_t request, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                struct fuse_file_info *info)
{
    struct fuse_door *door = door_of(request);
    struct node *node = door_node_of(door, ino)->node;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct door_write *write = door_self->write;
    int r = write->result;
    error_move(&err, &write->error);
    if (write->moved) {
        r = volume_write_end(door->volume, &write->move, r, &err);
        if (r != 0)
            door_unuse(door, size);
    }
    if (r != 0) {
        if (door->write_back)
            door_forget_file(door, node);
        door_fail(request, r, &err);
        return;
    }
    atomic_fetch_add(&door->bytes_written, size);
    served_tell_changed(door->served, &door->neighbour, node);
    fuse_reply_write(request, size);
}

/* As Linux' vfat and exfat: files become longer, and have their clusters then; nothing else. */
void door_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
                    struct fuse_file_info *info)
{
    struct fuse_door *door = door_of(request);
    struct door_node *node = door_node_of(door, ino);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct node_facts now;
    if (!door_is_writable(request))
        return;
    if (mode != 0) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    int r = door->volume->ops->node_facts(door->volume, node->node, &now, &err);
    struct node_facts facts = now;
    facts.size = (uint64_t)(offset + length);
    if (r == 0 && facts.size > now.size)
        r = set_size(door, node, NODE_SIZE, &now, &facts, &err);
    if (r != 0)
        door_fail(request, r, &err);
    else
        fuse_reply_err(request, 0);
}

void door_fsync(fuse_req_t request, fuse_ino_t ino, int only_data, struct fuse_file_info *info)
{
    struct fuse_door *door = door_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    if (!door_is_open(request))
        return;
    int r = door->options.read_only ? 0 : medium_sync(door->volume->medium, &err);
    if (r != 0)
        door_fail(request, r, &err);
    else
        fuse_reply_err(request, 0);
}

void door_statfs(fuse_req_t request, fuse_ino_t ino)
{
    struct fuse_door *door = door_of(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct volume_facts facts;
    if (!door_is_open(request))
        return;
    int r = door->volume->ops->facts(door->volume, &facts, &err);
    if (r != 0) {
        door_fail(request, r, &err);
        return;
    }
    struct statvfs status = {
        .f_bsize = facts.cluster_size,
        .f_frsize = facts.cluster_size,
        .f_blocks = facts.clusters,
        .f_bfree = facts.clusters_free,
        .f_bavail = facts.clusters_free,
        .f_namemax = VOLUME_NAME_MAX,
    };
    uint64_t limit = door->options.size_limit, used = atomic_load(&door->used);
    if (limit > 0 && (limit - used) / facts.cluster_size < status.f_bavail)
        status.f_bavail = (limit - used) / facts.cluster_size;
    fuse_reply_statfs(request, &status);
}
