/*
 * The threads of a FUSE door.
 *
 * Main flow of a thread: take the turn -> wait for a request -> read it -> wait as the limits say
 * -> answer it (fuse_names.c, fuse_content.c) -> tell the kernel what it must forget
 * (fuse_caches.c).
 *
 * One thread has the turn to wait for requests and to read them. It keeps it while it answers, so
 * that a program that asks for one thing after the other wakes one and the same thread, and gives
 * it away before it waits for anything (block/waiting.h): then the next one goes on. While large
 * writes come it gives it away before it reads, since the kernel copies their content meanwhile;
 * they take their places in order nevertheless (arrivals.h).
 */
#include "fuse_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <base/alloc.h>
#include <block/waiting.h>

enum {
    PAGE = 4096,
    HEADER = 4096,        /* bytes that libfuse wants beside the content of a request */
    BEFORE_CONTENT = 80,  /* of a WRITE: struct fuse_in_header, struct fuse_write_in */
    GATHERED = 256 << 10, /* bytes of small writes that are answered together */
    MEMORY = PAGE + GATHERED + FUSE_DOOR_REQUEST + HEADER,
};

_Thread_local struct door_thread *door_self;

static void end_threads(struct fuse_door *door)
{
    atomic_store(&door->ending, true);
    eventfd_write(door->wake, 1);
}

static uint32_t opcode_of(const struct fuse_buf *buffer)
{
    const struct fuse_in_header *header = buffer->mem;
    return buffer->size >= sizeof(*header) ? header->opcode : 0;
}

static bool is_limited(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_WRITE: /* is, in its first part */
        return false;
    default:
        return true;
    }
}

static void answer(struct door_thread *thread, const struct fuse_buf *buffer)
{
    struct fuse_door *door = thread->door;
    atomic_fetch_add(&door->requests, 1);
    if (is_limited(opcode_of(buffer)))
        door_limit(door, &door->operations, 1);
    fuse_session_process_buf(door->session, buffer);
    door_tell_kernel(door);
}

static void answer_writes(struct door_thread *thread)
{
    door_writes_move(thread);
    for (unsigned i = 0; i < thread->write_count; i++) {
        thread->write = thread->ordered[i];
        answer(thread, &thread->write->buffer);
    }
    thread->write_count = 0;
}

static void give_turn_away(struct door_thread *thread)
{
    if (!thread->has_turn)
        return;
    thread->has_turn = false;
    pthread_mutex_unlock(&thread->door->turn);
}

void door_let_others(void)
{
    if (!door_self)
        return;
    arrival_ends(&door_self->door->arrivals, door_self->arrival);
    give_turn_away(door_self);
}

static void take_turn(struct door_thread *thread)
{
    if (thread->has_turn)
        return;
    pthread_mutex_lock(&thread->door->turn);
    thread->has_turn = true;
}

