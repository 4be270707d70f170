#include "usage.h"

#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

static const struct api_container_statistics *
find_earlier(const struct api_statistics *before, const struct api_container_statistics *container)
{
    for (size_t i = 0; before && i < before->containers_count; i++) {
        const struct api_container_statistics *earlier = before->containers[i];
        /* Its counters begin anew with each start. */
        if (text_equal(earlier->id, container->id) && earlier->cpu && container->cpu &&
            text_equal(earlier->started_at, container->started_at))
            return earlier;
    }
    return NULL;
}

static uint64_t blkio_sum(const struct api_container_statistics *container, const char *operation)
{
    const struct api_blkio_statistics *blkio = container->blkio;
    uint64_t sum = 0;

    for (size_t i = 0; blkio && i < blkio->service_bytes_count; i++) {
        if (text_equal(blkio->service_bytes[i]->operation, operation))
            sum += blkio->service_bytes[i]->value;
    }
    return sum;
}

static void traffic(const struct api_container_statistics *container, uint64_t *received,
                    uint64_t *sent)
{
    *received = *sent = 0;
    for (size_t i = 0; i < container->networks_count; i++) {
        *received += container->networks[i]->rx_bytes;
        *sent += container->networks[i]->tx_bytes;
    }
}

static double rate(uint64_t before, uint64_t now, double seconds)
{
    return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

static void fill_rates(struct usage *usage, const struct api_container_statistics *earlier,
                       const struct api_statistics *before, const struct api_statistics *now)
{
    double seconds = (double)(now->time - before->time) / (double)CLOCK_SECOND;
    uint64_t received, sent;
    double machine = rate(before->system_usage, now->system_usage, 1);
    double used = rate(earlier->cpu->total_usage, usage->container->cpu->total_usage, 1);

    traffic(earlier, &received, &sent);
    if (machine > 0)
        usage->cpu = used / machine * now->online_cpus * 100;
    usage->received_rate = rate(received, usage->received, seconds);
    usage->sent_rate = rate(sent, usage->sent, seconds);
    usage->read_rate = rate(blkio_sum(earlier, "read"), usage->read, seconds);
    usage->written_rate = rate(blkio_sum(earlier, "write"), usage->written, seconds);
}

struct usage usage_of(const struct api_statistics *before, const struct api_statistics *now,
                      size_t index)
{
    const struct api_container_statistics *container = now->containers[index];
    const struct api_container_statistics *earlier = find_earlier(before, container);
    struct usage usage = {.container = container, .running = container->cpu != NULL};
    const struct api_memory_statistics *memory = container->memory;

    traffic(container, &usage.received, &usage.sent);
    usage.read = blkio_sum(container, "read");
    usage.written = blkio_sum(container, "write");
    if (memory) {
        uint64_t cache = memory->inactive_file;
        usage.memory = memory->usage > cache ? memory->usage - cache : memory->usage;
        if (memory->limit)
            usage.memory_share = (double)usage.memory / (double)memory->limit * 100;
    }
    if (earlier)
        fill_rates(&usage, earlier, before, now);
    return usage;
}

int usage_fetch(struct cli *cli, char *const *names, bool all, struct api_statistics **ret,
                struct error *err)
{
    struct api_container_stats params = {.all = all, .has_all = true};

    if (names && *names) {
        params.containers = (char **)(uintptr_t)names;
        params.containers_count = strv_length(names);
    }
    return cli_call(cli, "container.stats", &params, ret, err);
}

static char *with_unit(double value, double step, const char *const *units, size_t count,
                       bool precise)
{
    size_t i = 0;

    while (value >= step && i + 1 < count) {
        value /= step;
        i++;
    }
    return precise ? xasprintf("%.4g%s", value, units[i]) : xasprintf("%.3g%s", value, units[i]);
}

char *usage_binary_size(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

    return with_unit((double)bytes, 1024, units, ARRAY_SIZE(units), true);
}

char *usage_decimal_size(double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};

    return with_unit(bytes, 1000, units, ARRAY_SIZE(units), false);
}
