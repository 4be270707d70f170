/* Counters and latencies of calls, and how they are written. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <rpc/metrics.h>
#include <schema/json.h>

static struct rpc_metrics metrics;

static int set_up(void **state)
{
    memset(&metrics, 0, sizeof(metrics));
    return 0;
}

static void answered_after(uint64_t nanoseconds)
{
    rpc_metrics_begin(&metrics);
    rpc_metrics_end(&metrics, RPC_ENDED_ANSWERED, 0, nanoseconds);
}

static void bounds_rise_and_hold_what_is_below_them(void **state)
{
    uint64_t before = 0;

    for (size_t i = 0; i < RPC_LATENCY_BUCKETS; i++) {
        assert_true(rpc_latency_bound(i) > before);
        before = rpc_latency_bound(i);
    }
    for (uint64_t ns = 1; ns < UINT64_C(3600) * 1000000000; ns = ns * 9 / 8 + 1) {
        set_up(state);
        answered_after(ns);
        size_t bucket = 0;
        while (!metrics.latency.buckets[bucket])
            bucket++;
        assert_true(ns < rpc_latency_bound(bucket));
        assert_true(bucket == 0 || ns >= rpc_latency_bound(bucket - 1));
    }
    set_up(state);
    answered_after(UINT64_MAX);
    assert_int_equal(metrics.latency.buckets[RPC_LATENCY_BUCKETS - 1], 1);
}

static void quantiles_are_near(void **state)
{
    assert_int_equal(rpc_latency_quantile(&metrics.latency, 0.5), 0);
    for (uint64_t i = 1; i <= 1000; i++)
        answered_after(i * 1000000);
    double half = (double)rpc_latency_quantile(&metrics.latency, 0.5) / 1e6;
    double most = (double)rpc_latency_quantile(&metrics.latency, 0.99) / 1e6;
    assert_true(half >= 500 && half <= 500 * 1.25 + 1);
    assert_true(most >= 990 && most <= 990 * 1.25 + 1);
    assert_true(rpc_latency_quantile(&metrics.latency, 1) >= 1000000000);
}

static void calls_in_flight_are_those_that_have_not_ended(void **state)
{
    for (int i = 0; i < 7; i++)
        rpc_metrics_begin(&metrics);
    assert_int_equal(rpc_metrics_in_flight(&metrics), 7);
    for (enum rpc_ended how = 0; how < RPC_ENDED_KINDS; how++)
        rpc_metrics_end(&metrics, how, -1, 5);
    assert_int_equal(rpc_metrics_in_flight(&metrics), 2);
    assert_int_equal(metrics.latency.count,
                     2); /* a time-out says nothing of how long answers take */
}

static const char *json_of(struct buffer *out)
{
    struct json_writer writer;

    buffer_clear(out);
    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    rpc_metrics_write_json(&metrics, &writer);
    json_writer_object_end(&writer);
    return buffer_text(out);
}

static void errors_are_counted_by_code(void **state)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    for (int i = 0; i < 3; i++)
        rpc_metrics_end(&metrics, RPC_ENDED_FAULT, -1, 5);
    rpc_metrics_end(&metrics, RPC_ENDED_FAULT, -32601, 5);
    assert_non_null(strstr(json_of(&out), "\"errors\":{\"-1\":3,\"-32601\":1}"));
    for (int i = 0; i < 100; i++)
        rpc_metrics_end(&metrics, RPC_ENDED_FAULT, 1000 + i, 5);
    assert_non_null(strstr(json_of(&out), "\"1020\":1,"));
    assert_non_null(strstr(json_of(&out), "\"other\":79}"));
}

static void json_has_what_was_counted(void **state)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    answered_after(1500000);
    rpc_metrics_begin(&metrics);
    rpc_metrics_add(&metrics.late, 4);
    assert_non_null(strstr(json_of(&out), "{\"calls\":2,\"inFlight\":1,\"answered\":1,"));
    assert_non_null(strstr(json_of(&out), "\"late\":4,"));
    assert_non_null(strstr(json_of(&out), "\"latency\":{\"count\":1,\"sumNs\":1500000,"));
    assert_non_null(strstr(json_of(&out), "\"buckets\":[{\"belowNs\":1572864,\"count\":1}]"));
}

/* One TYPE line a family, before its samples, which stand together. */
static void check_families(const char *text)
{
    char family[128] = "", line[512];

    while (*text) {
        size_t length = strcspn(text, "\n");
        assert_true(length > 0 && length < sizeof(line));
        memcpy(line, text, length);
        line[length] = '\0';
        text += length + (text[length] == '\n');
        if (sscanf(line, "# TYPE %127s", family) == 1 || line[0] == '#')
            continue;
        assert_int_equal(strncmp(line, family, strlen(family)), 0);
        assert_non_null(strchr(line, ' '));
    }
}

static void open_metrics_text_keeps_families_together(void **state)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT, labels = BUFFER_INIT;
    struct rpc_metrics other = {.calls = 9};

    answered_after(3000);
    answered_after(2000000);
    rpc_metrics_end(&metrics, RPC_ENDED_FAULT, -2, 5000);
    rpc_metrics_write_label(&labels, "endpoint", "a \"b\"\\\n");
    assert_string_equal(buffer_text(&labels), "endpoint=\"a \\\"b\\\"\\\\\\n\"");
    const struct rpc_metrics_series series[] = {{buffer_text(&labels), &metrics},
                                                {"endpoint=\"1\"", &other}};
    rpc_metrics_write_text(&out, "x", series, 2);
    const char *text = buffer_text(&out);
    check_families(text);
    assert_non_null(strstr(text, "x_calls_total{endpoint=\"1\"} 9\n"));
    assert_non_null(strstr(text, "\\\\\\n\",code=\"-2\"} 1\n"));
    assert_non_null(strstr(text, ",le=\"+Inf\"} 3\nx_latency_seconds_count"));
    assert_non_null(strstr(text, ",le=\"0.002097152\"} 3\n"));
    assert_non_null(strstr(text, ",le=\"4.096e-06\"} 1\n"));
}

static void *count_many(void *data)
{
    for (int i = 0; i < 100000; i++) {
        rpc_metrics_begin(&metrics);
        rpc_metrics_end(&metrics, i % 2 ? RPC_ENDED_ANSWERED : RPC_ENDED_FAULT, i % 10 + 1,
                        (uint64_t)i);
    }
    return NULL;
}

static void threads_count_together(void **state)
{
    pthread_t threads[4];
    uint64_t codes = 0;

    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_many, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(metrics.calls, 400000);
    assert_int_equal(rpc_metrics_in_flight(&metrics), 0);
    assert_int_equal(metrics.latency.count, 400000);
    for (size_t i = 0; i < RPC_METRICS_CODES_MAX; i++)
        codes += metrics.codes[i].count;
    assert_int_equal(codes, 200000);
}

#define metrics_test(function) cmocka_unit_test_setup(function, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        metrics_test(bounds_rise_and_hold_what_is_below_them),
        metrics_test(quantiles_are_near),
        metrics_test(calls_in_flight_are_those_that_have_not_ended),
        metrics_test(errors_are_counted_by_code),
        metrics_test(json_has_what_was_counted),
        metrics_test(open_metrics_text_keeps_families_together),
        metrics_test(threads_count_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
