#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>

#include "filter_stub.h"

enum { X32_BIT = 0x40000000 }; /* __X32_SYSCALL_BIT */

bool filter_stub_is_wanted(uint32_t default_action)
{
    uint32_t kind = default_action & SECCOMP_RET_ACTION_FULL;

    /* A tracer answers for calls that it does not know. */
    return kind != SECCOMP_RET_ALLOW && kind != SECCOMP_RET_LOG && kind != SECCOMP_RET_TRACE &&
           default_action != SCMP_ACT_ERRNO(ENOSYS);
}

static void append(struct buffer *out, struct sock_filter instruction)
{
    buffer_append(out, &instruction, sizeof(instruction));
}

static void append_load(struct buffer *out, size_t offset)
{
    append(out, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void append_jump(struct buffer *out, uint16_t condition, uint32_t value, uint8_t if_true,
                        uint8_t if_false)
{
    append(out,
           (struct sock_filter)BPF_JUMP(BPF_JMP | condition | BPF_K, value, if_true, if_false));
}

void filter_stub_append(uint32_t token, uint32_t last, struct buffer *out)
{
    bool x32 = token == SCMP_ARCH_X32, x86_64 = token == SCMP_ARCH_X86_64;
    bool s390 = token == SCMP_ARCH_S390 || token == SCMP_ARCH_S390X;
    /* To the kernel x32 is x86-64 with a bit in the number. */
    uint32_t architecture = x32 ? SCMP_ARCH_X86_64 : token;
    uint8_t extra = x32 || x86_64 || s390 ? 1 : 0;

    append_load(out, offsetof(struct seccomp_data, arch));
    append_jump(out, BPF_JEQ, architecture, 0, 3 + extra);
    append_load(out, offsetof(struct seccomp_data, nr));
    if (x32)
        append_jump(out, BPF_JSET, X32_BIT, 0, 2);
    else if (x86_64)
        append_jump(out, BPF_JSET, X32_BIT, 2, 0);
    else if (s390) /* a number that the kernel does not know arrives as 0 (setup, long gone) */
        append_jump(out, BPF_JEQ, 0, 1, 0);
    append_jump(out, BPF_JGT, last, 0, 1);
    append(out, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SCMP_ACT_ERRNO(ENOSYS)));
}
