/*
 * libFuzzer target: CBOR of any bytes, read as a type and without one.
 *
 * What was read comes back as it was through either encoding, and what has a form in JSON is read
 * from that form again.
 */
#include <stdint.h>
#include <string.h>

#include <schema/cbor.h>
#include <schema/sample.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_typed(const uint8_t *data, size_t size)
{
    _cleanup_buffer_ struct buffer first = BUFFER_INIT, second = BUFFER_INIT, cbor = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    void *value, *again;

    int r = cbor_parse(&sample_document_type, data, size, &value, &err);
    if (r < 0) {
        if ((r != -EINVAL && r != -EFBIG) || strchr(error_message(&err), '\n'))
            abort();
        return;
    }
    json_write(&sample_document_type, value, &first);
    cbor_write(&sample_document_type, value, &cbor);
    if (cbor_parse(&sample_document_type, cbor.data, cbor.length, &again, NULL) < 0)
        abort();
    json_write(&sample_document_type, again, &second);
    if (strcmp(first.data, second.data) != 0)
        abort();
    json_free(&sample_document_type, again);
    json_free(&sample_document_type, value);
}

static void check_untyped(const uint8_t *data, size_t size)
{
    _cleanup_buffer_ struct buffer json = BUFFER_INIT, cbor = BUFFER_INIT, again = BUFFER_INIT;
    struct cbor_scan scan = {.at = data, .end = data + size};

    if (cbor_to_json(data, size, &json, NULL) < 0)
        return;
    if (!cbor_scan_skip(&scan, JSON_DEPTH_MAX) || scan.at != scan.end)
        abort();
    if (cbor_from_json(json.data, json.length, &cbor, NULL) < 0 ||
        cbor_to_json(cbor.data, cbor.length, &again, NULL) < 0 ||
        strcmp(json.data, again.data) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_typed(data, size);
    check_untyped(data, size);
    return 0;
}
