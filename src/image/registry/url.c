#include <curl/curl.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

#include "url.h"

static bool is_plain(const char *url)
{
    return strncasecmp(url, "http://", strlen("http://")) == 0;
}

/* Owned; NULL: url is none. */
static char *part_of(const char *url, CURLUPart part)
{
    CURLU *parsed = curl_url();
    char *text = NULL, *copy = NULL;

    if (parsed && !curl_url_set(parsed, CURLUPART_URL, url, 0) &&
        !curl_url_get(parsed, part, &text, CURLU_DEFAULT_PORT))
        copy = xstrdup(text);
    curl_free(text);
    curl_url_cleanup(parsed);
    return copy;
}

static bool same_part(const char *one, const char *other, CURLUPart part)
{
    _cleanup_free_ char *left = part_of(one, part), *right = part_of(other, part);

    return left && right && strcasecmp(left, right) == 0;
}

bool url_same_host(const char *one, const char *other)
{
    return same_part(one, other, CURLUPART_HOST);
}

bool url_same_origin(const char *one, const char *other)
{
    return same_part(one, other, CURLUPART_SCHEME) && url_same_host(one, other) &&
           same_part(one, other, CURLUPART_PORT);
}

bool url_is_loopback(const char *url)
{
    _cleanup_free_ char *host = part_of(url, CURLUPART_HOST);

    return host &&
           (strcasecmp(host, "localhost") == 0 || text_equal(host, "[::1]") ||
            (text_starts_with(host, "127.") && strspn(host, "0123456789.") == strlen(host)));
}

char *url_resolve(const char *base, const char *location)
{
    CURLU *parsed = curl_url();
    char *text = NULL, *copy = NULL;

    if (parsed && !curl_url_set(parsed, CURLUPART_URL, base, 0) &&
        !curl_url_set(parsed, CURLUPART_URL, location, CURLU_URLENCODE) &&
        !curl_url_set(parsed, CURLUPART_USER, NULL, 0) &&
        !curl_url_set(parsed, CURLUPART_PASSWORD, NULL, 0) &&
        !curl_url_set(parsed, CURLUPART_FRAGMENT, NULL, 0) &&
        !curl_url_get(parsed, CURLUPART_URL, &text, 0))
        copy = xstrdup(text);
    curl_free(text);
    curl_url_cleanup(parsed);
    return copy;
}

bool url_may_be_plain(const char *home, const char *url)
{
    return is_plain(home) && is_plain(url) && (url_is_loopback(url) || url_same_host(url, home));
}
