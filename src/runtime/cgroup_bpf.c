/*
 * Device rules as a BPF program for cgroup v2, which has no devices controller.
 *
 * The program walks the rules from the last to the first and keeps in R5 the accesses (mknod 1,
 * read 2, write 4) that no rule has decided yet. A rule that matches the device decides its own
 * accesses: a denying one that holds an undecided access ends it with 0, an allowing one takes its
 * accesses out and ends it with 1 when none is left. That is the result of v1's devices.allow and
 * devices.deny written in the same order, also when two rules share the accesses of one device.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>

#include "cgroup_resources.h"

enum {
    INSTRUCTIONS_PER_RULE = 8,
    INSTRUCTIONS_FIXED = 16,
    VERIFIER_LOG_SIZE = 16384,
    ATTACHED_MAX = 64, /* BPF_CGROUP_MAX_PROGS, kernel/bpf/cgroup.c */
};

#define PROGRAM_NAME "cloche_devices" /* finds ours among those attached; at most 15 bytes */

/* Linux 6.17 to 7.1 write fields behind the size that they are told: there is room for them. */
struct bpf_call {
    union bpf_attr attr;
    char spare[256];
};

static long bpf(int command, struct bpf_call *call)
{
    return syscall(SYS_bpf, command, &call->attr, sizeof(call->attr));
}

struct program {
    struct bpf_insn *code;
    size_t length;
};

static void emit(struct program *program, int code, int destination, int source, int offset,
                 int32_t immediate)
{
    program->code[program->length++] = (struct bpf_insn){
        .code = (__u8)code,
        .dst_reg = (__u8)(destination & 15),
        .src_reg = (__u8)(source & 15),
        .off = (__s16)offset,
        .imm = immediate,
    };
}

