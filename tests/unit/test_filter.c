/* Filters with a part of our own (src/runtime/filter_plain.c) against libseccomp's alone: they have
 * to give the same answer to every question. Seen red with rules that look at arguments and parts
 * of socketcall(2) taken for plain ones, with x32 taken for an architecture, with ranges that are
 * one number too long and with jumps that are. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/alloc.h>
#include <base/text.h>

#include "filter.h"

enum { PROFILES = 400, NAMES_MAX = 2048, NUMBERS_MAX = 600, QUESTIONS = 3 };

/* Of the byte order of machines that tests run on; libseccomp does not mix the two. */
static const struct {
    const char *name;
    uint32_t token, first;
} architectures[] = {
    {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64, 0},
    {"SCMP_ARCH_X86", SCMP_ARCH_X86, 0},
    {"SCMP_ARCH_X32", SCMP_ARCH_X32, 0x40000000},
    {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64, 0},
    {"SCMP_ARCH_ARM", SCMP_ARCH_ARM, 0},
    {"SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL, 4000},
    {"SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64, 5000},
    {"SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32, 6000},
    {"SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE, 0},
    {"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64, 0},
};

static char *names[NAMES_MAX];
static size_t name_count;

/* libseccomp 2.5.4 forgets to load the number where the first call that it would look for is
 * another architecture's alone: the judge would be wrong. */
static bool is_everywhere(const char *name)
{
    bool everywhere = seccomp_syscall_resolve_name(name) >= 0;

    for (size_t i = 0; i < ARRAY_SIZE(architectures); i++)
        everywhere =
            everywhere && seccomp_syscall_resolve_name_arch(architectures[i].token, name) >= 0;
    return everywhere;
}

static int list_names(void **state)
{
    (void)state;
    for (int number = 0; number < NUMBERS_MAX; number++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_AARCH64, number);
        if (name && is_everywhere(name) && name_count < NAMES_MAX)
            names[name_count++] = name;
        else
            free(name);
    }
    return name_count > 150 ? 0 : -1;
}

static int free_names(void **state)
{
    (void)state;
    while (name_count)
        free(names[--name_count]);
    return 0;
}

/* The same numbers in each run. */
static uint32_t dice(uint32_t sides)
{
    static uint64_t seed = 0x9e3779b97f4a7c15;

    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % sides;
}

static uint64_t any_value(void)
{
    static const uint64_t values[] = {0, 1, 2, 9, 16, 0x7e020000, 0x100000001, 0xffffffff};

    return values[dice(ARRAY_SIZE(values))];
}

/* ---------------------------------------------------------------- profiles */

static void write_action(struct buffer *out, const char *key, const char *errno_key)
{
    static const char *const actions[] = {
        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO",        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRAP",  "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG",   "SCMP_ACT_TRACE"};
    const char *action = actions[dice(ARRAY_SIZE(actions))];

    buffer_printf(out, "\"%s\":\"%s\"", key, action);
    if (strstr(action, "ERRNO") && dice(2))
        buffer_printf(out, ",\"%s\":%u", errno_key, dice(2) ? ENOSYS : dice(10));
}

static void write_arguments(struct buffer *out)
{
    static const char *const operators[] = {"EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"};

    for (uint32_t i = 0, count = 1 + dice(2); i < count; i++)
        buffer_printf(out,
                      "%s{\"index\":%u,\"value\":%llu,\"valueTwo\":%llu,\"op\":\"SCMP_CMP_%s\"}",
                      i ? "," : "", dice(6), (unsigned long long)any_value(),
                      (unsigned long long)any_value(), operators[dice(ARRAY_SIZE(operators))]);
}

/* What a profile is made of. */
struct shape {
    uint32_t first, names; /* the part of the list of names that it uses */
    uint32_t rules, most;  /* how many, and how many names each */
};

/* Neighbours, as profiles have them, and the families that 32-bit architectures put together. */
static void write_names(struct buffer *out, const struct shape *shape)
{
    static const char *const special[] = {"socket", "connect",   "shmget", "accept4", "bind",
                                          "clone",  "epoll_ctl", "read",   "prctl",   "no_such"};
    uint32_t at = dice(shape->names);

    buffer_printf(out, "\"%s\"",
                  dice(3) ? names[shape->first + at] : special[dice(ARRAY_SIZE(special))]);
    for (uint32_t count = dice(shape->most); count > 0; count--) {
        at = (at + (dice(6) ? 1 : dice(shape->names))) % shape->names;
        buffer_printf(out, ",\"%s\"", names[shape->first + at]);
    }
}

static void write_rule(struct buffer *out, const struct shape *shape)
{
    buffer_append_text(out, "{\"names\":[");
    write_names(out, shape);
    buffer_append_text(out, "],");
    write_action(out, "action", "errnoRet");
    if (dice(3) == 0) {
        buffer_append_text(out, ",\"args\":[");
        write_arguments(out);
        buffer_append_text(out, "]");
    }
    buffer_append_text(out, "}");
}

/* Where many rules name the same call libseccomp sees a contradiction sooner or later: most
 * profiles are small, or long with one rule. */
static void write_profile(struct buffer *out)
{
    const uint32_t all = (uint32_t)name_count;
    const struct shape shapes[] = {{dice(all - 12), 12, 2 + dice(3), 4},
                                   {dice(all - 40), 40, 1 + dice(3), 8},
                                   {0, all, 1, 2 * all},
                                   {0, all, 3, 30}};
    const struct shape *shape = &shapes[dice(ARRAY_SIZE(shapes))];

    buffer_append_text(out, "{");
    write_action(out, "defaultAction", "defaultErrnoRet");
    buffer_append_text(out, ",\"architectures\":[");
    uint32_t count = dice(4), first = dice(3) ? 0 : dice(ARRAY_SIZE(architectures));
    for (uint32_t i = 0; i < count; i++)
        buffer_printf(out, "%s\"%s\"", i ? "," : "",
                      architectures[(first + i) % ARRAY_SIZE(architectures)].name);
    buffer_append_text(out, "],\"syscalls\":[");
    for (uint32_t i = 0; i < shape->rules; i++) {
        buffer_append_text(out, i ? "," : "");
        write_rule(out, shape);
    }
    buffer_append_text(out, "]}");
}

/* ---------------------------------------------------------------- answers */

static uint32_t answer(const struct filter *filter, const struct seccomp_data *data)
{
    const struct sock_filter *code = (const void *)filter->code;
    uint32_t value = 0;

    for (uint32_t at = 0; at < filter->length; at++) {
        const struct sock_filter *step = &code[at];
        bool holds = false;
        switch (step->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            memcpy(&value, (const char *)data + step->k, sizeof(value));
            continue;
        case BPF_ALU | BPF_AND | BPF_K:
            value &= step->k;
            continue;
        case BPF_RET | BPF_K:
            return step->k;
        case BPF_JMP | BPF_JA:
            at += step->k;
            continue;
        case BPF_JMP | BPF_JEQ | BPF_K:
            holds = value == step->k;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            holds = value > step->k;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            holds = value >= step->k;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            holds = value & step->k;
            break;
        default:
            fail_msg("instruction %x", step->code);
        }
        at += holds ? step->jt : step->jf;
    }
    fail_msg("a filter without an end");
    return 0;
}

static void ask(const struct filter *own, const struct filter *library, struct seccomp_data data,
                const char *profile)
{
    for (int i = 0; i < QUESTIONS; i++) {
        for (size_t k = 0; k < ARRAY_SIZE(data.args); k++)
            data.args[k] = any_value();
        uint32_t got = answer(own, &data), wanted = answer(library, &data);
        if (got != wanted)
            fail_msg(
                "architecture %x, call %x (%llx, %llx, %llx, %llx): %x in place of %x; profile: %s",
                data.arch, (unsigned)data.nr, (unsigned long long)data.args[0],
                (unsigned long long)data.args[1], (unsigned long long)data.args[2],
                (unsigned long long)data.args[3], got, wanted, profile);
    }
}

static void ask_all(const struct filter *own, const struct filter *library, const char *profile)
{
    static const int strange[] = {-1, -2, 0x3fffffff, 0x7fffffff, 0x40000000 + 600, 983041};

    for (size_t i = 0; i <= ARRAY_SIZE(architectures); i++) {
        bool foreign = i == ARRAY_SIZE(architectures);
        struct seccomp_data data = {.arch = foreign ? 0x12345678 : architectures[i].token};
        uint32_t first = foreign ? 0 : architectures[i].first;
        if (data.arch == SCMP_ARCH_X32) /* the kernel's name for it */
            data.arch = SCMP_ARCH_X86_64;
        for (uint32_t number = 0; number < NUMBERS_MAX; number++) {
            data.nr = (int)(first + number);
            ask(own, library, data, profile);
        }
        for (size_t k = 0; k < ARRAY_SIZE(strange); k++) {
            data.nr = strange[k];
            ask(own, library, data, profile);
        }
    }
}

/* Returns whether libseccomp takes the profile. */
static bool compare(const char *profile)
{
    _cleanup_free_ struct filter *own = NULL, *library = NULL;
    _cleanup_error_ struct error own_err = ERROR_INIT, library_err = ERROR_INIT;
    struct oci_seccomp *config;
    size_t size;

    assert_int_equal(oci_seccomp_parse(profile, strlen(profile), "profile", &config, NULL), 0);
    int own_result = filter_compile_from(config, FILTER_LIBRARY_AND_OWN, &own, &size, &own_err);
    int result = filter_compile_from(config, FILTER_LIBRARY, &library, &size, &library_err);
    oci_seccomp_free(config);
    if (own_result != result)
        fail_msg("%s in place of %s; profile: %s", error_message(&own_err),
                 error_message(&library_err), profile);
    if (result == 0)
        ask_all(own, library, profile);
    return result == 0;
}

static void it_answers_as_libseccomp(void **state)
{
    int compared = 0;

    (void)state;
    for (int i = 0; i < PROFILES; i++) {
        _cleanup_buffer_ struct buffer profile = BUFFER_INIT;
        write_profile(&profile);
        compared += compare(buffer_text(&profile));
    }
    assert_true(compared > PROFILES / 3);
}

/* mmap2 is 192 for 32-bit x86, socket 359 or the call 102 with 1, and only they are asked for. */
static void calls_of_other_architectures_are_known(void **state)
{
    static const char profile[] =
        "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_"
        "X86\"],"
        "\"syscalls\":[{\"names\":[\"mmap2\",\"read\",\"socket\"],\"action\":\"SCMP_ACT_ERRNO\"}]}";
    static const struct {
        uint32_t architecture;
        int number;
        uint64_t argument;
        bool refused;
    } answers[] = {
        {SCMP_ARCH_X86, 192, 0, true},   {SCMP_ARCH_X86, 3, 0, true},
        {SCMP_ARCH_X86, 102, 1, true},   {SCMP_ARCH_X86, 102, 2, false},
        {SCMP_ARCH_X86, 359, 0, true},   {SCMP_ARCH_X86, 191, 0, false},
        {SCMP_ARCH_X86, 193, 0, false},  {SCMP_ARCH_X86_64, 192, 0, false},
        {SCMP_ARCH_X86_64, 0, 0, true},  {SCMP_ARCH_X86_64, 1, 0, false},
        {SCMP_ARCH_X86_64, 41, 0, true}, {SCMP_ARCH_X86_64, 102, 1, false},
    };
    _cleanup_free_ struct filter *filter = NULL;
    struct oci_seccomp *config;
    size_t size;

    (void)state;
    assert_int_equal(oci_seccomp_parse(profile, strlen(profile), "profile", &config, NULL), 0);
    int r = filter_compile_from(config, FILTER_LIBRARY_AND_OWN, &filter, &size, NULL);
    oci_seccomp_free(config);
    if (r == -EDOM) /* a machine of the other byte order */
        skip();
    assert_int_equal(r, 0);
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        const struct seccomp_data data = {.arch = answers[i].architecture,
                                          .nr = answers[i].number,
                                          .args = {answers[i].argument}};
        assert_int_equal(answer(filter, &data) & SECCOMP_RET_ACTION_FULL,
                         answers[i].refused ? SECCOMP_RET_ERRNO : SECCOMP_RET_ALLOW);
    }
}

/* It holds on to the first. */
/* socketcall and chown32 are no calls of x86-64: where nothing else is left before clone,
 * libseccomp would not look at the number at all. */
static void conditions_hold_beside_calls_that_are_none(void **state)
{
    static const char *const profiles[] = {
        "{\"names\":[\"mount\",\"ptrace\",\"socketcall\"],\"action\":\"SCMP_ACT_ERRNO\"}",
        "{\"names\":[\"mount\"],\"action\":\"SCMP_ACT_ERRNO\"},"
        "{\"names\":[\"chown32\"],\"action\":\"SCMP_ACT_KILL\"}",
    };
    const struct seccomp_data data = {
        .arch = SCMP_ARCH_X86_64, .nr = 56 /* clone */, .args = {0x10000000 /* CLONE_NEWUSER */}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(profiles); i++) {
        _cleanup_free_ char *profile = xasprintf(
            "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_X86_64\","
            "\"SCMP_ARCH_X86\",\"SCMP_ARCH_X32\"],\"syscalls\":[%s,{\"names\":[\"clone\"],"
            "\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":268435456,"
            "\"valueTwo\":268435456,\"op\":\"SCMP_CMP_MASKED_EQ\"}]}]}",
            profiles[i]);
        _cleanup_free_ struct filter *filter = NULL;
        struct oci_seccomp *config;
        size_t size;

        assert_int_equal(oci_seccomp_parse(profile, strlen(profile), "profile", &config, NULL), 0);
        int r = filter_compile_from(config, FILTER_LIBRARY_AND_OWN, &filter, &size, NULL);
        oci_seccomp_free(config);
        if (r == -EDOM) /* a machine of the other byte order */
            skip();
        assert_int_equal(r, 0);
        assert_int_equal(answer(filter, &data) & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ERRNO);
    }
}

static void contradictions_are_left_to_libseccomp(void **state)
{
    static const char *const actions[] = {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(actions) * ARRAY_SIZE(actions); i++) {
        _cleanup_buffer_ struct buffer profile = BUFFER_INIT;
        buffer_printf(&profile,
                      "{\"defaultAction\":\"SCMP_ACT_TRAP\",\"syscalls\":["
                      "{\"names\":[\"read\",\"dup\"],\"action\":\"%s\"},"
                      "{\"names\":[\"write\",\"read\",\"read\"],\"action\":\"%s\"}]}",
                      actions[i % ARRAY_SIZE(actions)], actions[i / ARRAY_SIZE(actions)]);
        assert_true(compare(buffer_text(&profile)));
    }
}

/* With gaps: as many ranges as there can be, and jumps that are too long for a condition. */
static void ranges_may_be_many(void **state)
{
    _cleanup_buffer_ struct buffer profile = BUFFER_INIT;

    (void)state;
    buffer_append_text(&profile, "{\"defaultAction\":\"SCMP_ACT_TRAP\",\"architectures\":["
                                 "\"SCMP_ARCH_AARCH64\",\"SCMP_ARCH_X86_64\"],\"syscalls\":[");
    for (size_t i = 0; i < name_count; i++)
        buffer_printf(&profile,
                      "%s{\"names\":[\"%s\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":%zu}",
                      i ? "," : "", names[i], i % 7);
    buffer_append_text(&profile, "]}");
    assert_true(compare(buffer_text(&profile)));
}

static void long_profiles_get_short_filters(void **state)
{
    _cleanup_buffer_ struct buffer profile = BUFFER_INIT;
    _cleanup_free_ struct filter *own = NULL, *library = NULL;
    struct oci_seccomp *config;
    size_t size;

    (void)state;
    buffer_append_text(&profile,
                       "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{\"names\":[");
    for (size_t i = 0; i < name_count; i++)
        buffer_printf(&profile, "%s\"%s\"", i ? "," : "", names[i]);
    buffer_append_text(&profile, "],\"action\":\"SCMP_ACT_ALLOW\"}]}");
    assert_int_equal(oci_seccomp_parse(profile.data, profile.length, "profile", &config, NULL), 0);
    assert_int_equal(filter_compile_from(config, FILTER_LIBRARY_AND_OWN, &own, &size, NULL), 0);
    assert_int_equal(filter_compile_from(config, FILTER_LIBRARY, &library, &size, NULL), 0);
    oci_seccomp_free(config);
    assert_true(own->length < library->length * 2 / 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_answers_as_libseccomp),
        cmocka_unit_test(calls_of_other_architectures_are_known),
        cmocka_unit_test(conditions_hold_beside_calls_that_are_none),
        cmocka_unit_test(contradictions_are_left_to_libseccomp),
        cmocka_unit_test(ranges_may_be_many),
        cmocka_unit_test(long_profiles_get_short_filters),
    };

    return cmocka_run_group_tests(tests, list_names, free_names);
}
