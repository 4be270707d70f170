#include "security.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

enum { WORD_SHOWN_MAX = 40 };

/* In the kernel's order (include/uapi/linux/capability.h). What images expect a container to have
 * is docker's default set (its documentation, "Runtime privilege and Linux capabilities"). */
static const struct capability {
    const char *name;
    bool is_default;
} known[] = {
    {"CAP_CHOWN", true},
    {"CAP_DAC_OVERRIDE", true},
    {"CAP_DAC_READ_SEARCH", false},
    {"CAP_FOWNER", true},
    {"CAP_FSETID", true},
    {"CAP_KILL", true},
    {"CAP_SETGID", true},
    {"CAP_SETUID", true},
    {"CAP_SETPCAP", true},
    {"CAP_LINUX_IMMUTABLE", false},
    {"CAP_NET_BIND_SERVICE", true},
    {"CAP_NET_BROADCAST", false},
    {"CAP_NET_ADMIN", false},
    {"CAP_NET_RAW", true},
    {"CAP_IPC_LOCK", false},
    {"CAP_IPC_OWNER", false},
    {"CAP_SYS_MODULE", false},
    {"CAP_SYS_RAWIO", false},
    {"CAP_SYS_CHROOT", true},
    {"CAP_SYS_PTRACE", false},
    {"CAP_SYS_PACCT", false},
    {"CAP_SYS_ADMIN", false},
    {"CAP_SYS_BOOT", false},
    {"CAP_SYS_NICE", false},
    {"CAP_SYS_RESOURCE", false},
    {"CAP_SYS_TIME", false},
    {"CAP_SYS_TTY_CONFIG", false},
    {"CAP_MKNOD", true},
    {"CAP_LEASE", false},
    {"CAP_AUDIT_WRITE", true},
    {"CAP_AUDIT_CONTROL", false},
    {"CAP_SETFCAP", true},
    {"CAP_MAC_OVERRIDE", false},
    {"CAP_MAC_ADMIN", false},
    {"CAP_SYSLOG", false},
    {"CAP_WAKE_ALARM", false},
    {"CAP_BLOCK_SUSPEND", false},
    {"CAP_AUDIT_READ", false},
    {"CAP_PERFMON", false},
    {"CAP_BPF", false},
    {"CAP_CHECKPOINT_RESTORE", false},
};

/* --- capabilities ----------------------------------------------------------------------------- */

static bool names(const char *word, const char *capability)
{
    const char *bare = strncasecmp(word, "CAP_", 4) == 0 ? word + 4 : word;

    return strcasecmp(bare, capability + 4) == 0;
}

static bool is_all(const char *word)
{
    return strcasecmp(word, "ALL") == 0 || strcasecmp(word, "CAP_ALL") == 0;
}

static bool lists(char *const *words, const char *capability)
{
    for (size_t i = 0; words && words[i]; i++) {
        if (names(words[i], capability))
            return true;
    }
    return false;
}

static bool lists_all(char *const *words)
{
    for (size_t i = 0; words && words[i]; i++) {
        if (is_all(words[i]))
            return true;
    }
    return false;
}

static int refuse(const char *field, const char *word, struct error *err)
{
    char name[WORD_SHOWN_MAX + 1] = "";

    word += strncasecmp(word, "CAP_", 4) == 0 ? 4 : 0;
    for (size_t i = 0; i < WORD_SHOWN_MAX && word[i]; i++)
        name[i] = (char)toupper((unsigned char)word[i]);
    return error_set(err, -EINVAL, "invalid %s: unknown capability: \"CAP_%s\"", field, name);
}

static int check_words(const char *field, char *const *words, struct error *err)
{
    for (size_t i = 0; words && words[i]; i++) {
        bool found = is_all(words[i]);
        for (size_t j = 0; j < ARRAY_SIZE(known) && !found; j++)
            found = names(words[i], known[j].name);
        if (!found)
            return refuse(field, words[i], err);
    }
    return 0;
}

int security_check_capabilities(const struct api_container_spec *spec, struct error *err)
{
    int r = check_words("CapAdd", spec->cap_add, err);

    return r < 0 ? r : check_words("CapDrop", spec->cap_drop, err);
}

