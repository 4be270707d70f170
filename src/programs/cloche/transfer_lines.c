#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <schema/rpc.h>

#include "terminal.h"
#include "transfer_lines.h"

enum { BAR_MAX = 50, BAR_MIN = 10, LINES_MAX = 100000 };

void transfer_lines_start(struct transfer_lines *lines, FILE *out, bool quiet)
{
    *lines = (struct transfer_lines){.out = out, .quiet = quiet};
    lines->terminal =
        isatty(fileno(out)) && terminal_size(fileno(out), &lines->rows, &lines->columns) == 0;
}

void transfer_lines_finish(struct transfer_lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        free(lines->lines[i].item);
        free(lines->lines[i].step);
    }
    free(lines->lines);
    lines->lines = NULL;
    lines->count = 0;
}

/* "[=====>    ]" as wide as there is room. */
static void append_bar(struct buffer *text, const struct transfer_line *line, uint16_t columns)
{
    size_t used = text->length + strlen("[] 999.9MB/999.9MB ") + 1;
    size_t width = columns > used ? columns - used : 0;
    uint64_t done = line->done < line->total ? line->done : line->total;

    if (width > BAR_MAX)
        width = BAR_MAX;
    if (width < BAR_MIN)
        return;
    size_t filled = (size_t)((double)done / (double)line->total * (double)width);
    buffer_append_char(text, '[');
    for (size_t i = 0; i < width; i++)
        buffer_append_char(text, i < filled ? '=' : i == filled ? '>' : ' ');
    buffer_append_text(text, "] ");
}

static void append_numbers(struct buffer *text, const struct transfer_line *line, uint16_t columns)
{
    _cleanup_free_ char *done = text_from_size(line->done);
    _cleanup_free_ char *total = text_from_size(line->total);

    buffer_append_char(text, ' ');
    if (line->total)
        append_bar(text, line, columns);
    buffer_append_text(text, done);
    if (line->total)
        buffer_printf(text, "/%s", total);
}

static bool is_under_way(const char *step)
{
    return text_equal(step, "Downloading") || text_equal(step, "Pushing") ||
           text_equal(step, "Preparing") || text_equal(step, "Retrying") ||
           text_equal(step, "Loading layer") || text_equal(step, "Saving layer");
}

/* What a line above the last screen says cannot be changed any more. */
static void draw(const struct transfer_lines *lines, size_t place)
{
    const struct transfer_line *line = &lines->lines[place];
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    size_t up = lines->count - place;

    if (up >= lines->rows)
        return;
    buffer_printf(&text, "%s: %s", line->item, line->step);
    if (is_under_way(line->step) && line->done)
        append_numbers(&text, line, lines->columns);
    if (text.length >= lines->columns)
        text.data[lines->columns - 1] = '\0';
    fprintf(lines->out, "\033[%zuA\r\033[K%s\033[%zuB\r", up, buffer_text(&text), up);
    fflush(lines->out);
}

static size_t find_line(const struct transfer_lines *lines, const char *item, size_t length)
{
    size_t i = 0;

    while (i < lines->count && !(strlen(lines->lines[i].item) == length &&
                                 memcmp(lines->lines[i].item, item, length) == 0))
        i++;
    return i;
}

static void show(struct transfer_lines *lines, const char *item, size_t length, const char *step,
                 const struct rpc_progress *progress)
{
    size_t place = find_line(lines, item, length);
    bool is_new = place == lines->count;

    if (is_new && lines->count >= LINES_MAX)
        return;
    if (is_new) {
        lines->lines = xrealloc(lines->lines, lines->count + 1, sizeof(*lines->lines));
        lines->lines[lines->count++] = (struct transfer_line){.item = xstrndup(item, length)};
        if (lines->terminal)
            fputc('\n', lines->out);
    }
    struct transfer_line *line = &lines->lines[place];
    bool changed = !text_equal(line->step, step);
    if (changed) {
        free(line->step);
        line->step = xstrdup(step);
    }
    line->done = progress->done;
    line->total = progress->total;
    if (lines->terminal)
        draw(lines, place);
    else if (changed && !is_under_way(step))
        fprintf(lines->out, "%s: %s\n", line->item, step);
}

void transfer_lines_take(const struct rpc_progress *progress, void *data)
{
    struct transfer_lines *lines = data;
    const char *text = progress->text ? progress->text : "";
    const char *colon = strstr(text, ": ");

    if (lines->quiet)
        return;
    if (colon)
        show(lines, text, (size_t)(colon - text), colon + 2, progress);
    else
        fprintf(lines->out, "%s\n", text);
    if (!lines->terminal)
        fflush(lines->out);
}
