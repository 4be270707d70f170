/*
 * What the generator makes of every construct that it takes (schema/sample.json), and what the
 * reader says of documents that do not fit.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <base/text.h>
#include <schema/oci_config.h>
#include <schema/sample.h>

#define V "{\"version\":1,"

struct bad_document {
    const char *text;
    const char *message;
};

static int parse(const char *text, struct sample_document **ret, struct error *err)
{
    return sample_document_parse(text, strlen(text), "s.json", ret, err);
}

static struct sample_document *parse_good(const char *text)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct sample_document *document = NULL;

    if (parse(text, &document, &err) < 0)
        fail_msg("%s\n%s", text, error_message(&err));
    return document;
}

/* The text comes back as it was. */
static void assert_round_trip(const char *text)
{
    _cleanup_sample_document_ struct sample_document *document = parse_good(text);
    _cleanup_buffer_ struct buffer out = BUFFER_INIT, pretty = BUFFER_INIT, again = BUFFER_INIT;

    sample_document_write(document, &out);
    assert_string_equal(out.data, text);
    sample_document_write_pretty(document, &pretty);
    _cleanup_sample_document_ struct sample_document *second = parse_good(pretty.data);
    sample_document_write(second, &again);
    assert_string_equal(again.data, text);
}

static void assert_bad(const struct bad_document *bad, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_sample_document_ struct sample_document *document = NULL;

        if (parse(bad[i].text, &document, &err) != -EINVAL)
            fail_msg("accepted: %s", bad[i].text);
        assert_null(document);
        assert_string_equal(error_message(&err), bad[i].message);
    }
}