static bool was_queued(uint32_t opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

/* Reads a request, as fuse_session_receive_buf() does. Where large writes are expected, others may
 * read the next ones meanwhile. */
static int receive(struct door_thread *thread, struct fuse_buf *buffer)
{
    struct fuse_door *door = thread->door;
    struct fuse_in_header *header = buffer->mem;
    arrival_begins(thread->arrival, (_Atomic uint64_t *)&header->unique);
    if (thread->write_count == 0 && atomic_load(&door->many_large) &&
        arrivals_are_ordered(&door->arrivals))
        give_turn_away(thread);
    int r = fuse_session_receive_buf(door->session, buffer);
    if (r > 0 && thread->has_turn && was_queued(opcode_of(buffer)))
        arrivals_look(&door->arrivals, header->unique);
    bool is_write = r > 0 && opcode_of(buffer) == FUSE_WRITE;
    if (!is_write)
        arrival_ends(&door->arrivals, thread->arrival);
    if (r > 0)
        atomic_store(&door->many_large, is_write && buffer->size > CONTENT_PIECE + PAGE);
    return r;
}

/* In the order in which the kernel asks. Returns as door_write_begin() does. */
static int begin_write(struct door_thread *thread, const struct fuse_buf *buffer)
{
    struct arrivals *all = &thread->door->arrivals;
    arrivals_wait(all, thread->arrival);
    int r = door_write_begin(thread, buffer);
    arrival_ends(all, thread->arrival);
    return r;
}

/* Small writes that come one after the other are answered together. Returns as reading does: of the
 * first request that is none of them, which *buffer is. */
static int gather_writes(struct door_thread *thread, struct fuse_buf *buffer)
{
    size_t used = 0;
    int r = 1;
    while (r > 0 && opcode_of(buffer) == FUSE_WRITE && begin_write(thread, buffer) == 0) {
        used += (buffer->size + 7) / 8 * 8;
        *buffer = (struct fuse_buf){.mem = thread->memory + used};
        r = 0;
        if (thread->has_turn && thread->write_count < CONTENT_PIECES && used < GATHERED &&
            door_write_is_small(&thread->writes[thread->write_count - 1]))
            r = receive(thread, buffer);
        else
            break;
    }
    return r;
}

/* What came behind writes: its place is that of any other request, whose answer may need the rest
 * of the memory. */
static void move_to_front(struct door_thread *thread, struct fuse_buf *buffer)
{
    memmove(thread->memory, buffer->mem, buffer->size);
    buffer->mem = thread->memory;
}

static bool nothing_came(int r)
{
    return r == 0 || r == -EAGAIN || r == -EINTR;
}

/* Reads and answers what there is. 0: nothing, for now; negative: nothing any more. */
static int answer_next(struct door_thread *thread)
{
    struct fuse_buf buffer = {.mem = thread->memory};
    int r = receive(thread, &buffer);
    if (r == 0)
        return -ENODEV;
    while (r > 0 && opcode_of(&buffer) == FUSE_WRITE) {
        r = gather_writes(thread, &buffer);
        answer_writes(thread);
        if (r > 0)
            move_to_front(thread, &buffer);
    }
    if (r > 0)
        answer(thread, &buffer);
    return r > 0 ? 1 : nothing_came(r) ? 0 : r;
}

/* What the thread that has the turn waits for. A descriptor that cannot be watched cannot be read
 * either, which each thread tries before it waits for the first time. */
int door_threads_watch(struct fuse_door *door, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN};
    door->poll = epoll_create1(EPOLL_CLOEXEC);
    int r = door->poll < 0 ? -1 : 0;
    if (r == 0) {
        epoll_ctl(door->poll, EPOLL_CTL_ADD, fuse_session_fd(door->session), &event);
        r = epoll_ctl(door->poll, EPOLL_CTL_ADD, door->wake, &event);
    }
    event.events = EPOLLIN | EPOLLET;
    if (r == 0)
        r = epoll_ctl(door->poll, EPOLL_CTL_ADD, door->work, &event);
    return r == 0 ? 0 : error_errno(err, errno, "watch a FUSE connection");
}

/* Not of medium_buffer(): FUSE takes the pages of what it copies to and from, and memory that usbfs
 * has mapped (VM_PFNMAP) has none that can be taken: EFAULT. */
static uint8_t *new_memory(unsigned count)
{
    void *memory;
    if (posix_memalign(&memory, PAGE, (size_t)count * MEMORY) != 0)
        abort();
    return memory;
}

static void *work(void *data)
{
    struct fuse_door *door = data;
    unsigned number = atomic_fetch_add(&door->threads_begun, 1);
    uint8_t *memory = door->memory + (size_t)number * MEMORY;
    struct door_thread thread = {
        .door = door,
        .arrival = &door->arrivals.items[number],
        .memory = memory + PAGE - BEFORE_CONTENT,
        .content = memory + PAGE,
    };
    struct epoll_event event;
    door_self = &thread;
    block_before_waiting = door_let_others;
    take_turn(&thread);
    int r = answer_next(&thread);
    while (!atomic_load(&door->ending) && r >= 0) {
        take_turn(&thread);
        epoll_wait(door->poll, &event, 1, -1);
        door_tell_kernel(door);
        if (thread.has_turn)
            r = answer_next(&thread);
    }
    door_let_others();
    if (!atomic_load(&door->ending)) {
        if (r == -ENODEV)
            door_ended(door, FUSE_DOOR_UNMOUNTED, "it was unmounted, or its connection aborted");
        else
            door_ended(door, FUSE_DOOR_FAILED, "read requests: %s", strerror(-r));
        end_threads(door);
    }
    return NULL;
}

int door_threads_start(struct fuse_door *door, struct error *err)
{
    unsigned count = door->options.threads;
    door->threads = xnew_array(pthread_t, count);
    door->memory = new_memory(count);
    arrivals_init(&door->arrivals, count);
    for (; door->thread_count < count; door->thread_count++) {
        int r = pthread_create(&door->threads[door->thread_count], NULL, work, door);
        if (r != 0)
            return error_errno(err, r, "start a thread of a door");
    }
    return 0;
}

void door_threads_end(struct fuse_door *door)
{
    end_threads(door);
    for (unsigned i = 0; i < door->thread_count; i++)
        pthread_join(door->threads[i], NULL);
}
