#include <ctype.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <store/reference.h>

enum { SHA256_HEX = 64 };

static const char default_domain[] = "docker.io";
static const char library[] = "library/";

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alphanumeric(char c)
{
    return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z');
}

/* path-component := alpha-numeric (separator alpha-numeric)*; separator: '.', '_', '__', '-'+ */
static bool valid_path_component(const char *text, size_t length)
{
    size_t i = 0;

    if (length == 0 || !is_lower_or_digit(text[length - 1]))
        return false;
    while (i < length) {
        if (!is_lower_or_digit(text[i]))
            return false;
        while (i < length && is_lower_or_digit(text[i]))
            i++;
        if (i == length)
            return true;
        char separator = text[i];
        size_t start = i;
        if (separator != '.' && separator != '_' && separator != '-')
            return false;
        while (i < length && text[i] == separator)
            i++;
        if ((separator == '.' && i - start > 1) || (separator == '_' && i - start > 2))
            return false;
    }
    return true;
}

static bool valid_path(const char *path)
{
    for (;;) {
        const char *slash = strchrnul(path, '/');
        if (!valid_path_component(path, (size_t)(slash - path)))
            return false;
        if (!*slash)
            return true;
        path = slash + 1;
    }
}

/* host := component ('.' component)*, or an IPv6 address in brackets; then optionally ":port". */
static bool valid_domain(const char *text, size_t length)
{
    size_t i = 0;

    if (length && text[0] == '[') {
        while (++i < length && (isxdigit((unsigned char)text[i]) || text[i] == ':'))
            ;
        if (i < 2 || i >= length || text[i] != ']')
            return false;
        i++;
    } else {
        for (size_t start = 0;; i++) {
            if (i < length && (is_alphanumeric(text[i]) || text[i] == '-'))
                continue;
            if (i == start || text[start] == '-' || text[i - 1] == '-')
                return false;
            if (i == length || text[i] != '.')
                break;
            start = i + 1;
        }
    }
    if (i == length)
        return true;
    if (text[i++] != ':' || i == length)
        return false;
    while (i < length && isdigit((unsigned char)text[i]))
        i++;
    return i == length;
}

static bool valid_tag(const char *tag)
{
    size_t length = strlen(tag);

    if (length == 0 || length > REFERENCE_TAG_MAX || tag[0] == '.' || tag[0] == '-')
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_alphanumeric(tag[i]) && tag[i] != '_' && tag[i] != '.' && tag[i] != '-')
            return false;
    return true;
}

static bool valid_digest(const char *digest)
{
    return text_starts_with(digest, "sha256:") && text_is_hex(digest + 7, SHA256_HEX);
}

static int invalid(const char *text, struct error *err)
{
    return error_set(err, -EINVAL, "invalid reference format: '%s'", text);
}

/* Cuts "@digest" and ":tag" off name, which is changed. */
static int split_suffixes(char *name, struct store_reference *reference, const char *text,
                          struct error *err)
{
    char *at = strchr(name, '@');
    if (at) {
        *at = '\0';
        if (!valid_digest(at + 1))
            return invalid(text, err);
        reference->digest = xstrdup(at + 1);
    }
    char *slash = strrchr(name, '/');
    char *colon = strchr(slash ? slash : name, ':');
    if (colon) {
        *colon = '\0';
        if (!valid_tag(colon + 1))
            return invalid(text, err);
        reference->tag = xstrdup(colon + 1);
    }
    return 0;
}

static bool is_domain(const char *name, size_t length)
{
    if (memchr(name, '.', length) || memchr(name, ':', length))
        return true;
    if (length == strlen("localhost") && !memcmp(name, "localhost", length))
        return true;
    for (size_t i = 0; i < length; i++)
        if (isupper((unsigned char)name[i]))
            return true;
    return false;
}

static int split_domain(const char *name, struct store_reference *reference, const char *text,
                        struct error *err)
{
    const char *slash = strchr(name, '/');
    const char *path = name;

    if (slash && is_domain(name, (size_t)(slash - name))) {
        if (!valid_domain(name, (size_t)(slash - name)))
            return invalid(text, err);
        reference->domain = xstrndup(name, (size_t)(slash - name));
        path = slash + 1;
    } else {
        reference->domain = xstrdup(default_domain);
    }
    if (text_equal(reference->domain, "index.docker.io")) {
        free(reference->domain);
        reference->domain = xstrdup(default_domain);
    }
    for (const char *c = path; *c; c++)
        if (isupper((unsigned char)*c))
            return error_set(err, -EINVAL,
                             "invalid reference format: repository name must be lowercase: '%s'",
                             text);
    if (!valid_path(path))
        return invalid(text, err);
    bool official = text_equal(reference->domain, default_domain) && !strchr(path, '/');
    reference->path = xasprintf("%s%s", official ? library : "", path);
    if (strlen(reference->domain) + 1 + strlen(reference->path) > REFERENCE_NAME_MAX)
        return error_set(err, -EINVAL,
                         "invalid reference format: the repository name is longer than %d "
                         "characters",
                         REFERENCE_NAME_MAX);
    return 0;
}

int store_reference_parse(const char *text, struct store_reference *ret, struct error *err)
{
    _cleanup_store_reference_ struct store_reference reference = {0};

    if (text_empty(text))
        return error_set(err, -EINVAL, "invalid reference format: empty name");
    if (text_is_hex(text, SHA256_HEX))
        return error_set(err, -EINVAL,
                         "invalid reference format: '%s' would be taken for an image ID", text);
    _cleanup_free_ char *name = xstrdup(text);
    int r = split_suffixes(name, &reference, text, err);
    if (r == 0)
        r = split_domain(name, &reference, text, err);
    if (r < 0)
        return r;
    *ret = reference;
    reference = (struct store_reference){0};
    return 0;
}

void store_reference_finish(struct store_reference *reference)
{
    free(reference->domain);
    free(reference->path);
    free(reference->tag);
    free(reference->digest);
    *reference = (struct store_reference){0};
}

void store_reference_default_tag(struct store_reference *reference)
{
    if (!reference->tag && !reference->digest)
        reference->tag = xstrdup("latest");
}

static char *with_suffixes(const struct store_reference *reference, const char *domain,
                           const char *path)
{
    return xasprintf("%s%s%s%s%s%s%s", domain, domain[0] ? "/" : "", path,
                     reference->tag ? ":" : "", reference->tag ? reference->tag : "",
                     reference->digest ? "@" : "", reference->digest ? reference->digest : "");
}

char *store_reference_full(const struct store_reference *reference)
{
    return with_suffixes(reference, reference->domain, reference->path);
}

char *store_reference_short(const struct store_reference *reference)
{
    if (!text_equal(reference->domain, default_domain))
        return store_reference_full(reference);
    const char *path = reference->path;
    /* docker.io/library/a/b is a name of its own: only library/NAME is shortened. */
    if (text_starts_with(path, library) && !strchr(path + strlen(library), '/'))
        path += strlen(library);
    return with_suffixes(reference, "", path);
}

char *store_reference_shorten(const char *full)
{
    _cleanup_store_reference_ struct store_reference reference = {0};

    if (store_reference_parse(full, &reference, NULL) < 0)
        return xstrdup(full);
    return store_reference_short(&reference);
}

int store_reference_normalize(const char *text, char **ret, struct error *err)
{
    _cleanup_store_reference_ struct store_reference reference = {0};
    int r = store_reference_parse(text, &reference, err);

    if (r < 0)
        return r;
    store_reference_default_tag(&reference);
    *ret = store_reference_full(&reference);
    return 0;
}
