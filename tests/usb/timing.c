#include "timing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/stream.h>

enum { DEPTH_MOST = 64, PAGE = 4096 };

bool timing_parse(char **words, struct timing *ret_timing)
{
    struct timing timing = {0};

    if (!words[0] || !words[1])
        return false;
    timing.size = (uint32_t)strtoul(words[0], NULL, 10);
    timing.count = (unsigned)strtoul(words[1], NULL, 10);
    for (words += 2; *words; words++) {
        if (strcmp(*words, "write") == 0)
            timing.write = true;
        else if (strcmp(*words, "random") == 0)
            timing.random = true;
        else if (strcmp(*words, "ahead") == 0)
            timing.ahead = true;
        else if (strcmp(*words, "depth") == 0 && words[1])
            timing.depth = (unsigned)strtoul(*++words, NULL, 10);
        else if (strcmp(*words, "rounds") == 0 && words[1])
            timing.rounds = (unsigned)strtoul(*++words, NULL, 10);
        else if (strcmp(*words, "beside") == 0 && words[1])
            timing.beside = *++words;
        else
            return false;
    }
    *ret_timing = timing;
    return timing.size > 0 && timing.count > 0 && timing.depth <= DEPTH_MOST &&
           !(timing.ahead && timing.depth > 1); /* each would begin the next from within */
}

static int64_t nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * CLOCK_SECOND + now.tv_nsec;
}

/* Places come from a generator of fixed seed, so that both sides go to the same ones. */
static uint64_t place(const struct timing *timing, unsigned number, uint64_t whole)
{
    uint64_t places = whole / timing->size, state = number * 0x9e3779b97f4a7c15 + 1;

    if (!timing->random)
        return number % places * timing->size;
    state ^= state >> 31;
    state *= 0xbf58476d1ce4e5b9;
    state ^= state >> 29;
    return state % places * timing->size;
}

static int compare(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return left < right ? -1 : left > right;
}

/* How often the process has waited: unlike times, that is the same on a busy machine. */
static long waits(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
}

struct begun {
    int64_t at;
    long waits;
};

static struct begun begin(void)
{
    return (struct begun){nanoseconds(), waits()};
}

static void print_times(const struct timing *timing, const char *side, int64_t *times,
                        const struct begun *begun)
{
    double seconds = (double)(nanoseconds() - begun->at) / 1e9;
    double each = (double)(waits() - begun->waits) / timing->count;

    qsort(times, timing->count, sizeof(*times), compare);
    printf("%s %u: p50 %.1f us, p99 %.1f us, p99.9 %.1f us, %.2f MB/s, %.2f waits each\n", side,
           timing->size, (double)times[timing->count / 2] / 1e3,
           (double)times[timing->count * 99ULL / 100] / 1e3,
           (double)times[timing->count * 999ULL / 1000] / 1e3,
           (double)timing->size * timing->count / seconds / 1e6, each);
    fflush(stdout);
}

struct lane {
    struct block_request request; /* first */
    int64_t begun;
    struct course *course;
};

struct course {
    const struct timing *timing;
    struct block_device *disk;
    int64_t *times;
    unsigned next; /* on the device's thread, but for the first of each lane */
    unsigned done;
    int result;
    sem_t ended;
};

static void lane_go(struct lane *lane)
{
    struct course *course = lane->course;
    uint64_t whole = course->disk->sectors * course->disk->sector_size;

    lane->request.operation = course->timing->write ? BLOCK_WRITE : BLOCK_READ;
    lane->request.sector = place(course->timing, course->next++, whole) / course->disk->sector_size;
    lane->request.count = course->timing->size / course->disk->sector_size;
    lane->begun = nanoseconds();
    block_submit(course->disk, &lane->request);
}

static void on_done(struct block_request *request)
{
    struct lane *lane = request->owner;
    struct course *course = lane->course;

    course->times[course->done++] = nanoseconds() - lane->begun;
    if (request->result != 0)
        course->result = request->result;
    if (course->result == 0 && course->next < course->timing->count)
        lane_go(lane);
    else
        sem_post(&course->ended);
}

static int run_lanes(struct block_device *disk, const struct timing *timing, struct error *err)
{
    unsigned depth = timing->depth < timing->count ? timing->depth : timing->count;
    struct lane *lanes = xcalloc(depth, sizeof(*lanes));
    struct course course = {.timing = timing, .disk = disk, .next = depth};
    uint64_t whole = disk->sectors * disk->sector_size;

    course.times = xcalloc(timing->count, sizeof(*course.times));
    sem_init(&course.ended, 0, 0);
    for (unsigned i = 0; i < depth; i++) {
        lanes[i] = (struct lane){
            .request = {.operation = timing->write ? BLOCK_WRITE : BLOCK_READ,
                        .sector = place(timing, i, whole) / disk->sector_size,
                        .count = timing->size / disk->sector_size,
                        .data = block_buffer_alloc(disk, timing->size),
                        .done = on_done,
                        .owner = &lanes[i]},
            .course = &course,
        };
        memset(lanes[i].request.data, 'x', timing->size);
    }
    struct begun begun = begin();
    for (unsigned i = 0; i < depth; i++) {
        lanes[i].begun = nanoseconds();
        block_submit(disk, &lanes[i].request);
    }
    for (unsigned i = 0; i < depth; i++)
        sem_wait(&course.ended);
    if (course.result == 0)
        print_times(timing, "cloche", course.times, &begun);
    for (unsigned i = 0; i < depth; i++)
        block_buffer_free(disk, lanes[i].request.data, timing->size);
    sem_destroy(&course.ended);
    free(course.times);
    free(lanes);
    return course.result == 0 ? 0 : error_errno(err, -course.result, "a request");
}

