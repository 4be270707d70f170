/*
 * libFuzzer target: any text as a --format template, over a document that has something of every
 * kind. It is refused with a reason, or comes to an end within its limits.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>

#include "template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char document_text[] =
    "{\"Id\":\"c1\",\"Name\":\"/web\",\"Pid\":42,\"Share\":1.5,\"Running\":true,\"Dead\":false,"
    "\"Error\":\"\",\"Nothing\":null,\"Args\":[\"a\",\"b\",[1,2],{\"c\":3}],\"Labels\":\"a=b,c\","
    "\"Config\":{\"Labels\":{\"x.y\":\"1\"},\"Cmd\":[]}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_free_ char *template = xstrndup((const char *)data, size);
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    yajl_val document;

    if (tree_parse(&arena, document_text, &document, NULL) < 0)
        abort();
    int r = template_render(template, document, &arena, &out, &err);
    if (r < 0 && (!err.code || !error_message(&err)[0]))
        abort();
    return 0;
}
