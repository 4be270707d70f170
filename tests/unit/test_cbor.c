/*
 * CBOR: the examples of RFC 8949, values of generated types there and back, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <schema/cbor.h>
#include <schema/sample.h>

static size_t from_hex(const char *hex, unsigned char *ret)
{
    size_t length = 0;
    unsigned int byte;

    for (; *hex && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        ret[length++] = (unsigned char)byte;
    return length;
}

/* RFC 8949, appendix A, as far as JSON can say it. */
static const struct {
    const char *hex;
    const char *json;
    bool ours; /* what we write for it, too */
} examples[] = {
    {"00", "0", true},
    {"01", "1", true},
    {"0a", "10", true},
    {"17", "23", true},
    {"1818", "24", true},
    {"1819", "25", true},
    {"1864", "100", true},
    {"1903e8", "1000", true},
    {"1a000f4240", "1000000", true},
    {"1b000000e8d4a51000", "1000000000000", true},
    {"1bffffffffffffffff", "18446744073709551615", true},
    {"20", "-1", true},
    {"29", "-10", true},
    {"3863", "-100", true},
    {"3903e7", "-1000", true},
    {"3b7fffffffffffffff", "-9223372036854775808", true},
    {"f90000", "0", false},
    {"f98000", "-0", false},
    {"f93c00", "1", false},
    {"fb3ff199999999999a", "1.1", true},
    {"f93e00", "1.5", false},
    {"f97bff", "65504", false},
    {"fa47c35000", "100000", false},
    {"fa7f7fffff", "3.4028234663852886e+38", false},
    {"fb7e37e43c8800759c", "1e+300", true},
    {"f90001", "5.9604644775390625e-08", false},
    {"f90400", "6.103515625e-05", false},
    {"f9c400", "-4", false},
    {"fbc010666666666666", "-4.1", true},
    {"f4", "false", true},
    {"f5", "true", true},
    {"f6", "null", true},
    {"c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\"", false},
    {"c11a514b67b0", "1363896240", false},
    {"60", "\"\"", true},
    {"6161", "\"a\"", true},
    {"6449455446", "\"IETF\"", true},
    {"62225c", "\"\\\"\\\\\"", true},
    {"62c3bc", "\"\xc3\xbc\"", true},
    {"63e6b0b4", "\"\xe6\xb0\xb4\"", true},
    {"64f0908591", "\"\xf0\x90\x85\x91\"", true},
    {"80", "[]", false},
    {"83010203", "[1,2,3]", false},
    {"8301820203820405", "[1,[2,3],[4,5]]", false},
    {"a0", "{}", false},
    {"a26161016162820203", "{\"a\":1,\"b\":[2,3]}", false},
    {"826161a161626163", "[\"a\",{\"b\":\"c\"}]", false},
    {"7f657374726561646d696e67ff", "\"streaming\"", false},
    {"9fff", "[]", true},
    {"9f018202039f0405ffff", "[1,[2,3],[4,5]]", false},
    {"83018202039f0405ff", "[1,[2,3],[4,5]]", false},
    {"bf61610161629f0203ffff", "{\"a\":1,\"b\":[2,3]}", true},
    {"826161bf61626163ff", "[\"a\",{\"b\":\"c\"}]", false},
    {"bf6346756ef563416d7421ff", "{\"Fun\":true,\"Amt\":-2}", true},
};

static void examples_of_the_rfc(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        _cleanup_buffer_ struct buffer json = BUFFER_INIT, cbor = BUFFER_INIT;
        unsigned char data[64];
        size_t length = from_hex(examples[i].hex, data);

        if (cbor_to_json(data, length, &json, NULL) < 0)
            fail_msg("refused: %s", examples[i].hex);
        assert_string_equal(buffer_text(&json), examples[i].json);
        if (!examples[i].ours)
            continue;
        assert_return_code(cbor_from_json(json.data, json.length, &cbor, NULL), 0);
        assert_int_equal(cbor.length, length);
        assert_memory_equal(cbor.data, data, length);
    }
}

static void what_json_cannot_say_is_refused(void **state)
{
    static const char *const bad[] = {
        "",                   /* nothing */
        "18",                 /* a number without its byte */
        "1c",                 /* reserved */
        "3bffffffffffffffff", /* -2^64 */
        "f97c00",             /* infinity */
        "f97e00",             /* not a number */
        "f7",                 /* undefined */
        "f0",                 /* simple(16) */
        "f818",               /* simple(24), reserved */
        "f8ff",               /* simple(255) */
        "4401020304",         /* bytes */
        "5f42010243030405ff", /* bytes in pieces */
        "a201020304",         /* keys that are numbers */
        "61ff",               /* not UTF-8 */
        "6100",               /* NUL */
        "62c3",               /* half a text */
        "7f6161",             /* pieces without an end */
        "7f4161ff",           /* a piece of bytes */
        "7f7f6161ffff",       /* pieces in a piece */
        "8201",               /* an array with too little */
        "9f01",               /* without its end */
        "a16161",             /* a key without its value */
        "bf6161ff",           /* the same with a break */
        "ff",                 /* a break of nothing */
        "0000",               /* two items */
        "9bffffffffffffffff", /* very many elements */
        "bbffffffffffffffff", /* very many members */
        "7bffffffffffffffff", /* a very long text */
        "c0",                 /* a tag of nothing */
        "df00",               /* a tag of indefinite length */
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_buffer_ struct buffer json = BUFFER_INIT;
        unsigned char data[64];

        if (cbor_to_json(data, from_hex(bad[i], data), &json, &err) != -EINVAL)
            fail_msg("accepted: %s as %s", bad[i], buffer_text(&json));
        assert_memory_equal(error_message(&err), "not CBOR: byte ", strlen("not CBOR: byte "));
    }
}

