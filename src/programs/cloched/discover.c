#include "discover.h"

#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <schema/json.h>
#include <schema/scan.h>

static bool step_over(struct json_scan *scan, char c)
{
    json_scan_blank(scan);
    if (json_scan_peek(scan) != c)
        return false;
    scan->at++;
    json_scan_blank(scan);
    return true;
}

/* Moves from the beginning of an object to the value of its member. */
static bool find(struct json_scan *scan, const char *name)
{
    struct json_token key, value;

    if (!step_over(scan, '{'))
        return false;
    while (json_scan_peek(scan) == '"' && json_scan_string(scan, &key) && step_over(scan, ':')) {
        if (key.length == strlen(name) && memcmp(key.text, name, key.length) == 0)
            return true;
        if (!json_scan_skip(scan, JSON_DEPTH_MAX, &value) || !step_over(scan, ','))
            return false;
    }
    return false;
}

static char *name_of(struct json_token method)
{
    struct json_scan scan = {.at = method.text, .end = method.text + method.length};
    struct json_token name;

    if (!find(&scan, "name") || !json_scan_string(&scan, &name))
        return xstrdup("");
    return xstrndup(name.text, name.length);
}

char *discover_filter(const char *document, bool (*may)(const char *method, const void *data),
                      const void *data)
{
    struct json_scan scan = {.at = document, .end = document + strlen(document)};
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    struct json_token method;
    bool first = true;

    if (!find(&scan, "methods") || !step_over(&scan, '['))
        return xstrdup("{}");
    buffer_append(&out, document, (size_t)(scan.at - document));
    while (json_scan_peek(&scan) == '{' && json_scan_skip(&scan, JSON_DEPTH_MAX, &method)) {
        _cleanup_free_ char *name = name_of(method);
        if (may(name, data)) {
            buffer_append_text(&out, first ? "" : ",");
            buffer_append(&out, method.text, method.length);
            first = false;
        }
        if (!step_over(&scan, ','))
            break;
    }
    buffer_append(&out, scan.at, (size_t)(scan.end - scan.at));
    return buffer_steal(&out);
}
