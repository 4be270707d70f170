#include "lingering.h"

#include <net/if.h>

#include <uv.h>

#include <base/alloc.h>
#include <base/log.h>
#include <net/net.h>

#include "disk.h"
#include "internal.h"

enum { LOOK_MS = 1000, LOOKS = 3 };

struct left_link {
    struct disk_job job;
    struct left_link *next;
    unsigned index; /* the kernel gives none twice, a name it does */
    struct in_addr address;
    unsigned looks; /* at which it was there */
    struct error err;
};

struct lingering {
    uv_timer_t timer;
    struct engine *engine;
    struct left_link *first;
};

static bool is_there(const struct left_link *left)
{
    char name[IF_NAMESIZE];

    return if_indextoname(left->index, name) != NULL;
}

static void left_link_free(struct left_link *left)
{
    error_finish(&left->err);
    free(left);
}

static void delete_work(struct disk_job *job)
{
    struct left_link *left = disk_job_of(job, struct left_link, job);

    (void)net_link_delete_index(left->index, &left->err);
}

static void delete_done(struct disk_job *job)
{
    struct left_link *left = disk_job_of(job, struct left_link, job);

    if (left->err.code < 0)
        log_failure(LOG_WARNING, &left->err, "the link of a container that has ended stays");
    left_link_free(left);
}

/* One at a look: where very many have ended at once, the kernel is about to delete them itself. */
static void on_timer(uv_timer_t *timer)
{
    struct lingering *lingering = timer->data;
    struct left_link **place = &lingering->first;
    bool deleting = false;

    while (*place) {
        struct left_link *left = *place;
        bool there = is_there(left);

        if (there && (++left->looks <= LOOKS || deleting)) {
            place = &left->next;
            continue;
        }
        *place = left->next;
        if (!there) {
            left_link_free(left);
            continue;
        }
        left->job.work = delete_work;
        left->job.done = delete_done;
        disk_submit(lingering->engine->disk, &left->job);
        deleting = true;
    }
    if (!lingering->first)
        uv_timer_stop(timer);
}

static struct lingering *begin(struct engine *engine)
{
    if (!engine->lingering) {
        engine->lingering = xnew(struct lingering);
        engine->lingering->engine = engine;
        engine->lingering->timer.data = engine->lingering;
        uv_timer_init(engine->loop, &engine->lingering->timer);
    }
    return engine->lingering;
}

void lingering_add(struct engine *engine, const char *link, struct in_addr address)
{
    unsigned index = if_nametoindex(link);

    if (index == 0 || engine->ending)
        return;
    struct lingering *lingering = begin(engine);
    struct left_link *left = xnew(struct left_link);

    left->index = index;
    left->address = address;
    left->next = lingering->first;
    lingering->first = left;
    if (!uv_is_active((uv_handle_t *)&lingering->timer))
        uv_timer_start(&lingering->timer, on_timer, LOOK_MS, LOOK_MS);
}

void lingering_give_way(struct engine *engine, struct in_addr address)
{
    struct left_link *left = engine->lingering ? engine->lingering->first : NULL;

    for (; left; left = left->next) {
        _cleanup_error_ struct error err = ERROR_INIT;

        if (left->address.s_addr != address.s_addr || !is_there(left))
            continue;
        if (net_link_delete_index(left->index, &err) < 0)
            log_failure(LOG_WARNING, &err, "two links have the same address");
    }
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void lingering_end(struct engine *engine)
{
    struct lingering *lingering = steal_ptr(engine->lingering);

    if (!lingering)
        return;
    while (lingering->first) {
        struct left_link *left = lingering->first;

        lingering->first = left->next;
        left_link_free(left);
    }
    uv_close((uv_handle_t *)&lingering->timer, on_closed);
}
