#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>

#include "fields.h"

void door_inspect_volume(const struct api_volume *volume, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "CreatedAt", volume->created_at);
    field_text(&writer, "Driver", volume->driver);
    field_map(&writer, "Labels", volume->labels);
    field_text(&writer, "Mountpoint", volume->mountpoint);
    field_text(&writer, "Name", volume->name);
    if (volume->options && volume->options->count)
        field_map(&writer, "Options", volume->options);
    else
        field_null(&writer, "Options");
    field_text(&writer, "Scope", "local");
    if (volume->usage) {
        field_object_begin(&writer, "UsageData");
        field_integer(&writer, "RefCount", volume->usage->references);
        field_integer(&writer, "Size", volume->usage->size);
        json_writer_object_end(&writer);
    }
    json_writer_object_end(&writer);
}
