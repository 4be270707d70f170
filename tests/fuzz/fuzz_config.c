/*
 * libFuzzer target: the reader and writer on any bytes, as the types whose documents are foreign
 * and as the sample type, which has every construct of the subset.
 *
 * What was read must come back: the written form of a value is read again, and written again it is
 * the same text.
 */
#include <stdint.h>
#include <string.h>

#include <schema/json_type.h>
#include <schema/oci_config.h>
#include <schema/oci_image.h>
#include <schema/sample.h>

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
