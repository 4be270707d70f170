/*
 * The JSON half that all generated types share: the writer, maps, and the limits of the reader.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include <base/process.h>
#include <schema/sample.h>

static void writer_places_commas_and_indents(void **state)
{
    static const char *const expected[] = {
        [JSON_COMPACT] =
            "{\"a\":1,\"b\":[],\"c\":{},\"d\":[true,null,\"x\",[2]],\"e\":{\"f\":0.5}}",
        [JSON_PRETTY] = "{\n    \"a\": 1,\n    \"b\": [],\n    \"c\": {},\n    \"d\": [\n"
                        "        true,\n        null,\n        \"x\",\n        [\n            2\n"
                        "        ]\n    ],\n    \"e\": {\n        \"f\": 0.5\n    }\n}",
        [JSON_NARROW] = "{\n  \"a\": 1,\n  \"b\": [],\n  \"c\": {},\n  \"d\": [\n    true,\n"
                        "    null,\n    \"x\",\n    [\n      2\n    ]\n  ],\n  \"e\": {\n"
                        "    \"f\": 0.5\n  }\n}",
    };

    for (enum json_layout layout = JSON_COMPACT; layout <= JSON_NARROW; layout++) {
        _cleanup_buffer_ struct buffer out = BUFFER_INIT;
        struct json_writer w;

        json_writer_init(&w, &out, layout);
        json_writer_object_begin(&w);
        json_writer_key(&w, "a");
        json_writer_integer(&w, 1);
        json_writer_key(&w, "b");
        json_writer_array_begin(&w);
        json_writer_array_end(&w);
        json_writer_key(&w, "c");
        json_writer_object_begin(&w);
        json_writer_object_end(&w);
        json_writer_key(&w, "d");
        json_writer_array_begin(&w);
        json_writer_boolean(&w, true);
        json_writer_string(&w, NULL);
        json_writer_string(&w, "x");
        json_writer_array_begin(&w);
        json_writer_unsigned(&w, 2);
        json_writer_array_end(&w);
        json_writer_array_end(&w);
        json_writer_key(&w, "e");
        json_writer_object_begin(&w);
        json_writer_key(&w, "f");
        json_writer_number(&w, 0.5);
        json_writer_object_end(&w);
        json_writer_object_end(&w);
        assert_string_equal(out.data, expected[layout]);
    }
}

static void writer_writes_numbers_exactly(void **state)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    struct json_writer w;

    json_writer_init(&w, &out, JSON_COMPACT);
    json_writer_array_begin(&w);
    json_writer_integer(&w, INT64_MIN);
    json_writer_unsigned(&w, UINT64_MAX);
    json_writer_number(&w, 0.1);
    json_writer_number(&w, 1.0 / 3);
    json_writer_number(&w, 1e23);
    json_writer_number(&w, (double)NAN);
    json_writer_array_end(&w);
    assert_string_equal(out.data, "[-9223372036854775808,18446744073709551615,0.1,"
                                  "0.3333333333333333,1e+23,null]");
}

static void quote_escapes_what_json_needs(void **state)
{
    static const char text[] = "a\0b/<\xe2\x82";
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    json_quote(&out, text, sizeof(text) - 1);
    assert_string_equal(out.data, "\"a\\u0000b/<\xef\xbf\xbd\xef\xbf\xbd\"");
}

/* What has to be escaped is, wherever it stands: plain bytes are looked at several at once. */
static void quote_sees_every_byte(void **state)
{
    enum { LONGEST = 20 };
    char text[LONGEST];

    for (size_t length = 1; length <= LONGEST; length++) {
        for (size_t i = 0; i < length * 0x80; i++) {
            _cleanup_buffer_ struct buffer out = BUFFER_INIT;
            unsigned char c = i % 0x80;
            bool plain = c >= 0x20 && c != '"' && c != '\\' && c != 0x7f;

            memset(text, '!', length);
            text[i / 0x80] = (char)c;
            json_quote(&out, text, length);
            assert_int_equal(out.length == length + 2, plain);
        }
    }
}

static void string_maps_set_replace_and_remove(void **state)
{
    _cleanup_json_string_map_ struct json_string_map *map = NULL;

    assert_null(json_string_map_get(NULL, "a"));
    assert_false(json_string_map_remove(NULL, "a"));
    json_string_map_set(&map, "a", "1");
    json_string_map_set(&map, "b", "2");
    json_string_map_set(&map, "c", "3");
    json_string_map_set(&map, "a", json_string_map_get(map, "a"));
    json_string_map_set(&map, "b", "4");
    assert_int_equal(map->count, 3);
    assert_string_equal(json_string_map_get(map, "a"), "1");
    assert_string_equal(json_string_map_get(map, "b"), "4");
    assert_true(json_string_map_remove(map, "a"));
    assert_false(json_string_map_remove(map, "a"));
    assert_null(json_string_map_get(map, "a"));
    _cleanup_json_string_map_ struct json_string_map *copy = json_string_map_copy(map);
    assert_int_equal(copy->count, 2);
    assert_string_equal(json_string_map_get(copy, "c"), "3");
    assert_null(json_string_map_copy(NULL));
}

