#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <rpc/loop.h>

enum { EVENTS_PER_ROUND = 64, TIMERS_FIRST = 64, TASK_TURNS = 4 };

#define NS_PER_SECOND UINT64_C(1000000000)

struct rpc_loop {
    int epoll_fd;
    int timer_fd;
    int wake_fd;
    struct rpc_watch timer_watch;
    struct rpc_watch wake_watch;
    uint64_t now;
    uint64_t armed;          /* when timer_fd becomes readable; 0: never */
    struct rpc_timer **heap; /* from 1 on: the children of i are 2i and 2i+1 */
    size_t timers, capacity;
    struct epoll_event events[EVENTS_PER_ROUND];
    int events_count; /* of the round that is dispatched; 0: none is */
    bool dispatching;
    bool embedded; /* somebody else waits on the descriptor */
    struct rpc_task *tasks, **last_task;
};

uint64_t rpc_loop_update_now(struct rpc_loop *loop)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    loop->now = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    return loop->now;
}

uint64_t rpc_loop_now(const struct rpc_loop *loop)
{
    return loop->now;
}

/* ---- descriptors ---- */

/* Events of this round that are still to be told are not: the watch may be gone by then. */
static void forget_events(struct rpc_loop *loop, const struct rpc_watch *watch)
{
    for (int i = 0; i < loop->events_count; i++) {
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL;
    }
}

int rpc_loop_watch(struct rpc_loop *loop, struct rpc_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int operation = !events ? EPOLL_CTL_DEL : !watch->events ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    if (events == watch->events)
        return 0;
    if (!events)
        forget_events(loop, watch);
    watch->events = events;
    if (epoll_ctl(loop->epoll_fd, operation, watch->fd, &event) == 0)
        return 0;
    if (operation == EPOLL_CTL_ADD)
        watch->events = 0;
    return -errno;
}

