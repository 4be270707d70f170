#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "event_lines.h"
#include "template.h"

/* "2026-11-20T10:00:00.123456789+01:00", where the user is. */
static void append_time(struct buffer *out, int64_t time)
{
    time_t seconds = (time_t)(time / CLOCK_SECOND);
    char date[32] = "", zone[16] = "";
    struct tm tm;

    if (localtime_r(&seconds, &tm)) {
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
        strftime(zone, sizeof(zone), "%z", &tm);
    }
    buffer_printf(out, "%s.%09jd", date, (intmax_t)(time % CLOCK_SECOND));
    if (tm.tm_gmtoff == 0)
        buffer_append_char(out, 'Z');
    else
        buffer_printf(out, "%.3s:%s", zone, zone + 3);
}

/* docker's word for it: an exec session's command belongs to the action. */
static char *action_of(const struct api_event *event)
{
    const char *command = json_string_map_get(event->attributes, "command");

    if (!command || !text_starts_with(event->action, "exec_"))
        return xstrdup(event->action);
    return xasprintf("%s: %s", event->action, command);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Attributes by key, with the name, without what is part of the action. */
static struct json_string_map *attributes_of(const struct api_event *event)
{
    struct json_string_map *all = json_string_map_copy(event->attributes), *sorted = NULL;

    if (event->name)
        json_string_map_set(&all, "name", event->name);
    if (text_starts_with(event->action, "exec_"))
        json_string_map_remove(all, "command");
    char **keys = xnew_array(char *, all->count + 1);
    memcpy(keys, all->keys, all->count * sizeof(*keys));
    qsort(keys, all->count, sizeof(*keys), compare_keys);
    sorted = xnew(struct json_string_map);
    for (size_t i = 0; i < all->count; i++)
        json_string_map_set(&sorted, keys[i], json_string_map_get(all, keys[i]));
    free(keys);
    json_string_map_free(all);
    return sorted;
}

static void text_line(const struct api_event *event, struct buffer *out)
{
    _cleanup_json_string_map_ struct json_string_map *attributes = attributes_of(event);
    _cleanup_free_ char *action = action_of(event);

    append_time(out, event->time);
    buffer_printf(out, " %s %s %s", event->type, action, event->id);
    for (size_t i = 0; i < attributes->count; i++)
        buffer_printf(out, "%s%s=%s", i ? ", " : " (", attributes->keys[i], attributes->values[i]);
    buffer_append_text(out, attributes->count ? ")\n" : "\n");
}

static void write_text(struct json_writer *writer, const char *key, const char *value)
{
    json_writer_key(writer, key);
    json_writer_string(writer, value);
}

static void write_actor(struct json_writer *writer, const struct api_event *event)
{
    _cleanup_json_string_map_ struct json_string_map *attributes = attributes_of(event);

    json_writer_key(writer, "Actor");
    json_writer_object_begin(writer);
    write_text(writer, "ID", event->id);
    json_writer_key(writer, "Attributes");
    json_writer_value(writer, &json_string_map_type, attributes);
    json_writer_object_end(writer);
}

/* With the members of docker's older API, which its clients still read. */
static void write_document(const struct api_event *event, struct buffer *out)
{
    bool container = text_equal(event->type, "container");
    _cleanup_free_ char *action = action_of(event);
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    if (container || text_equal(event->type, "image")) {
        write_text(&writer, "status", action);
        write_text(&writer, "id", event->id);
    }
    if (container)
        write_text(&writer, "from", json_string_map_get(event->attributes, "image"));
    write_text(&writer, "Type", event->type);
    write_text(&writer, "Action", action);
    write_actor(&writer, event);
    write_text(&writer, "scope", "local");
    json_writer_key(&writer, "time");
    json_writer_integer(&writer, event->time / CLOCK_SECOND);
    json_writer_key(&writer, "timeNano");
    json_writer_integer(&writer, event->time);
    json_writer_object_end(&writer);
}

/* Go's names of the same members, for templates, */
static void write_for_template(const struct api_event *event, struct buffer *out)
{
    const char *from = json_string_map_get(event->attributes, "image");
    _cleanup_free_ char *action = action_of(event);
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    write_text(&writer, "Status", action);
    write_text(&writer, "ID", event->id);
    write_text(&writer, "From", from ? from : "");
    write_text(&writer, "Type", event->type);
    write_text(&writer, "Action", action);
    write_actor(&writer, event);
    write_text(&writer, "Scope", "local");
    json_writer_key(&writer, "Time");
    json_writer_integer(&writer, event->time / CLOCK_SECOND);
    json_writer_key(&writer, "TimeNano");
    json_writer_integer(&writer, event->time);
    json_writer_object_end(&writer);
}

int event_line(const struct api_event *event, const char *format, struct buffer *out,
               struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;
    yajl_val document;

    if (text_empty(format) || text_equal(format, "text")) {
        text_line(event, out);
        return 0;
    }
    if (text_equal(format, "json") || text_equal(format, "{{json .}}")) {
        write_document(event, out);
        buffer_append_char(out, '\n');
        return 0;
    }
    write_for_template(event, &json);
    int r = tree_parse(&arena, buffer_text(&json), &document, err);
    if (r >= 0)
        r = template_render(format, document, &arena, out, err);
    buffer_append_char(out, '\n');
    return r;
}

int event_filter_add(struct api_event_filters *filters, const char *text, struct error *err)
{
    const struct {
        const char *key;
        char ***list;
        size_t *count;
    } known[] = {
        {"type", &filters->type, &filters->type_count},
        {"event", &filters->action, &filters->action_count},
        {"container", &filters->container, &filters->container_count},
        {"image", &filters->image, &filters->image_count},
        {"label", &filters->label, &filters->label_count},
        {"network", &filters->network, &filters->network_count},
        {"volume", &filters->volume, &filters->volume_count},
        {"daemon", &filters->daemon, &filters->daemon_count},
    };
    size_t length = strcspn(text, "=");

    if (text_equal(text, "scope=local")) /* all of ours are */
        return 0;

    if (!text[length])
        return error_set(err, -EINVAL, "bad format of filter (expected name=value): '%s'", text);
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strlen(known[i].key) != length || strncmp(known[i].key, text, length) != 0)
            continue;
        strv_append(known[i].list, text + length + 1);
        *known[i].count += 1;
        return 0;
    }
    error_set(err, -EINVAL, "invalid filter '%.*s'", (int)length, text);
    error_hint(
        err,
        "There are type, event, container, image, label, network, volume, daemon and scope=local.");
    return -EINVAL;
}