/* head, then the piece so many times with commas between, then tail. */
static char *repeated(const char *head, const char *piece, size_t times, const char *comma,
                      const char *tail)
{
    struct buffer out = BUFFER_INIT;

    buffer_append_text(&out, head);
    for (size_t i = 0; i < times; i++) {
        if (i > 0)
            buffer_append_text(&out, comma);
        buffer_append_text(&out, piece);
    }
    buffer_append_text(&out, tail);
    return buffer_steal(&out);
}

static void assert_result(const char *text, int result, const char *message)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_sample_document_ struct sample_document *document = NULL;

    assert_int_equal(sample_document_parse(text, strlen(text), "s.json", &document, &err), result);
    if (message)
        assert_string_equal(error_message(&err), message);
}

static void nesting_ends_at_the_limit(void **state)
{
    static const char deep[] = "{\"version\":1,\"raw\":";
    /* The object itself is a level. */
    _cleanup_free_ char *opening = repeated(deep, "[", JSON_DEPTH_MAX - 1, "", "");
    _cleanup_free_ char *closing = repeated("", "]", JSON_DEPTH_MAX - 1, "", "}");
    _cleanup_free_ char *most = xasprintf("%s%s", opening, closing);
    assert_result(most, 0, NULL);

    _cleanup_free_ char *raw = repeated(deep, "[", 1000000, "", "");
    assert_result(raw, -EFBIG, NULL);
    _cleanup_free_ char *list =
        repeated("{\"version\":1,\"inner\":", "{\"value\":1,\"next\":", 100, "", "");
    _cleanup_free_ char *path =
        repeated("s.json:1: inner", ".next", 63, "", ": nested deeper than 64 levels");
    assert_result(list, -EFBIG, path);
}

static void large_arrays_are_read_whole(void **state)
{
    enum { COUNT = 100000 };
    _cleanup_free_ char *text = repeated("{\"version\":1,\"numbers\":[", "65535", COUNT, ",", "]}");
    _cleanup_sample_document_ struct sample_document *document = NULL;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    assert_int_equal(sample_document_parse(text, strlen(text), NULL, &document, NULL), 0);
    assert_int_equal(document->numbers_count, COUNT);
    assert_int_equal(document->numbers[COUNT - 1], 65535);
    sample_document_write(document, &out);
    assert_string_equal(out.data, text);
}

static void documents_end_at_the_limit(void **state)
{
    _cleanup_free_ char *text = repeated("{\"version\":1}", " ", JSON_DOCUMENT_MAX, "", "");

    assert_result(text, -EFBIG, "s.json:1: the document is larger than 16 MiB");
}

/* In a process of its own: its peak memory is this document's. */
static void memory_ends_at_the_limit(void **state)
{
    static const struct {
        const char *start, *piece;
    } bombs[] = {
        {"{\"version\":1,\"table\":[", "[]"},
        {"{\"version\":1,\"raws\":[", "1"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bombs); i++) {
        pid_t child = fork();
        if (child == 0) {
            size_t times = (JSON_DOCUMENT_MAX - 100) / (strlen(bombs[i].piece) + 1);
            char *text = repeated(bombs[i].start, bombs[i].piece, times, ",", "]}");
            struct sample_document *document;
            struct rusage usage;
            int r = sample_document_parse(text, strlen(text), NULL, &document, NULL);
            getrusage(RUSAGE_SELF, &usage);
            free(text);
            bool small = usage.ru_maxrss < 256 * 1024;
#ifdef __SANITIZE_ADDRESS__
            small = true; /* redzones and quarantine are not ours */
#endif
            _exit(r == -EFBIG && small ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(process_exit_code(status), 0);
    }
}

/* As many keys as fit; quadratic behaviour would take minutes. */
static void many_keys_take_linear_time(void **state)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct sample_document *document;
    struct timespec start, end;

    buffer_append_text(&text, "{\"version\":1,\"raw\":{");
    for (unsigned int i = 0; i < 100000; i++)
        buffer_printf(&text, "%s\"%u\":0", i == 0 ? "" : ",", i);
    buffer_append_text(&text, "}}");
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_int_equal(sample_document_parse(text.data, text.length, NULL, &document, NULL), 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    sample_document_free(document);
    assert_true(end.tv_sec - start.tv_sec < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writer_places_commas_and_indents),
        cmocka_unit_test(writer_writes_numbers_exactly),
        cmocka_unit_test(quote_escapes_what_json_needs),
        cmocka_unit_test(quote_sees_every_byte),
        cmocka_unit_test(string_maps_set_replace_and_remove),
        cmocka_unit_test(nesting_ends_at_the_limit),
        cmocka_unit_test(large_arrays_are_read_whole),
        cmocka_unit_test(documents_end_at_the_limit),
        cmocka_unit_test(memory_ends_at_the_limit),
        cmocka_unit_test(many_keys_take_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
