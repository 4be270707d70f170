#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "platform.h"

#if defined(__x86_64__)
static struct image_worker_platform own = {(char *)"linux", (char *)"amd64", NULL};
#elif defined(__aarch64__)
static struct image_worker_platform own = {(char *)"linux", (char *)"arm64", (char *)"v8"};
#else
#error "name this architecture as image indexes do"
#endif

struct image_worker_platform *platform_own(void)
{
    return &own;
}

/* Other names for the same, as containerd's platforms package has them. */
static const struct {
    const char *name, *architecture, *variant;
} synonyms[] = {
    {"x86_64", "amd64", NULL}, {"x86-64", "amd64", NULL}, {"aarch64", "arm64", "v8"},
    {"armhf", "arm", "v7"},    {"armel", "arm", "v6"},    {"i386", "386", NULL},
};

static void normalize(struct image_worker_platform *platform)
{
    for (size_t i = 0; i < ARRAY_SIZE(synonyms); i++) {
        if (!text_equal(platform->architecture, synonyms[i].name))
            continue;
        free(platform->architecture);
        platform->architecture = xstrdup(synonyms[i].architecture);
        if (!platform->variant)
            platform->variant = xstrdup(synonyms[i].variant);
        return;
    }
    if (text_equal(platform->architecture, "arm64") && !platform->variant)
        platform->variant = xstrdup("v8");
}

static bool is_word(const char *text)
{
    size_t length = strlen(text);

    return length && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-.") == length;
}

/* As Go names them. */
static bool is_architecture(const char *word)
{
    static const char *const known[] = {
        "386",    "amd64",    "arm",   "arm64",   "loong64", "mips",  "mipsle",
        "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm",
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (text_equal(word, known[i]))
            return true;
    return false;
}

int platform_parse(const char *text, struct image_worker_platform **ret, struct error *err)
{
    _cleanup_strv_ char **parts = text_empty(text) ? NULL : strv_split(text, '/');
    size_t count = strv_length(parts);

    for (size_t i = 0; i < count; i++)
        if (!is_word(parts[i]))
            count = 4;
    if (count > 3)
        return error_set(err, -EINVAL,
                         "invalid platform '%.100s': OS[/ARCHITECTURE[/VARIANT]] is one, "
                         "linux/arm64 for instance",
                         text);
    struct image_worker_platform *platform = xnew(struct image_worker_platform);
    /* A single word may be either of the two. */
    bool only_architecture = count == 1 && !text_equal(parts[0], "linux");
    platform->os = xstrdup(count && !only_architecture ? parts[0] : own.os);
    platform->architecture = xstrdup(only_architecture ? parts[0]
                                     : count > 1       ? parts[1]
                                                       : own.architecture);
    platform->variant = xstrdup(count > 2                         ? parts[2]
                                : count < 2 && !only_architecture ? own.variant
                                                                  : NULL);
    normalize(platform);
    if (only_architecture && !is_architecture(platform->architecture)) {
        image_worker_platform_free(platform);
        return error_set(err, -EINVAL,
                         "\"%.100s\": unknown operating system or architecture: invalid argument",
                         text);
    }
    *ret = platform;
    return 0;
}
