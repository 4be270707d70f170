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

_Static_assert(sizeof(struct sock_filter) == sizeof(uint64_t), "an instruction is eight bytes");

static const struct {
    const char *name;
    uint32_t flag;
} filter_flags[] = {
    {"SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC},
    {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
    {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
};

static const struct {
    const char *name;
    uint32_t action;
} actions[] = {
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG},
};

static const struct {
    const char *name;
    enum scmp_compare operator;
} operators[] = {
    {"SCMP_CMP_NE", SCMP_CMP_NE},
    {"SCMP_CMP_LT", SCMP_CMP_LT},
    {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_EQ", SCMP_CMP_EQ},
    {"SCMP_CMP_GE", SCMP_CMP_GE},
    {"SCMP_CMP_GT", SCMP_CMP_GT},
    {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
};

enum { SYSCALL_ARGUMENTS = 6 };

static int action_of(const char *name, uint32_t errno_ret, bool has_errno_ret, uint32_t *ret,
                     struct error *err)
{
    uint32_t data = has_errno_ret ? errno_ret : EPERM;

    if (data > UINT16_MAX)
        return error_set(err, -EINVAL, "errnoRet: %u does not fit into 16 bits", data);
    if (text_equal(name, "SCMP_ACT_ERRNO")) {
        *ret = SCMP_ACT_ERRNO(data);
        return 0;
    }
    if (text_equal(name, "SCMP_ACT_TRACE")) {
        *ret = SCMP_ACT_TRACE(data);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (text_equal(actions[i].name, name)) {
            *ret = actions[i].action;
            return 0;
        }
    }
    return error_set(err, -ENOTSUP, "action: '%s' is not supported yet", name);
}

static int flags_of(const struct oci_seccomp *config, uint32_t *ret, struct error *err)
{
    *ret = 0;
    for (size_t i = 0; i < config->flags_count; i++) {
        size_t k = 0;
        while (k < ARRAY_SIZE(filter_flags) && !text_equal(filter_flags[k].name, config->flags[i]))
            k++;
        if (k == ARRAY_SIZE(filter_flags))
            return error_set(err, -ENOTSUP, "flags[%zu]: '%s' is not supported yet", i,
                             config->flags[i]);
        *ret |= filter_flags[k].flag;
    }
    return 0;
}

/* "SCMP_ARCH_X86_64" -> libseccomp's token. */
static int architecture_of(const char *name, uint32_t *ret, struct error *err)
{
    char lower[32] = "";

    if (text_starts_with(name, "SCMP_ARCH_") && strlen(name) < sizeof(lower)) {
        const char *rest = name + strlen("SCMP_ARCH_");
        for (size_t i = 0; rest[i]; i++)
            lower[i] = rest[i] >= 'A' && rest[i] <= 'Z' ? (char)(rest[i] - 'A' + 'a') : rest[i];
    }
    *ret = lower[0] ? seccomp_arch_resolve_name(lower) : 0;
    return *ret ? 0 : error_set(err, -ENOTSUP, "'%s' is not known to libseccomp", name);
}

static int check_entry(const struct oci_syscall *entry, struct error *err)
{
    uint32_t action;
    int r = action_of(entry->action, entry->errno_ret, entry->has_errno_ret, &action, err);

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
    if (!text_empty(config->listener_path) || !text_empty(config->listener_metadata))
        return error_set(err, -ENOTSUP, "linux.seccomp.%s is not supported yet",
                         text_empty(config->listener_path) ? "listenerMetadata" : "listenerPath");
    r = action_of(config->default_action, config->default_errno_ret, config->has_default_errno_ret,
                  &value, err);
    if (r == 0)
        r = flags_of(config, &value, err);
    for (size_t i = 0; r == 0 && i < config->architectures_count; i++) {
        r = architecture_of(config->architectures[i], &value, err);
        if (r < 0)
            error_context(err, "architectures[%zu]", i);
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

static int add_rules(scmp_filter_ctx context, const struct oci_seccomp *config,
                     uint32_t default_action, struct error *err)
{
    for (size_t i = 0; i < config->syscalls_count; i++) {
        const struct oci_syscall *entry = config->syscalls[i];
        uint32_t action;
        int r = action_of(entry->action, entry->errno_ret, entry->has_errno_ret, &action, err);
        if (r < 0)
            return r;
        for (size_t k = 0; action != default_action && k < entry->names_count; k++) {
            int number = seccomp_syscall_resolve_name(entry->names[k]);
            if (number == __NR_SCMP_ERROR)
                continue;
            r = add_rule(context, action, number, entry);
            if (r < 0)
                return error_errno(err, -r, "linux.seccomp.syscalls[%zu]: %s", i, entry->names[k]);
        }
    }
    return 0;
}

static int fill_context(scmp_filter_ctx context, const struct oci_seccomp *config,
                        uint32_t default_action, struct error *err)
{
    for (size_t i = 0; i < config->architectures_count; i++) {
        uint32_t token;
        int r = architecture_of(config->architectures[i], &token, err);
        if (r == 0)
            r = seccomp_arch_add(context, token);
        if (r < 0 && r != -EEXIST)
            return error_errno(err, -r, "linux.seccomp.architectures[%zu]: %s", i,
                               config->architectures[i]);
    }
    return add_rules(context, config, default_action, err);
}

/* libseccomp 2.5 writes the program only to a descriptor. */
static int export_filter(scmp_filter_ctx context, uint32_t flags, struct filter **ret,
                         size_t *ret_size, struct error *err)
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
    struct filter *filter = xmalloc(sizeof(*filter) + LIMIT + 1);
    ssize_t n = read(read_fd, filter->code, LIMIT + 1);
    if (n <= 0 || n > LIMIT || (size_t)n % sizeof(uint64_t)) {
        free(filter);
        return error_set(err, -E2BIG, "linux.seccomp: the filter is longer than %d instructions",
                         FILTER_MAX);
    }
    filter->flags = flags;
    filter->length = (uint32_t)((size_t)n / sizeof(uint64_t));
    *ret = filter;
    *ret_size = sizeof(*filter) + (size_t)n;
    return 0;
}

int filter_compile(const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
                   struct error *err)
{
    uint32_t default_action, flags;

    if (!config) {
        *ret = xnew(struct filter);
        *ret_size = sizeof(**ret);
        return 0;
    }
    int r = action_of(config->default_action, config->default_errno_ret,
                      config->has_default_errno_ret, &default_action, err);
    if (r == 0)
        r = flags_of(config, &flags, err);
    if (r < 0)
        return r;
    scmp_filter_ctx context = seccomp_init(default_action);
    if (!context)
        return error_set(err, -EINVAL, "linux.seccomp.defaultAction: libseccomp refuses '%s'",
                         config->default_action);
    r = fill_context(context, config, default_action, err);
    if (r == 0)
        r = export_filter(context, flags, ret, ret_size, err);
    seccomp_release(context);
    return r;
}

int filter_install(const struct filter *filter, size_t size, struct error *err)
{
    if (size < sizeof(*filter) || filter->length > FILTER_MAX ||
        size != sizeof(*filter) + filter->length * sizeof(uint64_t))
        return error_set(err, -EINVAL, "a malformed filter");
    if (filter->length == 0)
        return 0;
    struct sock_fprog program = {
        .len = (unsigned short)filter->length,
        .filter = (struct sock_filter *)(uintptr_t)filter->code,
    };
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, filter->flags, &program) < 0)
        return error_errno(err, errno, "install the seccomp filter");
    return 0;
}