/* R2 type, R5 undecided accesses, R3 major, R4 minor (struct bpf_cgroup_dev_ctx, linux/bpf.h). */
static void emit_prologue(struct program *program)
{
    emit(program, BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1,
         offsetof(struct bpf_cgroup_dev_ctx, access_type), 0);
    emit(program, BPF_ALU | BPF_MOV | BPF_X, BPF_REG_5, BPF_REG_2, 0, 0);
    emit(program, BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff);
    emit(program, BPF_ALU | BPF_RSH | BPF_K, BPF_REG_5, 0, 0, 16);
    emit(program, BPF_LDX | BPF_MEM | BPF_W, BPF_REG_3, BPF_REG_1,
         offsetof(struct bpf_cgroup_dev_ctx, major), 0);
    emit(program, BPF_LDX | BPF_MEM | BPF_W, BPF_REG_4, BPF_REG_1,
         offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
}

static void emit_exit(struct program *program, int verdict)
{
    emit(program, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict);
    emit(program, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* Jumps out of this rule are patched when its end is known. */
static void emit_unless_equal(struct program *program, int reg, int32_t value, size_t *jumps,
                              size_t *jump_count)
{
    jumps[(*jump_count)++] = program->length;
    emit(program, BPF_JMP | BPF_JNE | BPF_K, reg, 0, 0, value);
}

static void emit_rule(struct program *program, const struct device_rule *rule)
{
    int32_t access = (rule->mknod ? BPF_DEVCG_ACC_MKNOD : 0) |
                     (rule->read ? BPF_DEVCG_ACC_READ : 0) |
                     (rule->write ? BPF_DEVCG_ACC_WRITE : 0);
    size_t jumps[4], jump_count = 0;

    if (rule->type != 'a')
        emit_unless_equal(program, BPF_REG_2,
                          rule->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, jumps,
                          &jump_count);
    if (rule->major >= 0)
        emit_unless_equal(program, BPF_REG_3, (int32_t)rule->major, jumps, &jump_count);
    if (rule->minor >= 0)
        emit_unless_equal(program, BPF_REG_4, (int32_t)rule->minor, jumps, &jump_count);
    if (rule->allow) {
        emit(program, BPF_ALU | BPF_AND | BPF_K, BPF_REG_5, 0, 0, ~access & 7);
        emit(program, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, 2, 0);
        emit_exit(program, 1);
    } else {
        /* JSET jumps over the next instruction into the exit. */
        emit(program, BPF_JMP | BPF_JSET | BPF_K, BPF_REG_5, 0, 1, access);
        emit(program, BPF_JMP | BPF_JA, 0, 0, 2, 0);
        emit_exit(program, 0);
    }
    for (size_t i = 0; i < jump_count; i++)
        program->code[jumps[i]].off = (__s16)(program->length - jumps[i] - 1);
}

static int load(const struct program *program, char *log, size_t log_size)
{
    struct bpf_call call = {.attr = {
                                .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
                                .insns = (uint64_t)(uintptr_t)program->code,
                                .insn_cnt = (uint32_t)program->length,
                                .license = (uint64_t)(uintptr_t) "Apache-2.0",
                                .log_buf = (uint64_t)(uintptr_t)log,
                                .log_size = (uint32_t)log_size,
                                .log_level = log ? 1 : 0,
                                .prog_name = PROGRAM_NAME,
                            }};
    long fd = bpf(BPF_PROG_LOAD, &call);

    return fd < 0 ? -errno : (int)fd;
}

static int report_load(const struct program *program, int failure, struct error *err)
{
    _cleanup_free_ char *log = xcalloc(1, VERIFIER_LOG_SIZE);

    (void)load(program, log, VERIFIER_LOG_SIZE - 1);
    log[strcspn(log, "\n")] = '\0';
    return error_errno(err, -failure, "load the device rules as a BPF program (%s)", log);
}

static bool is_ours(int program_fd)
{
    struct bpf_prog_info info = {0};
    struct bpf_call call = {.attr = {.info = {.bpf_fd = (uint32_t)program_fd,
                                              .info_len = sizeof(info),
                                              .info = (uint64_t)(uintptr_t)&info}}};

    return bpf(BPF_OBJ_GET_INFO_BY_FD, &call) == 0 &&
           strncmp(info.name, PROGRAM_NAME, sizeof(info.name)) == 0;
}

/* The program of an earlier call; -1 when there is none. */
static int find_attached(int cgroup_fd)
{
    uint32_t ids[ATTACHED_MAX] = {0};
    struct bpf_call call = {.attr = {.query = {.target_fd = (uint32_t)cgroup_fd,
                                               .attach_type = BPF_CGROUP_DEVICE,
                                               .prog_ids = (uint64_t)(uintptr_t)ids,
                                               .prog_cnt = ATTACHED_MAX}}};

    if (bpf(BPF_PROG_QUERY, &call) < 0)
        return -1;
    for (uint32_t i = 0; i < call.attr.query.prog_cnt && i < ATTACHED_MAX; i++) {
        struct bpf_call get = {.attr = {.prog_id = ids[i]}};
        int fd = (int)bpf(BPF_PROG_GET_FD_BY_ID, &get);
        if (fd >= 0 && is_ours(fd))
            return fd;
        close_fd(fd);
    }
    return -1;
}

static int attach(int cgroup_fd, int program_fd, int replaced_fd, struct error *err)
{
    struct bpf_call call = {
        .attr = {
            .target_fd = (uint32_t)cgroup_fd,
            .attach_bpf_fd = (uint32_t)program_fd,
            .attach_type = BPF_CGROUP_DEVICE,
            .attach_flags = BPF_F_ALLOW_MULTI, /* systemd may attach its own; all must allow */
        }};

    if (replaced_fd >= 0) {
        call.attr.attach_flags |= BPF_F_REPLACE;
        call.attr.replace_bpf_fd = (uint32_t)replaced_fd;
    }
    if (bpf(BPF_PROG_ATTACH, &call) < 0)
        return error_errno(err, errno, "attach the device rules to the cgroup");
    return 0;
}

int cgroup_bpf_attach_devices(int cgroup_fd, const struct device_rule *rules, size_t count,
                              bool replace, struct error *err)
{
    _cleanup_free_ struct bpf_insn *code =
        xnew_array(struct bpf_insn, count * INSTRUCTIONS_PER_RULE + INSTRUCTIONS_FIXED);
    struct program program = {.code = code};

    emit_prologue(&program);
    for (size_t i = count; i-- > 0;)
        emit_rule(&program, &rules[i]);
    emit_exit(&program, 0);
    _cleanup_close_ int program_fd = load(&program, NULL, 0);
    if (program_fd < 0)
        return report_load(&program, program_fd, err);
    _cleanup_close_ int replaced_fd = replace ? find_attached(cgroup_fd) : -1;
    return attach(cgroup_fd, program_fd, replaced_fd, err);
}
