/*
 * libFuzzer target: the reader and writer on any bytes, as the types whose documents are foreign
 * and as the sample type, which has every construct of the subset.
 *
 * What was read must come back: the written form of a value is read again, and written again it is
 * the same text. And what is JSON at all, yajl decides as we do.
 */
#include <stdint.h>
#include <string.h>

#include <schema/json_type.h>
#include <schema/oci_config.h>
#include <schema/oci_image.h>
#include <schema/sample.h>
#include <schema/scan.h>
#include <schema/utf8.h>
#include <yajl/yajl_parse.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct json_type *type, const void *value)
{
    _cleanup_buffer_ struct buffer first = BUFFER_INIT, second = BUFFER_INIT;
    void *again;

    json_write_pretty(type, value, &first);
    if (json_parse(type, first.data, first.length, NULL, &again, NULL) < 0)
        abort();
    json_write_pretty(type, again, &second);
    if (strcmp(first.data, second.data) != 0)
        abort();
    json_free(type, again);
}

static bool yajl_accepts(const uint8_t *data, size_t size)
{
    static const yajl_callbacks nothing;
    yajl_handle yajl = yajl_alloc(&nothing, NULL, NULL);
    bool accepted = yajl_parse(yajl, data, size) == yajl_status_ok &&
                    yajl_complete_parse(yajl) == yajl_status_ok;

    yajl_free(yajl);
    return accepted;
}

/* But for the white space that yajl has beyond the standard's, and depth. */
static void check_syntax(const uint8_t *data, size_t size)
{
    struct json_scan scan = {.at = (const char *)data, .end = (const char *)data + size};
    struct json_token token;

    if (memchr(data, '\v', size) || memchr(data, '\f', size) ||
        utf8_check((const char *)data, size) < size)
        return;
    json_scan_blank(&scan);
    bool accepted = json_scan_skip(&scan, JSON_DEPTH_MAX, &token);
    json_scan_blank(&scan);
    if (!accepted && strcmp(scan.problem, "nested too deep") == 0)
        return;
    /* Half a token behind the value escapes yajl. */
    if (accepted && scan.at < scan.end)
        return;
    if (accepted != yajl_accepts(data, size))
        abort();
}

static void check_message(int result, const struct error *err)
{
    const char *message = error_message(err);

    if ((result != -EINVAL && result != -EFBIG) || strchr(message, '\n') || strlen(message) > 32768)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct json_type *const types[] = {
        &oci_config_type,
        &oci_image_configuration_type,
        &oci_image_docker_archive_type,
        &sample_document_type,
    };

    if (size > 0)
        check_syntax(data, size);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        void *value;

        int r = json_parse(types[i], (const char *)data, size, "config.json", &value, &err);
        if (r < 0) {
            check_message(r, &err);
            continue;
        }
        check_round_trip(types[i], value);
        json_free(types[i], value);
    }
    return 0;
}