static void on_wake(struct rpc_watch *watch, uint32_t events _unused_)
{
    uint64_t count;

    while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

void rpc_loop_wake(struct rpc_loop *loop)
{
    uint64_t one = 1;

    while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

/* ---- time ---- */

static void heap_put(struct rpc_loop *loop, size_t place, struct rpc_timer *timer)
{
    loop->heap[place] = timer;
    timer->place = place;
}

static void sift_up(struct rpc_loop *loop, size_t place, struct rpc_timer *timer)
{
    while (place > 1 && loop->heap[place / 2]->due > timer->due) {
        heap_put(loop, place, loop->heap[place / 2]);
        place /= 2;
    }
    heap_put(loop, place, timer);
}

static void sift_down(struct rpc_loop *loop, size_t place, struct rpc_timer *timer)
{
    for (;;) {
        size_t child = place * 2;
        if (child > loop->timers)
            break;
        if (child < loop->timers && loop->heap[child + 1]->due < loop->heap[child]->due)
            child++;
        if (loop->heap[child]->due >= timer->due)
            break;
        heap_put(loop, place, loop->heap[child]);
        place = child;
    }
    heap_put(loop, place, timer);
}

/* The descriptor is armed for the first timer; one that was armed too early is only a round that
 * finds nothing, and cheaper than a system call for each timer that is cleared. */
static void arm(struct rpc_loop *loop)
{
    uint64_t due = loop->timers ? loop->heap[1]->due : 0;

    if (!due || (loop->armed && loop->armed <= due))
        return;
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(due / NS_PER_SECOND),
                                           .tv_nsec = (long)(due % NS_PER_SECOND)}};
    loop->armed = due;
    timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void rpc_loop_set_timer(struct rpc_loop *loop, struct rpc_timer *timer, uint64_t due)
{
    rpc_loop_clear_timer(loop, timer);
    if (loop->timers + 1 >= loop->capacity) {
        loop->capacity = loop->capacity ? loop->capacity * 2 : TIMERS_FIRST;
        loop->heap = xrealloc(loop->heap, loop->capacity, sizeof(*loop->heap));
    }
    timer->due = due ? due : 1;
    sift_up(loop, ++loop->timers, timer);
    arm(loop);
}

void rpc_loop_clear_timer(struct rpc_loop *loop, struct rpc_timer *timer)
{
    size_t place = timer->place;

    if (!place)
        return;
    timer->place = 0;
    struct rpc_timer *last = loop->heap[loop->timers--];
    if (last == timer)
        return;
    if (place > 1 && loop->heap[place / 2]->due > last->due)
        sift_up(loop, place, last);
    else
        sift_down(loop, place, last);
}

static void on_time(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct rpc_loop *loop =
        (struct rpc_loop *)((char *)watch - offsetof(struct rpc_loop, timer_watch));
    uint64_t count;

    if (read(watch->fd, &count, sizeof(count)) < 0 && errno == EAGAIN)
        return;
    loop->armed = 0;
}

static void run_timers(struct rpc_loop *loop)
{
    while (loop->timers && loop->heap[1]->due <= loop->now) {
        struct rpc_timer *timer = loop->heap[1];
        rpc_loop_clear_timer(loop, timer);
        timer->callback(timer);
    }
    arm(loop);
}

/* ---- tasks ---- */

static void add_task(struct rpc_loop *loop, struct rpc_task *task)
{
    task->queued = true;
    task->next = NULL;
    *loop->last_task = task;
    loop->last_task = &task->next;
}

void rpc_loop_queue(struct rpc_loop *loop, struct rpc_task *task)
{
    if (task->queued)
        return;
    if (loop->dispatching)
        add_task(loop, task);
    else
        task->callback(task);
}

void rpc_loop_queue_later(struct rpc_loop *loop, struct rpc_task *task)
{
    if (task->queued)
        return;
    if (loop->embedded && !loop->dispatching && !loop->tasks)
        rpc_loop_wake(loop);
    add_task(loop, task);
}

void rpc_loop_unqueue(struct rpc_loop *loop, struct rpc_task *task)
{
    struct rpc_task **at = &loop->tasks;

    if (!task->queued)
        return;
    while (*at != task)
        at = &(*at)->next;
    *at = task->next;
    if (loop->last_task == &task->next)
        loop->last_task = at;
    task->queued = false;
}

/* Tasks queue others, which mostly belong to the same round; but those that do so without end must
 * not keep descriptors and timers waiting. */
static void run_tasks(struct rpc_loop *loop)
{
    for (int turn = 0; turn < TASK_TURNS && loop->tasks; turn++) {
        size_t count = 0;
        for (const struct rpc_task *task = loop->tasks; task; task = task->next)
            count++;
        for (; count && loop->tasks; count--) {
            struct rpc_task *task = loop->tasks;
            rpc_loop_unqueue(loop, task);
            task->callback(task);
        }
    }
    if (loop->tasks && loop->embedded)
        rpc_loop_wake(loop);
}

/* ---- rounds ---- */

static void run_round(struct rpc_loop *loop, int count)
{
    rpc_loop_update_now(loop);
    loop->dispatching = true;
    loop->events_count = count;
    for (int i = 0; i < count; i++) {
        struct rpc_watch *watch = loop->events[i].data.ptr;
        if (watch)
            watch->callback(watch, loop->events[i].events);
    }
    loop->events_count = 0;
    run_timers(loop);
    run_tasks(loop);
    loop->dispatching = false;
}

void rpc_loop_run_once(struct rpc_loop *loop, int timeout_ms)
{
    int count =
        epoll_wait(loop->epoll_fd, loop->events, EVENTS_PER_ROUND, loop->tasks ? 0 : timeout_ms);

    run_round(loop, count < 0 ? 0 : count);
}

void rpc_loop_dispatch(struct rpc_loop *loop)
{
    rpc_loop_run_once(loop, 0);
}

int rpc_loop_fd(struct rpc_loop *loop)
{
    loop->embedded = true;
    return loop->epoll_fd;
}

int rpc_loop_create(struct rpc_loop **ret, struct error *err)
{
    struct rpc_loop *loop = xnew(struct rpc_loop);

    loop->last_task = &loop->tasks;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->timer_watch = (struct rpc_watch){.fd = loop->timer_fd, .callback = on_time};
    loop->wake_watch = (struct rpc_watch){.fd = loop->wake_fd, .callback = on_wake};
    if (loop->epoll_fd < 0 || loop->timer_fd < 0 || loop->wake_fd < 0 ||
        rpc_loop_watch(loop, &loop->timer_watch, EPOLLIN) < 0 ||
        rpc_loop_watch(loop, &loop->wake_watch, EPOLLIN) < 0) {
        int r = error_errno(err, errno, "make an event loop");
        rpc_loop_destroy(loop);
        return r;
    }
    rpc_loop_update_now(loop);
    *ret = loop;
    return 0;
}

void rpc_loop_destroy(struct rpc_loop *loop)
{
    if (!loop)
        return;
    close_fd(loop->epoll_fd);
    close_fd(loop->timer_fd);
    close_fd(loop->wake_fd);
    free(loop->heap);
    free(loop);
}