#define V "{\"version\":1,"

static const char *const documents[] = {
    "{\"version\":2}",
    V "\"text\":\"\",\"name\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x94x\",\"color\":\"green\","
      "\"fixed\":\"this\",\"flag\":false}",
    V "\"i8\":-128,\"i16\":-32768,\"i32\":-2147483648,\"i64\":-9223372036854775808,\"u8\":255,"
      "\"u16\":65535,\"u32\":4294967295,\"u64\":18446744073709551615}",
    V "\"ratio\":0.1,\"ratios\":[-1.5,1e+300,3,0.30000000000000004]}",
    V "\"raw\":{\"a b\":[1,2.5,\"x\\\"\\\\ y\",null,true,false,{}]},\"raws\":[null,1,\"s\",[],{}]}",
    V "\"inner\":{\"value\":1,\"next\":{\"value\":2}},\"nodes\":[{\"value\":3},{\"value\":4}]}",
    V "\"words\":[\"a\",\"b\",\"c\"],\"numbers\":[],\"flags\":[true,false],\"nodes\":[]}",
    V "\"labels\":{\"z\":\"1\",\"a\":\"2\",\"\":\"3\"},\"extras\":{\"x\":{\"y\":1},\"n\":null}}",
    V "\"labels\":{},\"extras\":{},\"sizes\":{},\"table\":[]}",
    V "\"sizes\":{\"small\":1,\"large\":4294967295},\"table\":[[\"a\",\"b\"],[],[\"c\"]]}",
    V "\"ports\":{\"80/tcp\":null,\"81\":[],\"82\":[{\"value\":1}]}}",
    V "\"command\":\"a b\"}",
    V "\"command\":[\"a b\"]}",
    V "\"nullText\":null,\"nullNumber\":null,\"nullWords\":null,\"nullNode\":null,"
      "\"nullLabels\":null}",
    V "\"gaps\":[null,{\"value\":1},null]}",
    V "\"kept\":{\"known\":\"k\",\"other\":[1,{\"x\":null}]}}",
};

static void values_come_back_from_cbor(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
        _cleanup_sample_document_ struct sample_document *value = NULL, *again = NULL;
        _cleanup_buffer_ struct buffer cbor = BUFFER_INIT, json = BUFFER_INIT, check = BUFFER_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;

        assert_return_code(
            sample_document_parse(documents[i], strlen(documents[i]), NULL, &value, NULL), 0);
        cbor_write(&sample_document_type, value, &cbor);
        if (cbor_parse(&sample_document_type, cbor.data, cbor.length, (void **)&again, &err) < 0)
            fail_msg("%s: %s", documents[i], error_message(&err));
        sample_document_write(again, &json);
        assert_string_equal(json.data, documents[i]);
        /* A reader without the type sees the same. */
        assert_return_code(cbor_to_json(cbor.data, cbor.length, &check, NULL), 0);
        assert_string_equal(check.data, documents[i]);
    }
}

/* JSON that the rules of its type refuse is refused as CBOR with the same words. */
static void the_rules_of_a_type_hold(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[]",
        V "\"u8\":256}",
        V "\"u8\":-1}",
        V "\"i8\":-129}",
        V "\"text\":5}",
        V "\"flag\":0}",
        V "\"text\":null}",
        V "\"name\":\"12345\"}",
        V "\"color\":\"blue\"}",
        V "\"words\":[]}",
        V "\"words\":[\"\",\"\",\"\",\"\"]}",
        V "\"wordz\":1}",
        V "\"inner\":{}}",
        V "\"inner\":{\"value\":1,\"next\":{\"value\":\"x\"}}}",
        V "\"labels\":{\"a\":\"1\",\"b\":\"2\",\"a\":\"3\"}}",
        "{\"version\":1,\"version\":1}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        _cleanup_error_ struct error json_error = ERROR_INIT, cbor_error = ERROR_INIT;
        _cleanup_buffer_ struct buffer cbor = BUFFER_INIT;
        struct sample_document *value;

        assert_int_equal(sample_document_parse(bad[i], strlen(bad[i]), NULL, &value, &json_error),
                         -EINVAL);
        assert_return_code(cbor_from_json(bad[i], strlen(bad[i]), &cbor, NULL), 0);
        assert_int_equal(
            cbor_parse(&sample_document_type, cbor.data, cbor.length, (void **)&value, &cbor_error),
            -EINVAL);
        assert_string_equal(error_message(&cbor_error), error_message(&json_error));
    }
}

