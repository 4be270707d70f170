/*
 * libcloche-usb: the program's end of a ring (doors/ring_layout.h).
 *
 *     cloche_usb_open    a greeting, and the memory for it
 *     cloche_usb_submit  entries, and a message where the door sleeps
 *     cloche_usb_poll    what is done; asks for a message before it sleeps
 *
 * The data's last BOUNCE bytes are the library's, for those who have data elsewhere.
 */
#include <cloche/usb.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <doors/ring_layout.h>

enum { DATA_DEFAULT = 4 << 20, BOUNCE = 1 << 20, TIMEOUT_DEFAULT = 10000 };

enum slot_state { SLOT_FREE, SLOT_UNDER_WAY, SLOT_DONE };

struct slot {
    enum slot_state state;
    bool is_own; /* of a function that waits */
    int result;
    uint64_t cookie;
    uint32_t next; /* of those that are done */
};

enum { NONE = RING_ENTRIES };

struct cloche_usb {
    int fd;
    struct ring_welcome facts;
    struct ring_shared *shared;
    uint8_t *data;
    size_t data_size; /* without the library's */
    uint32_t submission_tail, completion_head;
    unsigned under_way, own_under_way;
    uint32_t first_done, last_done; /* to be polled */
    bool has_gone;
    struct slot slots[RING_ENTRIES];
};

/* Opening. */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat facts;
    bool is_folder = stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", path,
                          is_folder ? "/socket" : "");
    if (length < 0 || (size_t)length >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int r = -errno;
    close(fd);
    return r;
}

/* The descriptor of the memory. */
static int receive_welcome(struct cloche_usb *usb)
{
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&usb->facts, sizeof(usb->facts)};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    int fd = -1;
    ssize_t size = recvmsg(usb->fd, &message, MSG_CMSG_CLOEXEC);
    if (size < 0)
        return -errno;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    if (size == 0)
        return -ENODEV;
    if (size == sizeof(usb->facts) && usb->facts.magic == RING_MAGIC && usb->facts.result < 0)
        return usb->facts.result;
    if (size == sizeof(usb->facts) && usb->facts.magic == RING_MAGIC &&
        usb->facts.version == RING_VERSION && usb->facts.sector_size > 0 && fd >= 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -EPROTO;
}

static int greet(struct cloche_usb *usb, int timeout_ms)
{
    const struct ring_hello hello = {
        .magic = RING_MAGIC,
        .version = RING_VERSION,
        .data_size = usb->data_size + BOUNCE,
    };
    struct pollfd waiting = {.fd = usb->fd, .events = POLLIN};
    if (send(usb->fd, &hello, sizeof(hello), MSG_NOSIGNAL) < 0)
        return -errno;
    int r = poll(&waiting, 1, timeout_ms);
    if (r <= 0)
        return r < 0 ? -errno : -ETIMEDOUT;
    int memory = receive_welcome(usb);
    if (memory < 0)
        return memory;
    size_t size = RING_DATA_OFFSET + usb->data_size + BOUNCE;
    void *mapped = usb->facts.data_size == hello.data_size
                       ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0)
                       : MAP_FAILED;
    r = mapped == MAP_FAILED ? -ENOMEM : 0;
    close(memory);
    if (r == 0) {
        usb->shared = mapped;
        usb->data = (uint8_t *)mapped + RING_DATA_OFFSET;
    }
    return r;
}

static int check_settings(const struct cloche_usb_settings *settings, size_t *ret_data_size,
                          int *ret_timeout)
{
    size_t wanted = settings ? settings->data_size : 0;
    *ret_timeout = settings && settings->timeout_ms ? settings->timeout_ms : TIMEOUT_DEFAULT;
    if (settings && settings->size != sizeof(*settings))
        return settings->size < sizeof(*settings) ? -EINVAL : -E2BIG;
    if (wanted == 0)
        wanted = DATA_DEFAULT;
    if (wanted > RING_DATA_MOST - BOUNCE)
        return -EINVAL;
    *ret_data_size = (wanted + RING_PAGE - 1) / RING_PAGE * RING_PAGE;
    return 0;
}

