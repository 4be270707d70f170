/*
 * What a program does to the memory that it shares with a ring door: entries and indices, step by
 * step. The first byte says whether the door is read-only. The disk is larger than the data, behind
 * which nobody may touch anything.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../src/usb/doors/ring.h"
#include "../usb/recorder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SECTORS = 256, STEP = 33 };
enum step { STEP_ENTRY, STEP_SUBMISSION_TAIL, STEP_COMPLETION_HEAD, STEP_LOOK, STEP_SLEEP, STEPS };

static void wake(void *data)
{
    ++*(unsigned *)data;
}

static void put(struct ring_shared *shared, const uint8_t *entry)
{
    uint32_t tail = atomic_load(&shared->submission_tail);
    memcpy(&shared->submissions[tail % RING_ENTRIES], entry, sizeof(struct ring_submission));
    atomic_store(&shared->submission_tail, tail + 1);
}

/* Everything that was taken is done, since this disk is at once. */
static int look(struct ring *ring, const struct ring_shared *shared)
{
    int r = ring_take(ring, NULL);
    if (atomic_load(&shared->completion_tail) != atomic_load(&shared->submission_head))
        abort();
    return r;
}

static int play(struct ring *ring, struct ring_shared *shared, const uint8_t *step)
{
    uint32_t value;
    memcpy(&value, step + 1, sizeof(value));
    switch ((enum step)(step[0] % STEPS)) {
    case STEP_ENTRY:
        put(shared, step + 1);
        return 0;
    case STEP_SUBMISSION_TAIL:
        atomic_store(&shared->submission_tail, value);
        return look(ring, shared);
    case STEP_COMPLETION_HEAD:
        atomic_store(&shared->completion_head, value);
        return look(ring, shared);
    case STEP_LOOK:
        atomic_store(&shared->program_sleeps, value);
        return look(ring, shared);
    case STEP_SLEEP:
        ring_sleep(ring);
        atomic_store(&shared->completion_head, atomic_load(&shared->completion_tail));
        return 0;
    case STEPS:
        break;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned woken = 0;
    struct ring_welcome welcome;
    struct ring *ring;
    if (size == 0)
        return 0;
    struct recorder *recorder = recorder_create(512, SECTORS);
    bool read_only = data[0] & 1;
    uint64_t wanted = data[0] & 2 ? RING_DATA_LEAST + 1 : RING_DATA_LEAST;
    if (ring_create(recorder_device(recorder), read_only, wanted, wake, &woken, &ring, NULL) == 0) {
        ring_welcome(ring, &welcome);
        void *shared =
            mmap(NULL, RING_DATA_OFFSET, PROT_READ | PROT_WRITE, MAP_SHARED, ring_memory(ring), 0);
        if (shared == MAP_FAILED || welcome.data_size != RING_DATA_LEAST)
            abort();
        for (size_t at = 1; at + STEP <= size; at += STEP)
            if (play(ring, shared, data + at) != 0)
                break;
        munmap(shared, RING_DATA_OFFSET);
        ring_destroy(ring);
    }
    if (read_only && recorder_counts(recorder).writes > 0)
        abort();
    recorder_destroy(recorder);
    return 0;
}