static int run_one(struct block_device *disk, const struct timing *timing, struct error *err)
{
    void *data = block_buffer_alloc(disk, timing->size);
    int64_t *times = xcalloc(timing->count, sizeof(*times));
    uint32_t sectors = timing->size / disk->sector_size;
    int r = 0;

    memset(data, 'x', timing->size);
    struct begun begun = begin();
    int64_t at = begun.at;
    for (unsigned i = 0; r == 0 && i < timing->count; i++) {
        int64_t before = at;
        uint64_t sector = place(timing, i, disk->sectors * disk->sector_size) / disk->sector_size;
        r = timing->write ? block_write(disk, sector, sectors, data, err)
                          : block_read(disk, sector, sectors, data, err);
        at = nanoseconds();
        times[i] = at - before;
    }
    if (r == 0)
        print_times(timing, "cloche", times, &begun);
    block_buffer_free(disk, data, timing->size);
    free(times);
    return r;
}

int timing_run(struct block_device *disk, const struct timing *timing, struct error *err)
{
    struct block_device *read = timing->ahead ? block_stream_create(disk) : disk;
    int r = 0;

    if (timing->size % disk->sector_size != 0 || timing->size > disk->sectors * disk->sector_size)
        r = error_set(err, -EINVAL, "size %u does not fit the disk", timing->size);
    for (unsigned i = 0; r == 0 && i < (timing->rounds ? timing->rounds : 1); i++) {
        r = timing->depth > 1 ? run_lanes(read, timing, err) : run_one(read, timing, err);
        if (r == 0 && timing->beside)
            r = timing_run_kernel(timing->beside, timing, err);
    }
    if (timing->ahead)
        block_device_destroy(read);
    return r;
}

struct kernel_course {
    const struct timing *timing;
    int64_t *times;
    void *buffers[DEPTH_MOST];
    uint64_t whole;
    int fd;
    atomic_uint lanes, next;
    atomic_int failed; /* errno */
};

static void *kernel_lane(void *data)
{
    struct kernel_course *course = data;
    const struct timing *timing = course->timing;
    void *buffer = course->buffers[atomic_fetch_add(&course->lanes, 1)];
    unsigned number;

    int64_t at = nanoseconds();
    while ((number = atomic_fetch_add(&course->next, 1)) < timing->count) {
        int64_t before = at;
        off_t offset = (off_t)place(timing, number, course->whole);
        ssize_t n = timing->write ? pwrite(course->fd, buffer, timing->size, offset)
                                  : pread(course->fd, buffer, timing->size, offset);
        if (n != (ssize_t)timing->size) {
            atomic_store(&course->failed, n < 0 ? errno : EIO);
            break;
        }
        at = nanoseconds();
        course->times[number] = at - before;
    }
    return NULL;
}

static void run_kernel_lanes(struct kernel_course *course, unsigned depth)
{
    pthread_t threads[DEPTH_MOST];

    if (depth == 1) {
        kernel_lane(course);
        return;
    }
    for (unsigned i = 0; i < depth; i++)
        pthread_create(&threads[i], NULL, kernel_lane, course);
    for (unsigned i = 0; i < depth; i++)
        pthread_join(threads[i], NULL);
}

int timing_run_kernel(const char *path, const struct timing *timing, struct error *err)
{
    struct kernel_course course = {.timing = timing};
    unsigned depth = timing->depth ? timing->depth : 1;

    course.fd = open(path, (timing->write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    if (course.fd < 0)
        return error_errno(err, errno, "open %s", path);
    course.whole = (uint64_t)lseek(course.fd, 0, SEEK_END);
    course.times = xcalloc(timing->count, sizeof(*course.times));
    for (unsigned i = 0; i < depth; i++) {
        if (posix_memalign(&course.buffers[i], PAGE, timing->size) != 0)
            abort();
        memset(course.buffers[i], 'x', timing->size);
    }
    struct begun begun = begin();
    run_kernel_lanes(&course, depth);
    int failed = atomic_load(&course.failed);
    if (failed == 0)
        print_times(timing, "kernel", course.times, &begun);
    for (unsigned i = 0; i < depth; i++)
        free(course.buffers[i]);
    free(course.times);
    close(course.fd);
    return failed == 0 ? 0 : error_errno(err, failed, "%s", path);
}
