#include <block/budget.h>

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <base/alloc.h>

enum { KIB = 1024 };

static uint64_t limit;
static _Atomic uint64_t used[2]; /* by enum budget_use */

void budget_set(uint64_t bytes)
{
    limit = bytes;
}

static uint64_t used_as(enum budget_use use)
{
    return atomic_load_explicit(&used[use], memory_order_relaxed);
}

uint64_t budget_used(void)
{
    return used_as(BUDGET_KEPT) + used_as(BUDGET_FIXED);
}

int budget_check(uint64_t bytes, const char *what, struct error *err)
{
    uint64_t now = budget_used();
    uint64_t left = now < limit ? limit - now : 0;
    if (!limit || bytes <= left)
        return 0;
    error_set(err, -ENOMEM, "%s needs %llu KiB of memory, of %llu KiB there are %llu left", what,
              (unsigned long long)(bytes + KIB - 1) / KIB, (unsigned long long)limit / KIB,
              (unsigned long long)left / KIB);
    return error_hint(err, "what a stick's process has is set by usb.memory: see cloched.conf(5)");
}

bool budget_is_tight(void)
{
    uint64_t fixed = used_as(BUDGET_FIXED);
    return limit && used_as(BUDGET_KEPT) > (fixed < limit ? (limit - fixed) / 2 : 0);
}

void *budget_count(enum budget_use use, void *data)
{
    atomic_fetch_add_explicit(&used[use], malloc_usable_size(data), memory_order_relaxed);
    return data;
}

static void discount(enum budget_use use, void *data)
{
    atomic_fetch_sub_explicit(&used[use], malloc_usable_size(data), memory_order_relaxed);
}

void *budget_resize(enum budget_use use, void *data, size_t count, size_t size)
{
    discount(use, data);
    return budget_count(use, xrealloc(data, count, size));
}

void *budget_new(enum budget_use use, size_t count, size_t size)
{
    return budget_count(use, xcalloc(count, size));
}

void budget_free(enum budget_use use, void *data)
{
    discount(use, data);
    free(data);
}
