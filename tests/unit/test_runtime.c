/* Parts of src/runtime that need no container. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <base/alloc.h>
#include <base/file.h>

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

/* A folder that stands for a resctrl file system: the machine may have none. */
struct resctrl {
    char path[32];
    int fd;
};

static void put(const struct resctrl *resctrl, const char *file, const char *text)
{
    _cleanup_free_ char *folder = xstrdup(file);

    for (char *slash = folder; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        assert_true(mkdirat(resctrl->fd, folder, 0755) == 0 || errno == EEXIST);
    }
    assert_int_equal(file_replace_at(resctrl->fd, file, text, strlen(text), 0644, NULL), 0);
}

static int make_resctrl(void **state)
{
    static struct resctrl resctrl;

    resctrl = (struct resctrl){.path = "/tmp/resctrl-XXXXXX"};
    if (!mkdtemp(resctrl.path))
        return -1;
    resctrl.fd = open(resctrl.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    put(&resctrl, "info/L3/cbm_mask", "7ff\n");
    put(&resctrl, "info/L3/min_cbm_bits", "2\n");
    put(&resctrl, "info/L3/num_closids", "16\n");
    put(&resctrl, "info/MB/bandwidth_gran", "10\n");
    put(&resctrl, "info/MB/delay_linear", "1\n");
    put(&resctrl, "info/MB/min_bandwidth", "10\n");
    put(&resctrl, "info/MB/num_closids", "8\n");
    put(&resctrl, "info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n");
    put(&resctrl, "schemata", "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n");
    put(&resctrl, "shop/schemata", "    L3:0=f;1=f0\n    MB:0=20;1=70\n");
    put(&resctrl, "shop/mon_data/mon_L3_00/llc_occupancy", "4096\n");
    put(&resctrl, "shop/mon_data/mon_L3_00/mbm_total_bytes", "300\n");
    put(&resctrl, "shop/mon_data/mon_L3_00/mbm_local_bytes", "Unavailable\n");
    put(&resctrl, "shop/mon_data/mon_L3_01/llc_occupancy", "0\n");
    put(&resctrl, "shop/mon_data/mon_L3_01/mbm_total_bytes", "18446744073709551615\n");
    put(&resctrl, "shop/mon_groups/shop/mon_data/mon_L3_00/mbm_total_bytes", "5\n");
    *state = &resctrl;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    return remove(path);
}

/* Not by file_remove_tree_at(), which wants openat2(2): qemu-user has none. */
static int remove_resctrl(void **state)
{
    struct resctrl *resctrl = *state;

    close(resctrl->fd);
    return nftw(resctrl->path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static char *statistics(const struct resctrl *resctrl, const struct oci_intel_rdt *config,
                        const char *id)
{
    struct buffer text = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &text, JSON_COMPACT);
    json_writer_object_begin(&writer);
    intel_rdt_stats_at(resctrl->fd, config, id, &writer);
    json_writer_object_end(&writer);
    return buffer_steal(&text);
}

#define INFO                                                                                       \
    "\"l3_cache_info\":{\"cbm_mask\":\"7ff\",\"min_cbm_bits\":2,\"num_closids\":16},"              \
    "\"l3_cache_schema_root\":\"L3:0=7ff;1=7ff\",\"l3_cache_schema\":\"L3:0=f;1=f0\","
#define BANDWIDTH                                                                                  \
    "\"mem_bw_info\":{\"bandwidth_gran\":10,\"delay_linear\":1,\"min_bandwidth\":10,"              \
    "\"num_closids\":8},\"mem_bw_schema_root\":\"MB:0=100;1=100\","                                \
    "\"mem_bw_schema\":\"MB:0=20;1=70\","

static void resctrl_statistics_are_runcs(void **state)
{
    const struct resctrl *resctrl = *state;
    const struct oci_intel_rdt own = {0},
                               monitored = {.clos_id = (char[]){"shop"}, .enable_monitoring = true};
    _cleanup_free_ char *whole = statistics(resctrl, &own, "shop");
    _cleanup_free_ char *part = statistics(resctrl, &monitored, "shop");
    _cleanup_free_ char *gone = statistics(resctrl, &own, "other");

    assert_string_equal(whole, "{" INFO BANDWIDTH "\"mbm_stats\":[{\"mbm_total_bytes\":300},"
                               "{\"mbm_total_bytes\":18446744073709551615}],"
                               "\"cmt_stats\":[{\"llc_occupancy\":4096},{}]}");
    assert_string_equal(part, "{" INFO BANDWIDTH "\"mbm_stats\":[{\"mbm_total_bytes\":5}],"
                              "\"cmt_stats\":[{}]}");
    assert_string_equal(gone, "{}");
}

static void updates_fail(int root_fd, const struct oci_intel_rdt *config, const char *l3_cache,
                         const char *bandwidth, const char *message)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    assert_true(intel_rdt_update_at(root_fd, config, "shop", l3_cache, bandwidth, &err) < 0);
    assert_non_null(strstr(error_message(&err), message));
}

static void a_group_gets_other_schemata(void **state)
{
    const struct resctrl *resctrl = *state;
    const struct oci_intel_rdt own = {0};
    _cleanup_free_ char *text = NULL;
    size_t length;

    assert_int_equal(
        intel_rdt_update_at(resctrl->fd, &own, "shop", "L3:0=3\nMB:0=1", "MB:0=50", NULL), 0);
    assert_int_equal(file_read_at(resctrl->fd, "shop/schemata", 100, &text, &length, NULL), 0);
    assert_memory_equal(text, "L3:0=3\nMB:0=50\n", strlen("L3:0=3\nMB:0=50\n"));
    assert_int_equal(intel_rdt_update_at(-1, NULL, "shop", NULL, "", NULL), 0);
    updates_fail(resctrl->fd, NULL, "L3:0=3", NULL, "without linux.intelRdt");
    updates_fail(-1, &own, "L3:0=3", NULL, "l3 cache schema is not enabled");
    updates_fail(-1, &own, NULL, "MB:0=3", "memory bandwidth schema is not enabled");
    assert_int_equal(unlinkat(resctrl->fd, "shop/schemata", 0), 0);
    updates_fail(resctrl->fd, &own, NULL, "MB:0=3", "schemata");
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
        cmocka_unit_test_setup_teardown(resctrl_statistics_are_runcs, make_resctrl, remove_resctrl),
        cmocka_unit_test_setup_teardown(a_group_gets_other_schemata, make_resctrl, remove_resctrl),
        cmocka_unit_test(the_stub_knows_each_architecture),
        cmocka_unit_test(the_stub_is_for_profiles_that_refuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
