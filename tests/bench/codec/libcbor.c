/* libcbor: a tree. */
#include <stdio.h>
#include <stdlib.h>

#include <cbor.h>

#include "codec.h"

static void *parse(const char *data, size_t length)
{
    struct cbor_load_result result;
    cbor_item_t *item = cbor_load((cbor_data)data, length, &result);

    if (!item) {
        fprintf(stderr, "libcbor: error %d at byte %zu\n", result.error.code,
                result.error.position);
        exit(EXIT_FAILURE);
    }
    return item;
}

static size_t write_cbor(void *value, int to_stdout)
{
    unsigned char *data;
    size_t size, length = cbor_serialize_alloc(value, &data, &size);

    if (to_stdout)
        fwrite(data, 1, length, stdout);
    free(data);
    return length;
}

static void release(void *value)
{
    cbor_item_t *item = value;

    cbor_decref(&item);
}

int main(int argc, char **argv)
{
    return codec_main(&(struct codec){"libcbor", parse, write_cbor, release}, argc, argv);
}
