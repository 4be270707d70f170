/* Our CBOR, by the same tables. `convert` takes JSON: it is where the CBOR of the others is from.
 */
#include <stdio.h>
#include <stdlib.h>

#include <base/error.h>
#include <schema/cbor.h>
#include <schema/management.h>

#include "codec.h"

static void *parse(const char *data, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    void *details;
    int r = length > 0 && data[0] == '{'
                ? json_parse(&api_container_details_type, data, length, NULL, &details, &err)
                : cbor_parse(&api_container_details_type, data, length, &details, &err);

    if (r < 0) {
        fprintf(stderr, "%s\n", error_message(&err));
        exit(EXIT_FAILURE);
    }
    return details;
}

static size_t write_cbor(void *value, int to_stdout)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    cbor_write(&api_container_details_type, value, &out);
    if (to_stdout)
        fwrite(out.data, 1, out.length, stdout);
    return out.length;
}

static void release(void *value)
{
    api_container_details_free(value);
}

int main(int argc, char **argv)
{
    return codec_main(&(struct codec){"cloche_cbor", parse, write_cbor, release}, argc, argv);
}
