#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "filter.h"
#include "filter_plain.h"
#include "filter_stub.h"

_Static_assert(sizeof(struct sock_filter) == sizeof(uint64_t), "an instruction is eight bytes");

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5) /* Linux 5.19 */
#endif

/* TSYNC is for programs with threads and means nothing here: runc ignores it too, and together with
 * a listener the kernel refuses it. */
static const struct {
    const char *name;
    uint32_t flag;
} filter_flags[] = {
    {"SECCOMP_FILTER_FLAG_TSYNC", 0},
    {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
    {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
    {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
};

static const struct {
    const char *name;
    uint32_t action;
    bool has_data; /* errnoRet belongs into its lower half */
} actions[] = {
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW, false},
    {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0), true},
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD, false},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS, false},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD, false},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG, false},
    {"SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY, false},
    {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0), true},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP, false},
};

static const struct {
    const char *name;
    enum scmp_compare operator;
} operators[] = {
    {"SCMP_CMP_EQ", SCMP_CMP_EQ}, {"SCMP_CMP_GE", SCMP_CMP_GE},
    {"SCMP_CMP_GT", SCMP_CMP_GT}, {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_LT", SCMP_CMP_LT}, {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
    {"SCMP_CMP_NE", SCMP_CMP_NE},
};

static const struct {
    const char *name;
    uint32_t token;
} architectures[] = {
    {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64},
    {"SCMP_ARCH_ARM", SCMP_ARCH_ARM},
#ifdef SCMP_ARCH_LOONGARCH64
    {"SCMP_ARCH_LOONGARCH64", SCMP_ARCH_LOONGARCH64},
#endif
#ifdef SCMP_ARCH_M68K
    {"SCMP_ARCH_M68K", SCMP_ARCH_M68K},
#endif
    {"SCMP_ARCH_MIPS", SCMP_ARCH_MIPS},
    {"SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64},
    {"SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32},
    {"SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL},
    {"SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64},
    {"SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32},
    {"SCMP_ARCH_PARISC", SCMP_ARCH_PARISC},
    {"SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64},
    {"SCMP_ARCH_PPC", SCMP_ARCH_PPC},
    {"SCMP_ARCH_PPC64", SCMP_ARCH_PPC64},
    {"SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE},
    {"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64},
    {"SCMP_ARCH_S390", SCMP_ARCH_S390},
    {"SCMP_ARCH_S390X", SCMP_ARCH_S390X},
#ifdef SCMP_ARCH_SH
    {"SCMP_ARCH_SH", SCMP_ARCH_SH},
#endif
#ifdef SCMP_ARCH_SHEB
    {"SCMP_ARCH_SHEB", SCMP_ARCH_SHEB},
#endif
    {"SCMP_ARCH_X32", SCMP_ARCH_X32},
    {"SCMP_ARCH_X86", SCMP_ARCH_X86},
    {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
};

enum { SYSCALL_ARGUMENTS = 6 };

const char *filter_name(enum filter_names kind, size_t i)
{
    switch (kind) {
    case FILTER_ACTIONS:
        return i < ARRAY_SIZE(actions) ? actions[i].name : NULL;
    case FILTER_OPERATORS:
        return i < ARRAY_SIZE(operators) ? operators[i].name : NULL;
    case FILTER_ARCHITECTURES:
        return i < ARRAY_SIZE(architectures) ? architectures[i].name : NULL;
    case FILTER_FLAGS:
        return i < ARRAY_SIZE(filter_flags) ? filter_flags[i].name : NULL;
    }
    return NULL;
}

/* The kernel looks at the flags before it reads the program, which is missing here. */
static bool kernel_has_flag(uint32_t flag)
{
    if (flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flag, NULL) < 0 && errno == EFAULT;
}

bool filter_flag_is_supported(size_t i)
{
    return filter_flags[i].flag == 0 || kernel_has_flag(filter_flags[i].flag);
}

static int action_of(const char *name, uint32_t errno_ret, bool has_errno_ret, uint32_t *ret,
                     struct error *err)
{
    uint32_t data = has_errno_ret ? errno_ret : EPERM;

    if (data > UINT16_MAX)
        return error_set(err, -EINVAL, "errnoRet: %u does not fit into 16 bits", data);
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (text_equal(actions[i].name, name)) {
            /* config-linux.md, "Seccomp"; the words are crun's. */
            if (has_errno_ret && !actions[i].has_data)
                return error_set(err, -EINVAL, "errnoRet: errno value specified for action %s",
                                 name);
            *ret = actions[i].action | (actions[i].has_data ? data : 0);
            return 0;
        }
    }
    return error_set(err, -EINVAL, "action: '%s' is not a valid action for seccomp", name);
}

bool filter_notifies(const struct oci_seccomp *config)
{
    for (size_t i = 0; config && i < config->syscalls_count; i++) {
        if (text_equal(config->syscalls[i]->action, "SCMP_ACT_NOTIFY"))
            return true;
    }
    return false;
}

bool filter_wants_listener(const struct oci_seccomp *config)
{
    return filter_notifies(config) || (config && !text_empty(config->listener_path));
}

/* Without the field the cost of speculation barriers is left out where the kernel lets us, as runc
 * does since 1.1.7; an empty list means none of the flags. */
static int flags_of(const struct oci_seccomp *config, uint32_t *ret, struct error *err)
{
    *ret = filter_wants_listener(config) ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;
    if (!config->flags)
        *ret |=
            kernel_has_flag(SECCOMP_FILTER_FLAG_SPEC_ALLOW) ? SECCOMP_FILTER_FLAG_SPEC_ALLOW : 0;
    for (size_t i = 0; i < config->flags_count; i++) {
        size_t k = 0;
        while (k < ARRAY_SIZE(filter_flags) && !text_equal(filter_flags[k].name, config->flags[i]))
            k++;
        if (k == ARRAY_SIZE(filter_flags))
            return error_set(err, -EINVAL, "flags[%zu]: seccomp flag '%s' is not known", i,
                             config->flags[i]);
        *ret |= filter_flags[k].flag;
    }
    if ((*ret & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) && !filter_notifies(config))
        return error_set(err, -EINVAL,
                         "flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for profiles that use "
                         "SCMP_ACT_NOTIFY");
    return 0;
}

/* Index into architectures. */
static int architecture_of(const char *name, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(architectures); i++) {
        if (text_equal(architectures[i].name, name))
            return (int)i;
    }
    return error_set(err, -EINVAL, "'%s' is not a valid arch for seccomp", name);
}

static int check_entry(const struct oci_syscall *entry, struct error *err)
{
    uint32_t action;
    int r = action_of(entry->action, entry->errno_ret, entry->has_errno_ret, &action, err);

    /* With these words the runtime tells the parent that there is a listener: it would wait for the
     * agent that the listener goes to. */
    if (r == 0 && action == SCMP_ACT_NOTIFY && strv_contains(entry->names, "write"))
        return error_set(err, -EINVAL, "SCMP_ACT_NOTIFY cannot be used for the write syscall");
    for (size_t i = 0; r == 0 && i < entry->args_count; i++) {
        if (entry->args[i]->index >= SYSCALL_ARGUMENTS)
            return error_set(err, -EINVAL, "args[%zu].index: system calls have %d arguments", i,
                             SYSCALL_ARGUMENTS);
    }
    return r;
}

int filter_check(const struct oci_seccomp *config, struct error *err)
{
    uint32_t value;
    int r;

    if (!config)
        return 0;
    if (text_equal(config->default_action, "SCMP_ACT_NOTIFY"))
        return error_set(err, -EINVAL,
                         "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default "
                         "action");
    if (filter_notifies(config) && text_empty(config->listener_path))
        return error_set(err, -EINVAL,
                         "linux.seccomp.listenerPath: missing, but there are rules with "
                         "SCMP_ACT_NOTIFY");
    r = action_of(config->default_action, config->default_errno_ret, config->has_default_errno_ret,
                  &value, err);
    if (r == 0)
        r = flags_of(config, &value, err);
    for (size_t i = 0; r == 0 && i < config->architectures_count; i++) {
        r = architecture_of(config->architectures[i], err);
        if (r < 0)
            error_context(err, "architectures[%zu]", i);
        r = r < 0 ? r : 0;
    }
    for (size_t i = 0; r == 0 && i < config->syscalls_count; i++) {
        r = check_entry(config->syscalls[i], err);
        if (r < 0)
            error_context(err, "syscalls[%zu]", i);
    }
    if (r < 0)
        error_context(err, "linux.seccomp");
    return r;
}

int filter_check_known(const struct oci_seccomp *config, struct error *err)
{
    for (size_t i = 0; config && i < config->syscalls_count; i++) {
        for (char **name = config->syscalls[i]->names; *name; name++) {
            if (seccomp_syscall_resolve_name(*name) == __NR_SCMP_ERROR)
                return error_set(err, -EINVAL,
                                 "linux.seccomp.syscalls[%zu]: unknown seccomp syscall '%s'", i,
                                 *name);
        }
    }
    return 0;
}

static struct scmp_arg_cmp comparison(const struct oci_syscall_arg *arg)
{
    struct scmp_arg_cmp ret = {.arg = arg->index, .op = SCMP_CMP_EQ, .datum_a = arg->value};

    for (size_t i = 0; i < ARRAY_SIZE(operators); i++) {
        if (text_equal(operators[i].name, arg->op))
            ret.op = operators[i].operator;
    }
    if (ret.op == SCMP_CMP_MASKED_EQ)
        ret.datum_b = arg->has_value_two ? arg->value_two : 0;
    return ret;
}

/* libseccomp compares each argument once in a rule. With several conditions on one argument each
 * condition becomes a rule of its own, as runc does (it reads the list as alternatives then). */
static int add_rule(scmp_filter_ctx context, uint32_t action, int number,
                    const struct oci_syscall *entry)
{
    struct scmp_arg_cmp comparisons[SYSCALL_ARGUMENTS];
    unsigned seen = 0;
    bool repeated = entry->args_count > SYSCALL_ARGUMENTS;
    int r = 0;

    for (size_t i = 0; i < entry->args_count; i++) {
        repeated |= seen >> entry->args[i]->index & 1;
        seen |= 1U << entry->args[i]->index;
    }
    if (!repeated) {
        for (size_t i = 0; i < entry->args_count; i++)
            comparisons[i] = comparison(entry->args[i]);
        return seccomp_rule_add_array(context, action, number, (unsigned)entry->args_count,
                                      comparisons);
    }
    for (size_t i = 0; r == 0 && i < entry->args_count; i++) {
        comparisons[0] = comparison(entry->args[i]);
        r = seccomp_rule_add_array(context, action, number, 1, comparisons);
    }
    return r;
}

/* From libseccomp 2.5 and Linux 5.7 on; the text is the one that runc's callers know. */
static int check_notify(const struct oci_seccomp *config, struct error *err)
{
    enum { NOTIFY_API_LEVEL = 6 };

    if (!filter_notifies(config) || seccomp_api_get() >= NOTIFY_API_LEVEL)
        return 0;
    return error_set(err, -ENOTSUP,
                     "seccomp notify unsupported: API level: got %u, want at least %d. Please try "
                     "with libseccomp >= 2.5.0 and Linux >= 5.7",
                     seccomp_api_get(), NOTIFY_API_LEVEL);
}

/* Of calls that libseccomp knows; what says the same as the default needs no rule. */
static int collect_calls(const struct oci_seccomp *config, uint32_t default_action,
                         struct filter_calls *ret, struct error *err)
{
    size_t names = 0;

    for (size_t i = 0; i < config->syscalls_count; i++)
        names += config->syscalls[i]->names_count;
    ret->list = xnew_array(struct filter_call, names + 1);
    for (size_t i = 0; i < config->syscalls_count; i++) {
        const struct oci_syscall *entry = config->syscalls[i];
        uint32_t action;
        int r = action_of(entry->action, entry->errno_ret, entry->has_errno_ret, &action, err);
        if (r < 0)
            return r;
        for (size_t k = 0; action != default_action && k < entry->names_count; k++) {
            int number = seccomp_syscall_resolve_name(entry->names[k]);
            if (number != __NR_SCMP_ERROR)
                ret->list[ret->count++] = (struct filter_call){.name = entry->names[k],
                                                               .rule = i,
                                                               .action = action,
                                                               .number = number,
                                                               .conditional = entry->args_count};
        }
    }
    return 0;
}

static int add_rules(scmp_filter_ctx context, const struct oci_seccomp *config,
                     const struct filter_calls *calls, struct error *err)
{
    for (size_t i = 0; i < calls->count; i++) {
        const struct filter_call *call = &calls->list[i];
        if (call->plain && !call->anchor)
            continue;
        int r = add_rule(context, call->action, call->number, config->syscalls[call->rule]);
        if (r < 0)
            return error_errno(err, -r, "linux.seccomp.syscalls[%zu]: %s", call->rule, call->name);
    }
    return 0;
}

/* Not as a binary tree, as runc has long ones (SCMP_FLTATR_CTL_OPTIMIZE): that takes libseccomp
 * several times as long, and since Linux 5.11 the kernel remembers which calls pass whatever their
 * arguments are. */
static int fill_context(scmp_filter_ctx context, const struct oci_seccomp *config,
                        const struct filter_calls *calls, struct error *err)
{
    for (size_t i = 0; i < config->architectures_count; i++) {
        int r = architecture_of(config->architectures[i], err);
        if (r >= 0)
            r = seccomp_arch_add(context, architectures[r].token);
        if (r < 0 && r != -EEXIST)
            return error_errno(err, -r, "linux.seccomp.architectures[%zu]: %s", i,
                               config->architectures[i]);
    }
    return add_rules(context, config, calls, err);
}

/* libseccomp 2.5 writes the program only to a descriptor. */
static int export_filter(scmp_filter_ctx context, uint32_t flags, const struct buffer *prologue,
                         struct filter **ret, size_t *ret_size, struct error *err)
{
    enum { LIMIT = FILTER_MAX * sizeof(uint64_t) };
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_errno(err, errno, "create a pipe");
    _cleanup_close_ int read_fd = fds[0], write_fd = fds[1];
    /* 64 KiB, the pipe's size, are more than the longest program. */
    int r = seccomp_export_bpf(context, write_fd);
    if (r < 0)
        return error_errno(err, -r, "linux.seccomp: compile the filter");
    size_t stub = prologue->length;
    struct filter *filter = xmalloc(sizeof(*filter) + stub + LIMIT + 1);
    ssize_t n = read(read_fd, (char *)filter->code + stub, LIMIT + 1);
    if (n <= 0 || (size_t)n + stub > LIMIT || (size_t)n % sizeof(uint64_t)) {
        free(filter);
        return error_set(err, -E2BIG, "linux.seccomp: the filter is longer than %d instructions",
                         FILTER_MAX);
    }
    if (stub)
        memcpy(filter->code, prologue->data, stub);
    filter->flags = flags;
    filter->length = (uint32_t)(((size_t)n + stub) / sizeof(uint64_t));
    *ret = filter;
    *ret_size = sizeof(*filter) + stub + (size_t)n;
    return 0;
}

/* The highest number among the profile's system calls; 0: none of them exists there. */
static uint32_t last_system_call(const struct oci_seccomp *config, uint32_t token)
{
    int last = 0;

    for (size_t i = 0; i < config->syscalls_count; i++) {
        for (char **name = config->syscalls[i]->names; *name; name++) {
            int number = seccomp_syscall_resolve_name_arch(token, *name);
            last = number > last ? number : last;
        }
    }
    return (uint32_t)last;
}

/* Only for the architectures that are listed, as runc: to others the filter's own answer applies.
 */
static int write_stub(const struct oci_seccomp *config, struct buffer *out, struct error *err)
{
    bool seen[ARRAY_SIZE(architectures)] = {0};

    for (size_t i = 0; i < config->architectures_count; i++) {
        int index = architecture_of(config->architectures[i], err);
        if (index < 0)
            return index;
        uint32_t token = architectures[index].token;
        uint32_t last = seen[index] ? 0 : last_system_call(config, token);
        if (last)
            filter_stub_append(token, last, out);
        seen[index] = true;
    }
    return 0;
}

/* libseccomp has the machine's own in each filter. Returns how many; tokens has room for that one
 * and those of the profile. */
static int list_tokens(const struct oci_seccomp *config, uint32_t *tokens, struct error *err)
{
    int count = 0;

    tokens[count++] = seccomp_arch_native();
    for (size_t i = 0; i < config->architectures_count; i++) {
        int index = architecture_of(config->architectures[i], err), k = 0;
        if (index < 0)
            return index;
        while (k < count && tokens[k] != architectures[index].token)
            k++;
        if (k == count)
            tokens[count++] = architectures[index].token;
    }
    return count;
}

static int compile(const struct oci_seccomp *config, uint32_t default_action, uint32_t flags,
                   struct filter_calls *calls, struct filter **ret, size_t *ret_size,
                   struct error *err)
{
    _cleanup_buffer_ struct buffer prologue = BUFFER_INIT;
    scmp_filter_ctx context = seccomp_init(default_action);

    if (!context)
        return error_set(err, -EINVAL, "linux.seccomp.defaultAction: libseccomp refuses '%s'",
                         config->default_action);
    int r = fill_context(context, config, calls, err);
    if (r == 0 && filter_stub_is_wanted(default_action))
        r = write_stub(config, &prologue, err);
    if (r == 0)
        filter_plain_append(calls, &prologue);
    if (r == 0)
        r = export_filter(context, flags, &prologue, ret, ret_size, err);
    seccomp_release(context);
    return r;
}

int filter_compile_from(const struct oci_seccomp *config, enum filter_compilers compilers,
                        struct filter **ret, size_t *ret_size, struct error *err)
{
    uint32_t default_action = 0, flags = 0, tokens[ARRAY_SIZE(architectures) + 1];
    struct filter_calls calls = {.tokens = tokens};

    int r = action_of(config->default_action, config->default_errno_ret,
                      config->has_default_errno_ret, &default_action, err);
    if (r == 0)
        r = flags_of(config, &flags, err);
    if (r == 0)
        r = check_notify(config, err);
    if (r == 0)
        r = list_tokens(config, tokens, err);
    if (r < 0)
        return r;
    calls.token_count = (size_t)r;
    r = collect_calls(config, default_action, &calls, err);
    if (r == 0 && compilers == FILTER_LIBRARY_AND_OWN)
        filter_plain_mark(&calls);
    if (r == 0)
        r = compile(config, default_action, flags, &calls, ret, ret_size, err);
    filter_calls_finish(&calls);
    return r;
}

int filter_compile(const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
                   struct error *err)
{
    if (!config) {
        *ret = xnew(struct filter);
        *ret_size = sizeof(**ret);
        return 0;
    }
    int r = filter_compile_from(config, FILTER_LIBRARY_AND_OWN, ret, ret_size, err);
    if (r != -E2BIG)
        return r;
    /* A list can be shorter than a tree. */
    error_finish(err);
    return filter_compile_from(config, FILTER_LIBRARY, ret, ret_size, err);
}

int filter_install(const struct filter *filter, size_t size, int *ret_listener, struct error *err)
{
    *ret_listener = -1;
    if (size < sizeof(*filter) || filter->length > FILTER_MAX ||
        size != sizeof(*filter) + filter->length * sizeof(uint64_t))
        return error_set(err, -EINVAL, "a malformed filter");
    if (filter->length == 0)
        return 0;
    struct sock_fprog program = {
        .len = (unsigned short)filter->length,
        .filter = (struct sock_filter *)(uintptr_t)filter->code,
    };
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, filter->flags, &program);
    if (fd < 0)
        return error_errno(err, errno, "install the seccomp filter");
    if (filter_has_listener(filter))
        *ret_listener = (int)fd;
    return 0;
}
