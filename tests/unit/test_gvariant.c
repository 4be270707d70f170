#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include <base/alloc.h>

#include "gvariant.h"

static struct gvariant *parse(const char *text, const char *signature)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct gvariant *value = NULL;

    if (gvariant_parse(text, &value, &err) < 0)
        fail_msg("%s: %s", text, error_message(&err));
    assert_string_equal(value->signature, signature);
    return value;
}

static void refuse(const char *text)
{
    struct gvariant *value = NULL;

    if (gvariant_parse(text, &value, NULL) == 0)
        fail_msg("'%s' was taken", text);
    assert_null(value);
}

static void numbers_have_the_type_that_is_named(void **state _unused_)
{
    static const struct {
        const char *text, *signature;
        int64_t value;
    } cases[] = {
        {"5", "i", 5},
        {" -7 ", "i", -7},
        {"uint64 123456789", "t", 123456789},
        {"byte 255", "y", 255},
        {"int64 -9223372036854775808", "x", INT64_MIN},
        {"uint64 18446744073709551615", "t", -1},
        {"0x10", "i", 16},
        {"@t 8", "t", 8},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gvariant *value = parse(cases[i].text, cases[i].signature);
        assert_int_equal(value->integer, cases[i].value);
        gvariant_free(value);
    }
    struct gvariant *real = parse("1.5", "d");
    assert_true(real->real > 1.49 && real->real < 1.51);
    gvariant_free(real);
}

static void texts_lose_their_quotes_and_escapes(void **state _unused_)
{
    struct gvariant *value = parse("'inactive-or-failed'", "s");

    assert_string_equal(value->text, "inactive-or-failed");
    gvariant_free(value);
    value = parse("\"it's \\\"so\\\"\\n\"", "s");
    assert_string_equal(value->text, "it's \"so\"\n");
    gvariant_free(value);
}

static void containers_take_the_type_of_what_they_hold(void **state _unused_)
{
    gvariant_free(parse("['a', 'b']", "as"));
    gvariant_free(parse("@as []", "as"));
    gvariant_free(parse("@ay [1, 0x80]", "ay"));
    gvariant_free(parse("[('/dev/null', 'rw'), ('char-*', 'm')]", "a(ss)"));
    gvariant_free(parse("@a(ss) []", "a(ss)"));
    gvariant_free(parse("('a', byte 1, <true>)", "(syv)"));
    struct gvariant *value = parse("[uint64 1, 2]", "at");
    assert_int_equal(value->count, 2);
    assert_int_equal(value->items[1]->unsigned_integer, 2);
    gvariant_free(value);
}

static void what_is_no_value_is_refused(void **state _unused_)
{
    static const char *const texts[] = {
        "",
        "uint64",
        "uint64 -1",
        "byte 256",
        "'open",
        "'open\\",
        "[]",
        "[1, 'a']",
        "[1",
        "(1",
        "()",
        "1 2",
        "true2",
        "yes",
        "@a 1",
        "@as ['a', 1]",
        "@(ss) ('a')",
        "@s 5",
        "uint64 'a'",
        "[[@aaaaaaaaaaaaaaaai [], []], []]", /* deeper than each of its parts */
        "{'a': 1}",
        "<1",
        "2147483648",
        "1e999",
        "nan",
        "'\\u0041'",
        "@ai [int64 1]",
        "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        refuse(texts[i]);
}

static void seconds_become_microseconds(void **state _unused_)
{
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {{"2", 2000000}, {"uint64 3", 3000000}, {"0.5", 500000}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gvariant *value = NULL;
        assert_int_equal(gvariant_parse(cases[i].text, &value, NULL), 0);
        assert_int_equal(gvariant_to_microseconds(value, NULL), 0);
        assert_string_equal(value->signature, "t");
        assert_int_equal(value->unsigned_integer, cases[i].value);
        gvariant_free(value);
    }
    static const char *const wrong[] = {"-1", "'2'", "uint64 18446744073709551615", "-0.5"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct gvariant *value = NULL;
        assert_int_equal(gvariant_parse(wrong[i], &value, NULL), 0);
        assert_true(gvariant_to_microseconds(value, NULL) < 0);
        gvariant_free(value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_have_the_type_that_is_named),
        cmocka_unit_test(texts_lose_their_quotes_and_escapes),
        cmocka_unit_test(containers_take_the_type_of_what_they_hold),
        cmocka_unit_test(what_is_no_value_is_refused),
        cmocka_unit_test(seconds_become_microseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
