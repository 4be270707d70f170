#include "lanes.h"

#include <pthread.h>

#include <base/alloc.h>

struct run {
    const struct lanes *lanes;
    pthread_mutex_t mutex; /* guards what follows */
    size_t taken;
    struct error failure; /* the first one */
};

static bool next_place(struct run *run, size_t *ret)
{
    pthread_mutex_lock(&run->mutex);
    bool more = run->taken < run->lanes->count && !run->failure.code;
    if (more)
        *ret = run->taken++;
    pthread_mutex_unlock(&run->mutex);
    return more;
}

static void note_failure(struct run *run, struct error *err)
{
    pthread_mutex_lock(&run->mutex);
    if (!run->failure.code)
        error_move(&run->failure, err);
    run->lanes->session->stop = true;
    pthread_mutex_unlock(&run->mutex);
}

static void *take_places(void *data)
{
    struct run *run = data;
    const struct lanes *lanes = run->lanes;
    _cleanup_http_lane_ struct http_lane *lane =
        http_lane_create(&lanes->session->endpoint->settings);
    size_t place;

    while (next_place(run, &place)) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (lanes->take(lanes->data, place, lane, &err) < 0)
            note_failure(run, &err);
    }
    return NULL;
}

int lanes_run(const struct lanes *lanes, struct error *err)
{
    struct run run = {.lanes = lanes, .mutex = PTHREAD_MUTEX_INITIALIZER};
    size_t count = lanes->count < lanes->most ? lanes->count : lanes->most, started = 0;
    _cleanup_free_ pthread_t *threads = xnew_array(pthread_t, count + 1);

    while (started + 1 < count && pthread_create(&threads[started], NULL, take_places, &run) == 0)
        started++;
    take_places(&run);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&run.mutex);
    return run.failure.code ? error_move(err, &run.failure) : 0;
}
