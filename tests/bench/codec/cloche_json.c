/* Our JSON: a container's record to its struct and back. */
#include <stdio.h>
#include <stdlib.h>

#include <base/error.h>
#include <schema/management.h>

#include "codec.h"

static void *parse(const char *data, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_container_details *details;

    if (api_container_details_parse(data, length, NULL, &details, &err) < 0) {
        fprintf(stderr, "%s\n", error_message(&err));
        exit(EXIT_FAILURE);
    }
    return details;
}

static size_t write_json(void *value, int to_stdout)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    api_container_details_write(value, &out);
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
    return codec_main(&(struct codec){"cloche_json", parse, write_json, release}, argc, argv);
}
