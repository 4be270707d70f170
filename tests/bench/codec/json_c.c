/* json-c: a tree. */
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "codec.h"

static struct json_tokener *tokener;

static void *parse(const char *data, size_t length)
{
    json_tokener_reset(tokener);
    struct json_object *object = json_tokener_parse_ex(tokener, data, (int)length);

    if (!object) {
        fprintf(stderr, "%s\n", json_tokener_error_desc(json_tokener_get_error(tokener)));
        exit(EXIT_FAILURE);
    }
    return object;
}

static size_t write_json(void *value, int to_stdout)
{
    size_t length;
    const char *text = json_object_to_json_string_length(
        value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);

    if (to_stdout)
        fwrite(text, 1, length, stdout);
    return length;
}

static void release(void *value)
{
    json_object_put(value);
}

int main(int argc, char **argv)
{
    tokener = json_tokener_new();
    int r = codec_main(&(struct codec){"json_c", parse, write_json, release}, argc, argv);
    json_tokener_free(tokener);
    return r;
}
