/* .dockerignore: moby's patternmatcher. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <dockerfile/limits.h>

#include "glob.h"

struct pattern {
    char *text; /* owned */
    struct glob glob;
    bool exception; /* ! */
};

struct ignore {
    struct pattern *patterns;
    size_t count;
    bool exceptions;
};

void ignore_free(struct ignore *ignore)
{
    if (!ignore)
        return;
    for (size_t i = 0; i < ignore->count; i++) {
        glob_finish(&ignore->patterns[i].glob);
        free(ignore->patterns[i].text);
    }
    free(ignore->patterns);
    free(ignore);
}

/* Go's filepath.Clean without the leading slash: "a//b/./../c/" -> "a/c". Owned. */
static char *clean(const char *path, size_t length)
{
    _cleanup_free_ char *copy = xstrndup(path, length);
    _cleanup_strv_ char **parts = strv_split(copy, '/');
    char **kept = NULL;
    size_t count = 0;

    for (size_t i = 0; parts && parts[i]; i++) {
        if (!parts[i][0] || text_equal(parts[i], "."))
            continue;
        if (text_equal(parts[i], "..") && count && !text_equal(kept[count - 1], "..")) {
            free(kept[--count]);
            kept[count] = NULL;
        } else {
            strv_append(&kept, parts[i]);
            count++;
        }
    }
    char *cleaned = count ? strv_join(kept, "/") : xstrdup(".");
    strv_free(kept);
    return cleaned;
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && isspace((unsigned char)*at))
        at++;
    return at;
}

static int add_pattern(struct ignore *ignore, const char *at, const char *end, struct error *err)
{
    bool exception = *at == '!';

    if (exception)
        at = skip_blanks(at + 1, end);
    if (at == end)
        return error_set(err, -EINVAL, "illegal exclusion pattern: \"!\"");
    if (end - at > DOCKERFILE_PATTERN_MAX || ignore->count >= DOCKERFILE_PATTERNS_MAX)
        return error_set(err, -EFBIG,
                         ".dockerignore: more than %d patterns, or one of more than %d"
                         " bytes",
                         DOCKERFILE_PATTERNS_MAX, DOCKERFILE_PATTERN_MAX);
    if (ignore->count % 64 == 0)
        ignore->patterns =
            xrealloc(ignore->patterns, ignore->count + 64, sizeof(*ignore->patterns));
    struct pattern *pattern = &ignore->patterns[ignore->count++];
    pattern->text = clean(at, (size_t)(end - at));
    pattern->exception = exception;
    ignore->exceptions = ignore->exceptions || exception;
    return glob_compile(&pattern->glob, pattern->text, true)
               ? 0
               : error_set(err, -EINVAL,
                           "error parsing .dockerignore: syntax error in pattern '%s'",
                           pattern->text);
}

int ignore_parse(const char *text, size_t length, struct ignore **ret, struct error *err)
{
    _cleanup_ignore_ struct ignore *ignore = xnew(struct ignore);
    const char *limit = text + length;

    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3;
    while (text < limit) {
        const char *newline = memchr(text, '\n', (size_t)(limit - text));
        const char *end = newline ? newline : limit;
        const char *next = newline ? newline + 1 : limit;
        bool comment = *text == '#';
        text = skip_blanks(text, end);
        while (end > text && isspace((unsigned char)end[-1]))
            end--;
        int r = comment || text == end ? 0 : add_pattern(ignore, text, end, err);
        if (r < 0)
            return r;
        text = next;
    }
    *ret = steal_ptr(ignore);
    return 0;
}

static bool pattern_matches(const struct pattern *pattern, char *path)
{
    /* Of the folders above first: what is in them goes with them. */
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool matches = glob_matches(&pattern->glob, path);
        *slash = '/';
        if (matches)
            return true;
    }
    return glob_matches(&pattern->glob, path);
}

bool ignore_matches(const struct ignore *ignore, const char *path)
{
    bool matched = false;

    if (!ignore || !ignore->count)
        return false;
    _cleanup_free_ char *copy = xstrdup(path);
    for (size_t i = 0; i < ignore->count; i++) {
        const struct pattern *pattern = &ignore->patterns[i];
        /* The last one that fits decides. */
        if (pattern->exception == matched && pattern_matches(pattern, copy))
            matched = !pattern->exception;
    }
    return matched;
}

bool ignore_has_exceptions(const struct ignore *ignore)
{
    return ignore && ignore->exceptions;
}
