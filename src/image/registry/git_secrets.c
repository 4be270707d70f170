#include <curl/curl.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "git_secrets.h"

/* git executes it by the shell, with a word of its own behind it, and the shell prints by itself:
 * what it prints is on no command line either. git asks only where the server wants to know. */
static const char helper[] =
    "!printf 'username=%s\\npassword=%s\\n' \"$CLONE_USER\" \"$CLONE_PASSWORD\"; :";

static void set(char ***environment, unsigned index, const char *key, const char *value)
{
    strv_take(environment, xasprintf("GIT_CONFIG_KEY_%u=%s", index, key));
    strv_take(environment, xasprintf("GIT_CONFIG_VALUE_%u=%s", index, value));
}

/* git reads lines from the helper. */
static int add_decoded(const char *name, const char *encoded, size_t length, char ***environment,
                       struct error *err)
{
    int decoded = 0;
    char *text = curl_easy_unescape(NULL, encoded, (int)length, &decoded);

    if (!text)
        return error_set(err, -ENOMEM, "decode the user of an address");
    const bool is_line = strlen(text) == (size_t)decoded && !strpbrk(text, "\r\n");
    if (is_line)
        strv_take(environment, xasprintf("%s=%s", name, text));
    curl_free(text);
    return is_line ? 0
                   : error_set(err, -EINVAL, "user and password of an address are a line of text");
}

static int add_credentials(const char *user, size_t length, char ***environment, struct error *err)
{
    const char *colon = memchr(user, ':', length);
    const size_t name = colon ? (size_t)(colon - user) : length;
    int r = length > INT16_MAX ? error_set(err, -EINVAL, "the user of an address is too long")
                               : add_decoded("CLONE_USER", user, name, environment, err);

    if (r < 0)
        return r;
    if (!colon) {
        strv_append(environment, "CLONE_PASSWORD=");
        return 0;
    }
    return add_decoded("CLONE_PASSWORD", colon + 1, length - name - 1, environment, err);
}

int git_hide_secrets(const char *url, const char *proxy, char **ret_url, char ***environment,
                     struct error *err)
{
    const char *scheme_end = strstr(url, "://");
    const char *authority = scheme_end ? scheme_end + strlen("://") : url;
    const char *end = authority + strcspn(authority, "/?#");
    const char *at = memrchr(authority, '@', (size_t)(end - authority));
    unsigned count = 0;

    if (at) {
        _cleanup_free_ char *origin =
            xasprintf("%.*s%.*s", (int)(authority - url), url, (int)(end - at - 1), at + 1);
        _cleanup_free_ char *key = xasprintf("credential.%s.helper", origin);
        int r = add_credentials(authority, (size_t)(at - authority), environment, err);
        if (r < 0)
            return r;
        set(environment, count++, key, helper);
    }
    if (proxy)
        set(environment, count++, "http.proxy", proxy);
    strv_take(environment, xasprintf("GIT_CONFIG_COUNT=%u", count));
    *ret_url = at ? xasprintf("%.*s%s", (int)(authority - url), url, at + 1) : xstrdup(url);
    return 0;
}