static void documents_survive_a_round_trip(void **state)
{
    static const char *const documents[] = {
        "{\"version\":2}",
        V "\"text\":\"\",\"name\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x94x\",\"color\":\"green\","
          "\"fixed\":\"this\",\"flag\":false}",
        V "\"i8\":-128,\"i16\":-32768,\"i32\":-2147483648,\"i64\":-9223372036854775808,\"u8\":255,"
          "\"u16\":65535,\"u32\":4294967295,\"u64\":18446744073709551615}",
        V "\"i8\":127,\"i16\":32767,\"i32\":2147483647,\"i64\":9223372036854775807,\"u8\":0}",
        V "\"ratio\":0.1,\"ratios\":[-1.5,1e+300,3,0.30000000000000004]}",
        V "\"raw\":{\"a b\":[1,2.50,\"x\\\"\\\\ "
          "y\",null,true,false,{}]},\"raws\":[null,1,\"s\",[],{}]}",
        V "\"raw\":\"\\\\\"}",
        V "\"inner\":{\"value\":1,\"next\":{\"value\":2}},\"nodes\":[{\"value\":3},{\"value\":4}]}",
        V "\"words\":[\"a\",\"b\",\"c\"],\"numbers\":[],\"flags\":[true,false],\"nodes\":[]}",
        V "\"numbers\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}",
        V
        "\"labels\":{\"z\":\"1\",\"a\":\"2\",\"\":\"3\"},\"extras\":{\"x\":{\"y\":1},\"n\":null}}",
        V "\"labels\":{},\"extras\":{},\"sizes\":{},\"table\":[]}",
        V "\"sizes\":{\"small\":1,\"large\":4294967295},\"table\":[[\"a\",\"b\"],[],[\"c\"]]}",
        V "\"ports\":{\"80/tcp\":null,\"81\":[],\"82\":[{\"value\":1}]}}",
        V "\"command\":\"a b\"}",
        V "\"command\":[\"a b\"]}",
        V "\"command\":[]}",
        V "\"nullText\":null,\"nullNumber\":null,\"nullWords\":null,\"nullNode\":null,"
          "\"nullLabels\":null}",
        V "\"nullText\":\"\",\"nullNumber\":0,\"nullWords\":[],\"nullNode\":{\"value\":0},"
          "\"nullLabels\":{}}",
        V "\"gaps\":[null,{\"value\":1},null]}",
        V "\"kept\":{\"known\":\"k\",\"other\":[1,{\"x\":null}],\"third\":\"\\u00e9\"}}",
        V "\"state\":{\"ociVersion\":\"1.3.0\",\"id\":\"x\",\"status\":\"running\",\"pid\":7,"
          "\"bundle\":\"/b\"}}",
        V "\"default\":true,\"HTTPPort\":80,\"os.version\":\"10\",\"@\":\"at\"}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(documents); i++)
        assert_round_trip(documents[i]);
}

static void members_have_the_documented_names_and_values(void **state)
{
    _cleanup_sample_document_ struct sample_document *d = parse_good(
        "{\"version\":1,\"text\":\"a\\u00e9\\ud83d\\udd14\\n\",\"flag\":true,"
        "\"u64\":18446744073709551615,\"words\":[\"x\",\"y\"],\"command\":\"run\",\"default\":true,"
        "\"HTTPPort\":80,\"os.version\":\"11\",\"@\":\"q\",\"nullText\":null,"
        "\"table\":[[\"c\"]],\"labels\":{\"k\":\"v\"},\"gaps\":[null],"
        "\"raw\" : { \"a\" : [ 1 , \"b  c\" ] } }");

    assert_int_equal(d->version, 1);
    assert_string_equal(d->text, "a\xc3\xa9\xf0\x9f\x94\x94\n");
    assert_true(d->has_flag && d->flag);
    assert_true(d->u64 == UINT64_MAX && d->has_u64);
    assert_false(d->has_i64);
    assert_int_equal(d->words_count, 2);
    assert_int_equal(strv_length(d->words), 2);
    assert_string_equal(d->words[1], "y");
    assert_true(d->command_was_string);
    assert_string_equal(d->command[0], "run");
    assert_null(d->command[1]);
    assert_true(d->default_ && d->has_default);
    assert_int_equal(d->http_port, 80);
    assert_string_equal(d->os_version, "11");
    assert_string_equal(d->at_sign, "q");
    assert_true(d->null_null_text && !d->null_text && !d->null_null_words);
    assert_string_equal(d->table->items[0]->cells[0], "c");
    assert_int_equal(d->table->count, 1);
    assert_string_equal(json_string_map_get(d->labels, "k"), "v");
    assert_int_equal(d->gaps_count, 1);
    assert_null(d->gaps[0]);
    assert_string_equal(d->raw, "{\"a\":[1,\"b  c\"]}");
    assert_null(d->numbers);
}

static void values_of_the_wrong_kind_are_refused(void **state)
{
    static const struct bad_document bad[] = {
        {"[]", "s.json:1: expected an object, got an array"},
        {"3", "s.json:1: expected an object, got a number"},
        {"\"x\"", "s.json:1: expected an object, got a string"},
        {"null", "s.json:1: expected an object, got null"},
        {"true", "s.json:1: expected an object, got a boolean"},
        {"{\"version\":\"1\"}", "s.json:1: version: expected an integer, got a string"},
        {V "\n\"text\":1}", "s.json:2: text: expected a string, got a number"},
        {V "\"text\":null}", "s.json:1: text: expected a string, got null"},
        {V "\"flag\":\"yes\"}", "s.json:1: flag: expected a boolean, got a string"},
        {V "\"ratio\":true}", "s.json:1: ratio: expected a number, got a boolean"},
        {V "\"inner\":[]}", "s.json:1: inner: expected an object, got an array"},
        {V "\"labels\":\"\"}", "s.json:1: labels: expected an object, got a string"},
        {V "\"labels\":{\"a.b\":1}}", "s.json:1: labels[\"a.b\"]: expected a string, got a number"},
        {V "\"labels\":{\"a\":null}}", "s.json:1: labels[\"a\"]: expected a string, got null"},
        {V "\"words\":\"a\"}", "s.json:1: words: expected an array, got a string"},
        {V "\"words\":[\"a\",\n{}]}", "s.json:2: words[1]: expected a string, got an object"},
        {V "\"words\":[null]}", "s.json:1: words[0]: expected a string, got null"},
        {V "\"command\":{}}", "s.json:1: command: expected a string or an array, got an object"},
        {V "\"command\":null}", "s.json:1: command: expected a string or an array, got null"},
        {V "\"nodes\":[{\"value\":1},{\"value\":1,\"next\":{\"value\":\"\"}}]}",
         "s.json:1: nodes[1].next.value: expected an integer, got a string"},
        {V "\"table\":[[\"a\"],[\"b\",2]]}",
         "s.json:1: table[1][1]: expected a string, got a number"},
        {V "\"table\":[{}]}", "s.json:1: table[0]: expected an array, got an object"},
        {V "\"ports\":{\"80\":{}}}", "s.json:1: ports[\"80\"]: expected an array, got an object"},
        {V "\"sizes\":{\"a\":1,\"b\":-1}}",
         "s.json:1: sizes[\"b\"]: -1 is out of range (0 to 4294967295)"},
    };

    assert_bad(bad, ARRAY_SIZE(bad));
}

static void numbers_are_exact_or_refused(void **state)
{
    static const struct bad_document bad[] = {
        {V "\"i8\":128}", "s.json:1: i8: 128 is out of range (-128 to 127)"},
        {V "\"i8\":-129}", "s.json:1: i8: -129 is out of range (-128 to 127)"},
        {V "\"i64\":9223372036854775808}", "s.json:1: i64: 9223372036854775808 is out of range "
                                           "(-9223372036854775808 to 9223372036854775807)"},
        {V "\"i64\":-9223372036854775809}", "s.json:1: i64: -9223372036854775809 is out of range "
                                            "(-9223372036854775808 to 9223372036854775807)"},
        {V "\"u64\":18446744073709551616}", "s.json:1: u64: 18446744073709551616 is out of range "
                                            "(0 to 18446744073709551615)"},
        {V "\"u64\":-1}", "s.json:1: u64: -1 is out of range (0 to 18446744073709551615)"},
        {V "\"u16\":65536}", "s.json:1: u16: 65536 is out of range (0 to 65535)"},
        {V "\"u8\":1.0}", "s.json:1: u8: expected an integer, got 1.0"},
        {V "\"u8\":1e2}", "s.json:1: u8: expected an integer, got 1e2"},
        {V "\"u8\":99999999999999999999999999999}",
         "s.json:1: u8: 999999999999999999999999... is out of range (0 to 255)"},
        {V "\"percent\":4}", "s.json:1: percent: 4 is out of range (5 to 100)"},
        {V "\"percent\":-5}", "s.json:1: percent: -5 is out of range (5 to 100)"},
        {V "\"ratio\":1e999}", "s.json:1: ratio: 1e999 is out of range"},
        {V "\"numbers\":[1,70000]}", "s.json:1: numbers[1]: 70000 is out of range (0 to 65535)"},
        {"{\"version\":3}", "s.json:1: version: format version 3 is not known here (1 to 2 are)"},
        {V "\"u8\":01}", "s.json:1: u8: not JSON: a number must not begin with 0"},
        {V "\"u8\":-}", "s.json:1: u8: not JSON: a digit is missing in the number"},
    };
    _cleanup_sample_document_ struct sample_document *d =
        parse_good(V "\"u8\":-0,\"ratio\":1e-400}");

    assert_bad(bad, ARRAY_SIZE(bad));
    assert_true(d->u8 == 0 && d->has_u8);
}

static void rules_of_a_field_are_kept(void **state)
{
    static const struct bad_document bad[] = {
        {"\n{}", "s.json:2: version: required, but missing"},
        {V "\"inner\":{\n}}", "s.json:1: inner.value: required, but missing"},
        {V "\"nodes\":[\n{\"value\":1},\n{\n}]}",
         "s.json:3: nodes[1].value: required, but missing"},
        {V "\"color\":\"blue\"}",
         "s.json:1: color: expected one of \"red\", \"green\", got \"blue\""},
        {V "\"fixed\":\"that\"}", "s.json:1: fixed: expected \"this\", got \"that\""},
        {V "\"name\":\"\"}", "s.json:1: name: must not be empty"},
        {V "\"name\":\"12345\"}", "s.json:1: name: has 5 characters, at most 4 are allowed"},
        {V "\"words\":[]}", "s.json:1: words: 0 elements, at least 1 are needed"},
        {V "\"words\":[\"\",\"\",\"\",\"\"]}", "s.json:1: words[3]: more than 3 elements"},
        {V "\"wordz\":1}", "s.json:1: wordz: unknown field"},
        {V "\"a.b\":1}", "s.json:1: [\"a.b\"]: unknown field"},
        {V "\"\\u0007\":1}", "s.json:1: [\"\\u0007\"]: unknown field"},
    };

    assert_bad(bad, ARRAY_SIZE(bad));
}

static void a_key_stands_once(void **state)
{
    static const struct bad_document bad[] = {
        {"{\"version\":1,\n\"version\":1}", "s.json:2: version: duplicate key"},
        {V "\"te\\u0078t\":\"a\",\"text\":\"b\"}", "s.json:1: text: duplicate key"},
        {V "\"nullText\":null,\"nullText\":\"b\"}", "s.json:1: nullText: duplicate key"},
        {V "\"labels\":{\"a\":\"1\",\n\"b\":\"2\",\n\"a\":\"3\"}}",
         "s.json:3: labels[\"a\"]: duplicate key, the first is in line 1"},
        {V "\"labels\":{\"a\\u002fb\":\"1\",\"a/b\":\"3\"}}",
         "s.json:1: labels[\"a/b\"]: duplicate key, the first is in line 1"},
        {V "\"inner\":{\"value\":1,\"x\":1,\"x\":2}}",
         "s.json:1: inner.x: duplicate key, the first is in line 1"},
        {V "\"raw\":[{\"a\":{\"b\":1,\"b\":1}}]}",
         "s.json:1: raw[0].a.b: duplicate key, the first is in line 1"},
        {V "\"kept\":{\"x\":1,\"x\":2}}",
         "s.json:1: kept.x: duplicate key, the first is in line 1"},
    };

    assert_bad(bad, ARRAY_SIZE(bad));
    /* In different objects it is a different key. */
    assert_round_trip(V "\"raw\":[{\"a\":{\"a\":1}},{\"a\":{\"a\":1}}]}");
}

static void text_that_is_not_json_is_refused(void **state)
{
    static const struct bad_document bad[] = {
        {"", "s.json:1: the document is empty"},
        {" \r\n\t\n", "s.json:1: the document is empty"},
        {"{\"version\":1}\n x", "s.json:2: not JSON: something follows the document"},
        {"{\"version\":1}{}", "s.json:1: not JSON: something follows the document"},
        {"{\"version\":1", "s.json:1: version: not JSON: the text ends in the middle"},
        {V "\"inner\":{\"value\":1,\n\"next\":{\"value\"", "s.json:2: inner.next.value: not JSON: "
                                                           "the text ends in the middle"},
        {V "\"text\":\"a", "s.json:1: text: not JSON: the text ends in the middle"},
        {V "\"raw\":1", "s.json:1: raw: not JSON: the text ends in the middle"},
        {V "}", "s.json:1: version: not JSON: a key in quotes is expected"},
        {V "\"words\":[\"a\",]}", "s.json:1: words[0]: not JSON: a value is expected"},
        {"{\"version\":1 /* one */}", "s.json:1: version: not JSON: comments are not allowed"},
        {V "\"text\":\"a\nb\"}",
         "s.json:1: text: not JSON: a control character in a string has to be "
         "written as \\u00XX"},
        {V "\"text\":\"\\x\"}", "s.json:1: text: not JSON: a character follows \\ that has no "
                                "meaning there"},
        {V "\"text\":\"\\u00g0\"}", "s.json:1: text: not JSON: \\u is not followed by four "
                                    "hexadecimal digits"},
        {V "\"text\":\"\\u0000\"}", "s.json:1: text: a string must not contain \\u0000"},
        {V "\"\\u0000\":\"\"}", "s.json:1: version: a string must not contain \\u0000"},
        {V "\"text\":\"\\ud83d\"}", "s.json:1: text: \\ud83d is half of a surrogate pair"},
        {V "\"text\":\"\\udd14\\ud83d\"}", "s.json:1: text: \\udd14 is half of a surrogate pair"},
        {V "\"text\":\"\\ud83d\\u0041\"}", "s.json:1: text: \\ud83d is half of a surrogate pair"},
        {V "\"text\":\"\\ud83dx\"}", "s.json:1: text: \\ud83d is half of a surrogate pair"},
        {V "\n\"text\":\"\xff\"}", "s.json:2: byte 0xff is not UTF-8"},
        {V "\"text\":\"\xc0\x80\"}", "s.json:1: byte 0xc0 is not UTF-8"},
        {V "\"text\":\"\xed\xa0\x80\"}", "s.json:1: byte 0xed is not UTF-8"},
        {V "\"text\":\"\xf4\x90\x80\x80\"}", "s.json:1: byte 0xf4 is not UTF-8"},
        {V "\"text\":\"\xe2\x82", "s.json:1: byte 0xe2 is not UTF-8"},
        {"\xef\xbb\xbf{\"version\":1}", "s.json:1: not JSON: a value is expected"},
    };

    assert_bad(bad, ARRAY_SIZE(bad));
}

static void a_nul_byte_is_refused(void **state)
{
    static const char text[] = "{\"version\":1,\"text\":\"a\0b\"}", after[] = "{\"version\":1}\0";
    struct sample_document *document;

    assert_int_equal(sample_document_parse(text, sizeof(text) - 1, "s.json", &document, NULL),
                     -EINVAL);
    assert_int_equal(sample_document_parse(after, sizeof(after), "s.json", &document, NULL),
                     -EINVAL);
}

static void without_a_source_messages_have_no_line(void **state)
{
    static const char text[] = "{\"version\":1,\"inner\":{\"value\":true}}";
    _cleanup_error_ struct error err = ERROR_INIT;
    struct sample_document *document;

    assert_int_equal(sample_document_parse(text, strlen(text), NULL, &document, &err), -EINVAL);
    assert_string_equal(error_message(&err), "inner.value: expected an integer, got a boolean");
}

static void values_filled_by_hand_are_written_and_freed(void **state)
{
    _cleanup_sample_document_ struct sample_document *d = xnew(struct sample_document);
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    d->version = 1;
    d->u8 = 9; /* not written: has_u8 is false */
    d->text = xstrdup("a\"\\\b\f\n\r\t\x01\x7f\xff\xc3\xa9");
    strv_append(&d->words, "one");
    strv_append(&d->words, "two"); /* the count is not needed */
    d->inner = xnew(struct sample_node);
    d->nodes = xnew_array(struct sample_node *, 1);
    d->nodes[0] = xnew(struct sample_node);
    d->nodes_count = 1;
    json_string_map_set(&d->labels, "k", "v");
    d->sizes = xnew(struct sample_sizes);
    sample_document_write(d, &out);
    assert_string_equal(out.data,
                        "{\"version\":1,"
                        "\"text\":\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f\xef\xbf\xbd\xc3\xa9\","
                        "\"inner\":{\"value\":0},\"words\":[\"one\",\"two\"],"
                        "\"nodes\":[{\"value\":0}],\"labels\":{\"k\":\"v\"},\"sizes\":{}}");
    sample_document_free(NULL);
}

static void methods_are_a_table(void **state)
{
    assert_int_equal(sample_methods_count, 2);
    assert_string_equal(sample_methods[0].name, "sample.get");
    assert_string_equal(sample_methods[0].summary, "Get \"it\".");
    assert_ptr_equal(sample_methods[0].params, &sample_empty_type);
    assert_ptr_equal(sample_methods[0].result, &sample_document_type);
    assert_true(sample_methods[0].idempotent && !sample_methods[0].is_long);
    assert_null(sample_methods[1].result);
    assert_int_equal(sample_methods[1].param_fds, 1);
    assert_int_equal(sample_methods[1].result_fds, 2);
    assert_true(sample_methods[1].is_long);

    void *params = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    assert_int_equal(json_parse(sample_methods[0].params, "{}", 2, NULL, &params, NULL), 0);
    json_free(sample_methods[0].params, params);
    assert_int_equal(json_parse(sample_methods[0].params, "{\"a\":1}", 7, NULL, &params, &err),
                     -EINVAL);
    assert_string_equal(error_message(&err), "a: unknown field");
    assert_string_equal(json_type_name(sample_methods[0].params), "sample_empty");
}

static void append_empty_texts(struct buffer *out, const char *name, size_t count)
{
    buffer_printf(out, "\"%s\":[\"\"", name);
    while (--count)
        buffer_append_text(out, ",\"\"");
    buffer_append_text(out, "],");
}

/* Memory runs out at a key, the first that is kept: the message has to do without its name. */
static void a_key_that_memory_has_no_room_for(void **state)
{
    enum {
        KEY = 3 << 20,
        ARGS = 580000,
        ENV = 2000000
    }; /* as much as there may be, but for 1 MiB */
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct oci_config *config;

    buffer_append_text(&text, "{\"process\":{");
    append_empty_texts(&text, "args", ARGS);
    append_empty_texts(&text, "env", ENV);
    buffer_append_char(&text, '"');
    for (size_t i = 0; i < KEY; i++)
        buffer_append_char(&text, 'k');
    buffer_append_text(&text, "\":1}}");
    assert_true(text.length < JSON_DOCUMENT_MAX);
    assert_int_equal(oci_config_parse(text.data, text.length, NULL, &config, &err), -EFBIG);
    assert_non_null(strstr(error_message(&err), "MiB of memory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_survive_a_round_trip),
        cmocka_unit_test(members_have_the_documented_names_and_values),
        cmocka_unit_test(values_of_the_wrong_kind_are_refused),
        cmocka_unit_test(numbers_are_exact_or_refused),
        cmocka_unit_test(rules_of_a_field_are_kept),
        cmocka_unit_test(a_key_stands_once),
        cmocka_unit_test(text_that_is_not_json_is_refused),
        cmocka_unit_test(a_nul_byte_is_refused),
        cmocka_unit_test(without_a_source_messages_have_no_line),
        cmocka_unit_test(values_filled_by_hand_are_written_and_freed),
        cmocka_unit_test(methods_are_a_table),
        cmocka_unit_test(a_key_that_memory_has_no_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