int cloche_usb_open(const char *path, const struct cloche_usb_settings *settings,
                    struct cloche_usb **ret)
{
    size_t data_size;
    int timeout;
    int r = check_settings(settings, &data_size, &timeout);
    if (r < 0)
        return r;
    struct cloche_usb *usb = calloc(1, sizeof(*usb));
    if (!usb)
        return -ENOMEM;
    usb->data_size = data_size;
    usb->first_done = usb->last_done = NONE;
    usb->fd = r = connect_to(path);
    if (r >= 0)
        r = greet(usb, timeout);
    if (r < 0)
        cloche_usb_close(usb);
    else
        *ret = usb;
    return r < 0 ? r : 0;
}

void cloche_usb_close(struct cloche_usb *usb)
{
    if (!usb)
        return;
    if (usb->shared)
        munmap(usb->shared, RING_DATA_OFFSET + usb->data_size + BOUNCE);
    if (usb->fd >= 0)
        close(usb->fd);
    free(usb);
}

int cloche_usb_info(const struct cloche_usb *usb, struct cloche_usb_info *ret)
{
    if (ret->size != sizeof(*ret))
        return ret->size < sizeof(*ret) ? -EINVAL : -E2BIG;
    *ret = (struct cloche_usb_info){
        .size = sizeof(*ret),
        .sector_size = usb->facts.sector_size,
        .best_size = usb->facts.best_size,
        .sectors = usb->facts.sectors,
        .data_size = usb->data_size,
        .depth = RING_ENTRIES,
        .read_only = usb->facts.flags & RING_READ_ONLY,
        .flushes = usb->facts.flags & RING_FLUSHES,
        .trims = usb->facts.flags & RING_DISCARDS,
    };
    return 0;
}

void *cloche_usb_data(struct cloche_usb *usb, size_t *ret_size)
{
    if (ret_size)
        *ret_size = usb->data_size;
    return usb->data;
}

int cloche_usb_fd(const struct cloche_usb *usb)
{
    return usb->fd;
}

/* Submitting. */

static bool is_within(const struct cloche_usb *usb, const void *data, size_t size)
{
    uintptr_t first = (uintptr_t)usb->data, at = (uintptr_t)data;
    return at >= first && at - first <= usb->data_size && size <= usb->data_size - (at - first);
}