static bool holds(const struct api_container_spec *spec, const struct capability *capability)
{
    bool added = lists(spec->cap_add, capability->name);

    if (spec->privileged)
        return true;
    if (lists_all(spec->cap_drop))
        return added || lists_all(spec->cap_add);
    if (lists(spec->cap_drop, capability->name))
        return added && !lists_all(spec->cap_add);
    return capability->is_default || added || lists_all(spec->cap_add);
}

char **security_capabilities(const struct api_container_spec *spec)
{
    char **list = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (holds(spec, &known[i]))
            strv_append(&list, known[i].name);
    }
    return list;
}

char **security_all_capabilities(void)
{
    char **list = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        strv_append(&list, known[i].name);
    return list;
}

bool security_capabilities_are_default(const struct api_container_spec *spec)
{
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (!known[i].is_default && holds(spec, &known[i]))
            return false;
    }
    return true;
}

/* --- words of --security-opt ------------------------------------------------------------------ */

static int read_boolean(const char *word, const char *value, bool *ret, struct error *err)
{
    if (text_equal(value, "true"))
        *ret = true;
    else if (text_equal(value, "false"))
        *ret = false;
    else
        return error_set(err, -EINVAL, "invalid --security-opt 2: \"%s\"", word);
    return 0;
}

static bool is_json(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return *text == '{';
}

static int read_seccomp(const char *value, struct security_options *ret, struct error *err)
{
    ret->seccomp = NULL;
    ret->seccomp_unconfined = text_equal(value, "unconfined");
    if (ret->seccomp_unconfined || text_equal(value, "builtin"))
        return 0;
    if (!is_json(value))
        return error_set(
            err, -EINVAL,
            "Decoding seccomp profile failed: \"%.80s\" is no JSON object (unconfined, "
            "builtin, or the profile itself)",
            value);
    ret->seccomp = value;
    return 0;
}

static int read_word(const char *word, struct security_options *ret, struct error *err)
{
    size_t length = strcspn(word, "=:");
    _cleanup_free_ char *name = xstrndup(word, length);
    const char *value = word[length] ? word + length + 1 : NULL;

    if (text_equal(name, "no-new-privileges") && !value) {
        ret->no_new_privileges = true;
        return 0;
    }
    if (!value)
        return error_set(err, -EINVAL, "invalid --security-opt 1: \"%s\"", word);
    if (text_equal(name, "no-new-privileges"))
        return read_boolean(word, value, &ret->no_new_privileges, err);
    if (text_equal(name, "writable-cgroups"))
        return read_boolean(word, value, &ret->writable_cgroups, err);
    if (text_equal(name, "seccomp"))
        return read_seccomp(value, ret, err);
    if (text_equal(name, "apparmor")) {
        ret->apparmor = value;
        return 0;
    }
    if (text_equal(name, "systempaths") && text_equal(value, "unconfined")) {
        ret->paths_unconfined = true;
        return 0;
    }
    /* Labels are SELinux': without it they have no effect, in docker neither. */
    if (text_equal(name, "label"))
        return 0;
    return error_set(err, -EINVAL, "invalid --security-opt 2: \"%s\"", word);
}

int security_options_read(const struct api_container_spec *spec, struct security_options *ret,
                          struct error *err)
{
    *ret = (struct security_options){.seccomp_unconfined = spec->privileged};
    for (size_t i = 0; i < spec->security_opt_count; i++) {
        int r = read_word(spec->security_opt[i], ret, err);
        if (r < 0)
            return r;
    }
    return 0;
}

const char *security_profile(const struct api_container_spec *spec,
                             const struct security_options *options, const char *of_machine)
{
    if (text_equal(options->apparmor, "unconfined"))
        return NULL;
    if (!text_empty(options->apparmor))
        return options->apparmor;
    return spec->privileged ? NULL : of_machine;
}

static char *const *paths_of(const struct api_container_spec *spec, char *const *wanted,
                             const char *const *standard)
{
    struct security_options options;

    if (wanted)
        return wanted;
    if (spec->privileged || security_options_read(spec, &options, NULL) < 0 ||
        options.paths_unconfined)
        return NULL;
    return (char *const *)standard;
}

char *const *security_masked_paths(const struct api_container_spec *spec)
{
    static const char *const standard[] = {
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        NULL,
    };

    return paths_of(spec, spec->masked_paths, standard);
}

char *const *security_readonly_paths(const struct api_container_spec *spec)
{
    static const char *const standard[] = {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL,
    };

    return paths_of(spec, spec->readonly_paths, standard);
}
