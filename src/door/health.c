/*
 * A container's health as docker shows it.
 */
#include "fields.h"
#include "health.h"

void write_health(struct json_writer *writer, const struct api_health *health)
{
    if (!health)
        return;
    field_object_begin(writer, "Health");
    field_text(writer, "Status", health->status);
    field_integer(writer, "FailingStreak", health->failing_streak);
    json_writer_key(writer, "Log");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < health->log_count; i++) {
        const struct api_health_result *result = health->log[i];
        json_writer_object_begin(writer);
        field_text(writer, "Start", result->start);
        field_text(writer, "End", result->end);
        field_integer(writer, "ExitCode", result->exit_code);
        field_text(writer, "Output", result->output);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}