/* Readers look at several bytes at once: one bad byte is to be seen wherever it stands. */
static void every_byte_of_a_text_is_looked_at(void **state)
{
    enum { LONGEST = 40 };
    static const char bad[] = {'\0', '\x80', '\xff', '\xc3'};
    char text[LONGEST + 1];

    for (size_t length = 1; length <= LONGEST; length++) {
        for (size_t i = 0; i < length * sizeof(bad); i++) {
            _cleanup_buffer_ struct buffer cbor = BUFFER_INIT;
            struct json_string_map *map;

            memset(text, 'x', length);
            cbor_append_head(&cbor, CBOR_MAP, 1);
            cbor_append_text(&cbor, "k", 1);
            cbor_append_text(&cbor, text, length);
            assert_return_code(
                cbor_parse(&json_string_map_type, cbor.data, cbor.length, (void **)&map, NULL), 0);
            assert_int_equal(strlen(map->values[0]), length);
            json_string_map_free(map);
            cbor.data[cbor.length - length + i / sizeof(bad)] = bad[i % sizeof(bad)];
            assert_int_equal(
                cbor_parse(&json_string_map_type, cbor.data, cbor.length, (void **)&map, NULL),
                -EINVAL);
        }
    }
}

static void members_may_come_in_any_order(void **state)
{
    static const char shuffled[] = "{\"flag\":true,\"text\":\"t\",\"version\":1,\"name\":\"n\"}";
    static const char twice[] = "{\"version\":1,\"name\":\"n\",\"text\":\"t\",\"name\":\"m\"}";
    _cleanup_buffer_ struct buffer cbor = BUFFER_INIT, json = BUFFER_INIT;
    _cleanup_sample_document_ struct sample_document *value = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    assert_return_code(cbor_from_json(shuffled, strlen(shuffled), &cbor, NULL), 0);
    assert_return_code(
        cbor_parse(&sample_document_type, cbor.data, cbor.length, (void **)&value, NULL), 0);
    sample_document_write(value, &json);
    assert_string_equal(json.data, V "\"text\":\"t\",\"name\":\"n\",\"flag\":true}");
    buffer_clear(&cbor);
    assert_return_code(cbor_from_json(twice, strlen(twice), &cbor, NULL), 0);
    sample_document_free(value);
    value = NULL;
    assert_int_equal(
        cbor_parse(&sample_document_type, cbor.data, cbor.length, (void **)&value, &err), -EINVAL);
    assert_string_equal(error_message(&err), "name: duplicate key");
}

static void depth_has_a_limit(void **state)
{
    char text[2 * (JSON_DEPTH_MAX + 1)];
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_int_equal(cbor_from_json(text, sizeof(text), &out, NULL), -EINVAL);
    assert_return_code(cbor_from_json(text + 1, sizeof(text) - 2, &out, NULL), 0);
    buffer_clear(&out);
    memset(text, 0x81, sizeof(text));
    assert_int_equal(cbor_to_json(text, sizeof(text), &out, NULL), -EINVAL);
    struct cbor_scan scan = {.at = (unsigned char *)text,
                             .end = (unsigned char *)text + sizeof(text)};
    assert_false(cbor_scan_skip(&scan, JSON_DEPTH_MAX));
    assert_string_equal(scan.problem, "nested too deep");
}

/* More members than fit into the first byte of a map. */
static void large_maps_have_their_head(void **state)
{
    _cleanup_json_string_map_ struct json_string_map *map = NULL;
    _cleanup_buffer_ struct buffer cbor = BUFFER_INIT, json = BUFFER_INIT, expected = BUFFER_INIT;
    char name[16];

    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "k%d", i);
        json_string_map_set(&map, name, "v");
    }
    cbor_write(&json_string_map_type, map, &cbor);
    json_write(&json_string_map_type, map, &expected);
    assert_return_code(cbor_to_json(cbor.data, cbor.length, &json, NULL), 0);
    assert_string_equal(json.data, expected.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_the_rfc),
        cmocka_unit_test(what_json_cannot_say_is_refused),
        cmocka_unit_test(values_come_back_from_cbor),
        cmocka_unit_test(the_rules_of_a_type_hold),
        cmocka_unit_test(every_byte_of_a_text_is_looked_at),
        cmocka_unit_test(members_may_come_in_any_order),
        cmocka_unit_test(depth_has_a_limit),
        cmocka_unit_test(large_maps_have_their_head),
    };

    return cmocka_run_group_tests_name("cbor", tests, NULL, NULL);
}