static void wake_door(struct cloche_usb *usb)
{
    const char message = 0;
    if (atomic_exchange(&usb->shared->door_sleeps, 0))
        send(usb->fd, &message, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* NONE: there is no room. */
static uint32_t free_slot(const struct cloche_usb *usb)
{
    for (uint32_t i = 0; i < RING_ENTRIES; i++) {
        uint32_t at = (usb->submission_tail + i) % RING_ENTRIES;
        if (usb->slots[at].state == SLOT_FREE)
            return at;
    }
    return NONE;
}

/* data: from the beginning of the data. */
static bool put(struct cloche_usb *usb, const struct cloche_usb_request *request, uint64_t data,
                bool is_own)
{
    uint32_t at = free_slot(usb);
    if (at == NONE)
        return false;
    usb->slots[at] =
        (struct slot){.state = SLOT_UNDER_WAY, .is_own = is_own, .cookie = request->cookie};
    usb->shared->submissions[usb->submission_tail % RING_ENTRIES] = (struct ring_submission){
        .cookie = at,
        .offset = request->offset,
        .data = data,
        .length = request->length,
        .operation = (uint16_t)request->operation,
        .flags = request->flags & CLOCHE_USB_DURABLE ? RING_DURABLE : 0,
    };
    usb->submission_tail++;
    usb->under_way++;
    usb->own_under_way += is_own;
    return true;
}

static void publish(struct cloche_usb *usb)
{
    atomic_store(&usb->shared->submission_tail, usb->submission_tail);
    wake_door(usb);
}

static int check(const struct cloche_usb *usb, const struct cloche_usb_request *request)
{
    bool moves = request->operation == CLOCHE_USB_READ || request->operation == CLOCHE_USB_WRITE;
    if ((unsigned)request->operation > CLOCHE_USB_TRIM ||
        request->flags & ~(request->operation == CLOCHE_USB_WRITE ? CLOCHE_USB_DURABLE : 0U))
        return -EINVAL;
    return moves && !is_within(usb, request->data, request->length) ? -EFAULT : 0;
}

int cloche_usb_submit(struct cloche_usb *usb, const struct cloche_usb_request *requests,
                      size_t count)
{
    size_t done = 0;
    int r = usb->has_gone ? -ENODEV : 0;
    while (r == 0 && done < count) {
        const struct cloche_usb_request *request = &requests[done];
        r = check(usb, request);
        uint64_t data = request->data ? (uint64_t)((uint8_t *)request->data - usb->data) : 0;
        if (r != 0 || !put(usb, request, data, false))
            break;
        done++;
    }
    if (done > 0)
        publish(usb);
    return done > 0 ? (int)done : r;
}

/* What is done. */

static void take(struct cloche_usb *usb, uint64_t cookie, int result)
{
    struct slot *slot = cookie < RING_ENTRIES ? &usb->slots[cookie] : NULL;
    if (!slot || slot->state != SLOT_UNDER_WAY)
        return;
    slot->state = SLOT_DONE;
    slot->result = result;
    slot->next = NONE;
    usb->under_way--;
    if (slot->is_own) {
        usb->own_under_way--;
        return;
    }
    if (usb->first_done == NONE)
        usb->first_done = (uint32_t)cookie;
    else
        usb->slots[usb->last_done].next = (uint32_t)cookie;
    usb->last_done = (uint32_t)cookie;
}

static bool take_completions(struct cloche_usb *usb)
{
    uint32_t tail = atomic_load(&usb->shared->completion_tail);
    bool any = tail != usb->completion_head;
    while (usb->completion_head != tail) {
        const struct ring_completion *at =
            &usb->shared->completions[usb->completion_head % RING_ENTRIES];
        take(usb, at->cookie, at->result);
        usb->completion_head++;
    }
    if (any)
        atomic_store(&usb->shared->completion_head, usb->completion_head);
    return any;
}

/* 0: messages were read, or there are none. */
static int read_messages(struct cloche_usb *usb)
{
    char message;
    ssize_t size;
    while ((size = recv(usb->fd, &message, 1, MSG_DONTWAIT)) > 0)
        ;
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    usb->has_gone = true;
    return take_completions(usb) ? 0 : -ENODEV;
}

/* 1: something was done; 0: the time is over. */
static int wait_for_some(struct cloche_usb *usb, int timeout_ms)
{
    struct pollfd waiting = {.fd = usb->fd, .events = POLLIN};
    if (take_completions(usb))
        return 1;
    if (usb->has_gone)
        return -ENODEV;
    atomic_store(&usb->shared->program_sleeps, 1);
    if (take_completions(usb))
        return 1;
    int r = poll(&waiting, 1, timeout_ms);
    if (r < 0)
        return -errno;
    if (r > 0)
        r = read_messages(usb);
    return r < 0 ? r : take_completions(usb);
}

static int64_t now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* A message may be of what was looked at before. */
static int wait_for_results(struct cloche_usb *usb, int timeout_ms)
{
    int64_t until = now_ms() + timeout_ms;
    int r = 0;
    take_completions(usb);
    while (usb->first_done == NONE && usb->under_way > usb->own_under_way) {
        int64_t left = timeout_ms < 0 ? -1 : until - now_ms();
        r = wait_for_some(usb, timeout_ms >= 0 && left < 0 ? 0 : (int)left);
        if (r < 0 || (timeout_ms >= 0 && r == 0 && now_ms() >= until))
            break;
    }
    return usb->first_done != NONE ? 1 : r < 0 ? r : 0;
}

int cloche_usb_poll(struct cloche_usb *usb, struct cloche_usb_result *results, size_t count,
                    int timeout_ms)
{
    size_t done = 0;
    int r = wait_for_results(usb, timeout_ms);
    if (r < 0)
        return r;
    while (done < count && usb->first_done != NONE) {
        struct slot *slot = &usb->slots[usb->first_done];
        results[done++] = (struct cloche_usb_result){slot->cookie, slot->result};
        usb->first_done = slot->next;
        slot->state = SLOT_FREE;
    }
    return done == 0 && usb->has_gone ? -ENODEV : (int)done;
}

/* One at a time. */

static int wait_for_own(struct cloche_usb *usb, uint32_t at)
{
    while (usb->slots[at].state != SLOT_DONE) {
        int r = wait_for_some(usb, -1);
        if (r < 0 && r != -EINTR)
            return r;
    }
    usb->slots[at].state = SLOT_FREE;
    return usb->slots[at].result;
}

/* One that waits; data: as of put(). */
static int do_one(struct cloche_usb *usb, const struct cloche_usb_request *request, uint64_t data)
{
    if (usb->has_gone)
        return -ENODEV;
    for (;;) {
        uint32_t at = free_slot(usb);
        if (put(usb, request, data, true)) {
            publish(usb);
            return wait_for_own(usb, at);
        }
        if (usb->under_way == 0)
            return -EAGAIN; /* results that were not polled have all the room */
        int r = wait_for_some(usb, -1);
        if (r < 0 && r != -EINTR)
            return r;
    }
}

/* Pieces of what the library's own data holds, or all that a request can say. */
static int move(struct cloche_usb *usb, enum cloche_usb_operation operation, uint64_t offset,
                uint8_t *data, size_t size)
{
    bool direct = is_within(usb, data, size);
    size_t most = direct ? RING_DATA_MOST : BOUNCE;
    uint64_t bounce = usb->data_size;
    int r = 0;
    for (size_t done = 0, part; r == 0 && done < size; done += part) {
        part = size - done < most ? size - done : most;
        const struct cloche_usb_request request = {
            .operation = operation, .offset = offset + done, .length = (uint32_t)part};
        if (!direct && operation == CLOCHE_USB_WRITE)
            memcpy(usb->data + bounce, data + done, part);
        r = do_one(usb, &request, direct ? (uint64_t)(data + done - usb->data) : bounce);
        if (r == 0 && !direct && operation == CLOCHE_USB_READ)
            memcpy(data + done, usb->data + bounce, part);
    }
    return size == 0 ? -EINVAL : r;
}

int cloche_usb_read(struct cloche_usb *usb, uint64_t offset, void *data, size_t size)
{
    return move(usb, CLOCHE_USB_READ, offset, data, size);
}

int cloche_usb_write(struct cloche_usb *usb, uint64_t offset, const void *data, size_t size)
{
    return move(usb, CLOCHE_USB_WRITE, offset, (uint8_t *)(uintptr_t)data, size);
}

int cloche_usb_flush(struct cloche_usb *usb)
{
    const struct cloche_usb_request request = {.operation = CLOCHE_USB_FLUSH};
    return do_one(usb, &request, 0);
}

int cloche_usb_trim(struct cloche_usb *usb, uint64_t offset, uint64_t size)
{
    const uint64_t most = UINT32_MAX / usb->facts.sector_size * usb->facts.sector_size;
    int r = size == 0 ? -EINVAL : 0;
    for (uint64_t done = 0, part; r == 0 && done < size; done += part) {
        part = size - done < most ? size - done : most;
        const struct cloche_usb_request request = {
            .operation = CLOCHE_USB_TRIM, .offset = offset + done, .length = (uint32_t)part};
        r = do_one(usb, &request, 0);
    }
    return r;
}
