/* Parts of src/runtime that need no container. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "filter_stub.h"
#include "intel_rdt.h"

/* ---------------------------------------------------------------- intelRdt */

static void schemata_have_an_order(void **state)
{
    char *lines[] = {"L2:0=f", "MB:0=50", NULL};
    const struct oci_intel_rdt config = {
        .l3_cache_schema = "L3:0=ff\nMB:0=70\nL3CODE:1=3",
        .mem_bw_schema = "MB:0=20;1=70",
        .schemata = lines,
        .schemata_count = 2,
    };
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    (void)state;
    intel_rdt_schemata(&config, &text);
    assert_string_equal(buffer_text(&text), "L3:0=ff\nL3CODE:1=3\nMB:0=20;1=70\nL2:0=f\nMB:0=50\n");
}

static void schemata_are_compared_by_meaning(void **state)
{
    static const char existing[] = "    L3:0=00ff;1=0f0f\n    MB:0= 50;1=100\n";

    (void)state;
    assert_true(intel_rdt_matches("L3:1=F0F;0=ff\n", existing));
    assert_true(intel_rdt_matches("MB:0=50\nL3:0=0ff", existing));
    assert_true(intel_rdt_matches("", existing));
    assert_false(intel_rdt_matches("L3:0=fe", existing));
    assert_false(intel_rdt_matches("L3:2=ff", existing));
    assert_false(intel_rdt_matches("L2:0=ff", existing));
    assert_false(intel_rdt_matches("nonsense", existing));
    assert_false(intel_rdt_matches("L3:0", existing));
    assert_false(intel_rdt_matches("L3:0=ff", ""));
}

/* ---------------------------------------------------------------- the stub of filters */

/* What the program answers, run as the kernel does; 0: it goes on behind its end. */
static uint32_t answer(const struct buffer *program, uint32_t architecture, uint32_t number)
{
    const struct sock_filter *code = (const void *)program->data;
    size_t length = program->length / sizeof(*code);
    const struct seccomp_data data = {.nr = (int)number, .arch = architecture};
    uint32_t value = 0;

    for (size_t at = 0; at < length; at++) {
        const struct sock_filter *step = &code[at];
        switch (step->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            memcpy(&value, (const char *)&data + step->k, sizeof(value));
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            at += value == step->k ? step->jt : step->jf;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            at += value > step->k ? step->jt : step->jf;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            at += value & step->k ? step->jt : step->jf;
            break;
        case BPF_RET | BPF_K:
            return step->k;
        default:
            fail_msg("instruction %x", step->code);
        }
        assert_true(at < length);
    }
    return 0;
}

static void the_stub_knows_each_architecture(void **state)
{
    const uint32_t missing = SCMP_ACT_ERRNO(ENOSYS), x32 = 0x40000000;
    _cleanup_buffer_ struct buffer program = BUFFER_INIT;

    (void)state;
    filter_stub_append(SCMP_ARCH_X86_64, 300, &program);
    filter_stub_append(SCMP_ARCH_X32, x32 | 400, &program);
    filter_stub_append(SCMP_ARCH_X86, 200, &program);
    filter_stub_append(SCMP_ARCH_S390X, 100, &program);
    assert_int_equal(answer(&program, AUDIT_ARCH_X86_64, 300), 0);
    assert_int_equal(answer(&program, AUDIT_ARCH_X86_64, 301), missing);
    assert_int_equal(answer(&program, AUDIT_ARCH_X86_64, x32 | 400), 0);
    assert_int_equal(answer(&program, AUDIT_ARCH_X86_64, x32 | 401), missing);
    assert_int_equal(answer(&program, AUDIT_ARCH_I386, 200), 0);
    assert_int_equal(answer(&program, AUDIT_ARCH_I386, 201), missing);
    assert_int_equal(answer(&program, AUDIT_ARCH_S390X, 100), 0);
    assert_int_equal(answer(&program, AUDIT_ARCH_S390X, 0), missing);
    assert_int_equal(answer(&program, AUDIT_ARCH_S390X, 101), missing);
    assert_int_equal(answer(&program, AUDIT_ARCH_AARCH64, 5000), 0);
}

static void the_stub_is_for_profiles_that_refuse(void **state)
{
    (void)state;
    assert_true(filter_stub_is_wanted(SCMP_ACT_ERRNO(EPERM)));
    assert_true(filter_stub_is_wanted(SCMP_ACT_KILL_PROCESS));
    assert_true(filter_stub_is_wanted(SCMP_ACT_TRAP));
    assert_false(filter_stub_is_wanted(SCMP_ACT_ERRNO(ENOSYS)));
    assert_false(filter_stub_is_wanted(SCMP_ACT_ALLOW));
    assert_false(filter_stub_is_wanted(SCMP_ACT_LOG));
    assert_false(filter_stub_is_wanted(SCMP_ACT_TRACE(1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemata_have_an_order),
        cmocka_unit_test(schemata_are_compared_by_meaning),
        cmocka_unit_test(the_stub_knows_each_architecture),
        cmocka_unit_test(the_stub_is_for_profiles_that_refuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
