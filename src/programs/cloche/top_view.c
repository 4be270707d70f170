#include "top_view.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>

#include "human.h"
#include "table.h"
#include "terminal.h"

/* Of xterm, which all terminals of Linux follow: the alternate screen, without a cursor. */
#define SCREEN_ENTER "\033[?1049h\033[?25l"
#define SCREEN_LEAVE "\033[?25h\033[?1049l"
#define SCREEN_HOME "\033[H"
#define LINE_END "\033[K\r\n"
#define SCREEN_REST "\033[J"

enum {
    INTERVAL_DEFAULT = 2, /* seconds */
    FIRST_LOOK_MS = 300,  /* until the first rates */
    CONTROL_C = 'c' & 0x1f,
    CONTROL_L = 'l' & 0x1f,
};

struct view {
    struct cli *cli;
    struct api_statistics *before, *now; /* owned; before: NULL at first */
    enum top_order order;
    bool all;
    bool terminal;
};

/* ---- order ---- */

bool top_order_of_key(char key, enum top_order *ret)
{
    static const char keys[] = "cmndra";
    const char *found = key ? strchr(keys, key) : NULL;

    if (found)
        *ret = (enum top_order)(found - keys);
    return found != NULL;
}

static enum top_order order_of_word(const char *word)
{
    static const char *const words[] = {"cpu", "memory", "network", "disk", "restarts", "name"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (text_equal(words[i], word))
            return (enum top_order)i;
    }
    return TOP_CPU;
}

static double weight(const struct usage *usage, enum top_order order)
{
    switch (order) {
    case TOP_CPU:
        return usage->cpu;
    case TOP_MEMORY:
        return (double)usage->memory;
    case TOP_NETWORK:
        return usage->received_rate + usage->sent_rate;
    case TOP_DISK:
        return usage->read_rate + usage->written_rate;
    case TOP_RESTARTS:
        return usage->container->restart_count;
    case TOP_NAME:
        break;
    }
    return 0;
}

static int compare(const void *a, const void *b, void *order)
{
    const struct usage *first = a, *second = b;
    double left = weight(first, *(enum top_order *)order);
    double right = weight(second, *(enum top_order *)order);

    if (left != right)
        return left < right ? 1 : -1;
    return strcmp(first->container->name, second->container->name);
}

void top_sort(struct usage *usages, size_t count, enum top_order order)
{
    qsort_r(usages, count, sizeof(*usages), compare, &order);
}

/* ---- drawing ---- */

static char *uptime(const struct api_container_statistics *container)
{
    int64_t started;

    if (!container->started_at || clock_parse(container->started_at, &started) < 0)
        return xstrdup("-");
    return human_duration((clock_now() - started) / CLOCK_SECOND);
}

static char *row_of(const struct usage *usage)
{
    const struct api_container_statistics *container = usage->container;
    _cleanup_free_ char *id = human_id(container->id, false), *up = uptime(container);
    _cleanup_free_ char *memory = usage_binary_size(usage->memory);
    _cleanup_free_ char *received = usage_decimal_size(usage->received_rate);
    _cleanup_free_ char *sent = usage_decimal_size(usage->sent_rate);
    _cleanup_free_ char *read = usage_decimal_size(usage->read_rate);
    _cleanup_free_ char *written = usage_decimal_size(usage->written_rate);

    if (!usage->running)
        return xasprintf("%s\t%s\t-\t-\t-\t-\t-\t-\t%d\t-", id, container->name,
                         container->restart_count);
    return xasprintf("%s\t%s\t%.1f\t%s\t%.1f\t%s/%s\t%s/%s\t%ju\t%d\t%s", id, container->name,
                     usage->cpu, memory, usage->memory_share, received, sent, read, written,
                     (uintmax_t)(container->pids ? container->pids->current : 0),
                     container->restart_count, up);
}

static void draw_head(const struct usage *usages, size_t count, struct buffer *out)
{
    uint64_t memory = 0;
    char clock[16] = "";
    size_t running = 0;
    double cpu = 0;
    time_t now = time(NULL);
    struct tm tm;

    for (size_t i = 0; i < count; i++) {
        cpu += usages[i].cpu;
        memory += usages[i].memory;
        running += usages[i].running;
    }
    if (localtime_r(&now, &tm))
        strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    _cleanup_free_ char *size = usage_binary_size(memory);
    buffer_printf(out, "cloche top - %s, %zu running, CPU %.1f%%, memory %s\n\n", clock, running,
                  cpu, size);
}

static void draw_table(const struct usage *usages, size_t count, struct buffer *out)
{
    _cleanup_table_ struct table *table = table_create();

    table_add(table, "CONTAINER ID\tNAME\tCPU %\tMEM\tMEM %\tNET RX/TX PER S\tDISK R/W PER S\t"
                     "PIDS\tRESTARTS\tUP");
    for (size_t i = 0; i < count; i++) {
        _cleanup_free_ char *row = row_of(&usages[i]);
        table_add(table, row);
    }
    table_write(table, out);
}

/* As much of a line as the terminal has room for; names are ASCII, so bytes are columns. */
static void put_lines(const char *text, uint16_t rows, uint16_t columns, struct buffer *out)
{
    buffer_append_text(out, SCREEN_HOME);
    while (*text && rows-- > 1) {
        size_t length = strcspn(text, "\n");
        buffer_append(out, text, length < columns ? length : columns);
        buffer_append_text(out, LINE_END);
        text += length + (text[length] == '\n');
    }
    buffer_append_text(out, SCREEN_REST);
}

static int draw(const struct view *view)
{
    size_t count = view->now->containers_count;
    _cleanup_free_ struct usage *usages = xnew_array(struct usage, count + 1);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT, screen = BUFFER_INIT;
    uint16_t rows = 24, columns = 80;

    for (size_t i = 0; i < count; i++)
        usages[i] = usage_of(view->before, view->now, i);
    top_sort(usages, count, view->order);
    draw_head(usages, count, &text);
    draw_table(usages, count, &text);
    if (!view->terminal)
        return cli_print(&text) == EXIT_DONE ? 0 : -EIO;
    terminal_size(STDOUT_FILENO, &rows, &columns);
    put_lines(buffer_text(&text), rows, columns, &screen);
    return file_write_all(STDOUT_FILENO, screen.data, screen.length);
}

/* ---- looking and listening ---- */

static int look(struct view *view, struct error *err)
{
    struct api_statistics *now = NULL;

    int r = usage_fetch(view->cli, NULL, view->all, &now, err);
    if (r < 0)
        return r;
    api_statistics_free(view->before);
    view->before = view->now;
    view->now = now;
    return 0;
}

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    if (number != SIGWINCH)
        ended = 1;
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGHUP, SIGINT, SIGWINCH};
    struct sigaction action = {.sa_handler = on_signal};

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        sigaction(numbers[i], &action, NULL);
}

enum answer { ANSWER_NONE, ANSWER_REDRAW, ANSWER_LOOK, ANSWER_QUIT };

static enum answer on_key(struct view *view, char key)
{
    if (key == 'q' || key == 'Q' || key == CONTROL_C)
        return ANSWER_QUIT;
    if (key == 's') {
        view->all = !view->all;
        return ANSWER_LOOK;
    }
    if (top_order_of_key(key, &view->order) || key == CONTROL_L)
        return ANSWER_REDRAW;
    return ANSWER_NONE;
}

/* Keys until the time is over. */
static enum answer wait_for_key(struct view *view, int milliseconds)
{
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    int64_t until = clock_milliseconds() + milliseconds;
    char key;

    for (int64_t left = milliseconds; left > 0 && !ended; left = until - clock_milliseconds()) {
        int n = poll(&keys, 1, (int)left);
        if (n < 0 && errno == EINTR)
            return ended ? ANSWER_QUIT : ANSWER_REDRAW; /* its size has changed */
        if (n <= 0)
            continue;
        if (read(STDIN_FILENO, &key, 1) != 1)
            return ANSWER_QUIT;
        enum answer answer = on_key(view, key);
        if (answer != ANSWER_NONE)
            return answer;
    }
    return ended ? ANSWER_QUIT : ANSWER_LOOK;
}

static void leave_screen(void)
{
    /* atexit(): there is nobody to tell of a failure. */
    if (file_write_all(STDOUT_FILENO, SCREEN_LEAVE, strlen(SCREEN_LEAVE)) < 0)
        return;
}

static int watch(struct view *view, int interval_ms, struct error *err)
{
    int wait = FIRST_LOOK_MS;
    int r = terminal_make_raw(STDIN_FILENO, err);

    if (r < 0)
        return r;
    catch_signals();
    atexit(leave_screen);
    r = file_write_all(STDOUT_FILENO, SCREEN_ENTER, strlen(SCREEN_ENTER));
    while (r >= 0 && (r = draw(view)) >= 0) {
        enum answer answer = wait_for_key(view, wait);
        if (answer == ANSWER_QUIT)
            return 0;
        if (answer == ANSWER_LOOK) {
            r = look(view, err);
            wait = interval_ms;
        }
    }
    return r < 0 && !err->code ? error_errno(err, -r, "draw on the terminal") : r;
}

/* Rates take two looks. */
static int show_once(struct view *view, struct error *err)
{
    const struct timespec pause = {.tv_nsec = FIRST_LOOK_MS * 1000000L};

    nanosleep(&pause, NULL);
    int r = look(view, err);
    return r < 0 ? r : draw(view);
}

int top_view(struct cli *cli, const struct top_options *options)
{
    int64_t interval = options->interval.set ? options->interval.value : INTERVAL_DEFAULT;
    struct view view = {
        .cli = cli,
        .order = order_of_word(options->sort),
        .all = options->all,
        .terminal = isatty(STDOUT_FILENO) && isatty(STDIN_FILENO),
    };
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = look(&view, &err);
    if (r >= 0)
        r = view.terminal ? watch(&view, (int)interval * 1000, &err) : show_once(&view, &err);
    terminal_restore();
    api_statistics_free(view.before);
    api_statistics_free(view.now);
    return r < 0 && err.code ? cli_fail(&err) : r < 0 ? EXIT_FAILED : EXIT_DONE;
}
