#include "processes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

enum {
    STAT_MAX = 4096,
    COMMAND_MAX = 128 * 1024,
    USER_WIDTH = 8, /* of the column UID */
    PATH_SIZE = 64,
    PTY_MAJOR_FIRST = 136, /* Documentation/admin-guide/devices.txt: 136-143 */
    PTY_MAJOR_LAST = 143,
    TTY_MAJOR = 4,
    SERIAL_MINOR = 64,
};

/* --- a table ---------------------------------------------------------------------------------- */

static struct api_processes *new_table(char *const *titles, size_t rows)
{
    struct api_processes *table = xnew(struct api_processes);

    table->titles = strv_copy(titles);
    table->titles_count = strv_length(table->titles);
    table->processes = xnew_array(struct api_process_row *, rows + 1);
    return table;
}

static void add_row(struct api_processes *table, char **values)
{
    struct api_process_row *row = xnew(struct api_process_row);

    row->items = values;
    row->count = strv_length(values);
    table->processes[table->processes_count++] = row;
}

/* --- from /proc ------------------------------------------------------------------------------- */

/* The fields of /proc/PID/stat that are shown, by proc(5). */
struct process_facts {
    char name[64];
    int64_t parent;
    unsigned terminal;
    uint64_t ticks;   /* user and system */
    uint64_t started; /* ticks after the boot */
};

static char *read_process(int64_t pid, const char *name, size_t limit, size_t *ret_length)
{
    char path[PATH_SIZE];
    char *text = NULL;

    snprintf(path, sizeof(path), "/proc/%jd/%s", (intmax_t)pid, name);
    return file_read_at(AT_FDCWD, path, limit, &text, ret_length, NULL) < 0 ? NULL : text;
}

/* The name stands in parentheses and may hold anything: fields count from the last ')'. */
static bool read_facts(int64_t pid, struct process_facts *ret)
{
    _cleanup_free_ char *text = read_process(pid, "stat", STAT_MAX, NULL);
    const char *open = text ? strchr(text, '(') : NULL;
    const char *close = text ? strrchr(text, ')') : NULL;
    uint64_t user = 0, system = 0;

    if (!open || !close || close < open)
        return false;
    snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(close - open - 1), open + 1);
    int n =
        sscanf(close + 1,
               " %*c %jd %*d %*d %u %*d %*u %*u %*u %*u %*u %ju %ju %*d %*d %*d %*d %*d %*d %ju",
               &ret->parent, &ret->terminal, &user, &system, &ret->started);
    ret->ticks = user + system;
    return n == 5;
}

static char *user_of(int64_t pid)
{
    _cleanup_free_ char *text = read_process(pid, "status", STAT_MAX, NULL);
    const char *line = text ? strstr(text, "\nUid:") : NULL;
    unsigned real, effective;

    if (!line || sscanf(line, "\nUid: %u %u", &real, &effective) != 2)
        return xstrdup("?");
    /* The files only: a directory service could take its time. */
    FILE *file = fopen("/etc/passwd", "re");
    char *name = NULL;
    for (struct passwd *entry; !name && file && (entry = fgetpwent(file));) {
        if (entry->pw_uid == effective && strlen(entry->pw_name) <= USER_WIDTH)
            name = xstrdup(entry->pw_name);
        else if (entry->pw_uid == effective)
            name = xasprintf("%.*s+", USER_WIDTH - 1, entry->pw_name);
    }
    if (file)
        fclose(file);
    return name ? name : xasprintf("%u", effective);
}

static char *terminal_name(unsigned device)
{
    unsigned class = major(device), number = minor(device);

    if (class >= PTY_MAJOR_FIRST && class <= PTY_MAJOR_LAST)
        return xasprintf("pts/%u", number + (class - PTY_MAJOR_FIRST) * 256);
    if (class == TTY_MAJOR && number < SERIAL_MINOR)
        return xasprintf("tty%u", number);
    if (class == TTY_MAJOR)
        return xasprintf("ttyS%u", number - SERIAL_MINOR);
    return xstrdup("?");
}

static char *start_time(int64_t started, int64_t now)
{
    time_t then_seconds = (time_t)started, now_seconds = (time_t)now;
    struct tm then, today;
    char text[16];

    localtime_r(&then_seconds, &then);
    localtime_r(&now_seconds, &today);
    if (then.tm_year != today.tm_year)
        strftime(text, sizeof(text), "%Y", &then);
    else if (then.tm_yday != today.tm_yday)
        strftime(text, sizeof(text), "%b%d", &then);
    else
        strftime(text, sizeof(text), "%H:%M", &then);
    return xstrdup(text);
}

static char *cpu_time(uint64_t seconds)
{
    uint64_t days = seconds / 86400;
    unsigned hours = (unsigned)(seconds / 3600 % 24), minutes = (unsigned)(seconds / 60 % 60);
    unsigned rest = (unsigned)(seconds % 60);

    return days ? xasprintf("%ju-%02u:%02u:%02u", (uintmax_t)days, hours, minutes, rest)
                : xasprintf("%02u:%02u:%02u", hours, minutes, rest);
}

/* What the process says of itself: control characters are not for the reader's terminal. */
static char *command_of(int64_t pid, const struct process_facts *facts)
{
    size_t length = 0;
    char *text = read_process(pid, "cmdline", COMMAND_MAX, &length);

    while (length && !text[length - 1])
        length--;
    if (!length) {
        free(text);
        return xasprintf("[%s]", facts->name);
    }
    for (size_t i = 0; i < length; i++) {
        if (!text[i])
            text[i] = ' ';
        else if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = '?';
    }
    text[length] = '\0';
    return text;
}

static int64_t boot_time(void)
{
    struct timespec up;

    clock_gettime(CLOCK_BOOTTIME, &up);
    return clock_now() / CLOCK_SECOND - up.tv_sec;
}

static char **row_of(int64_t pid, const struct process_facts *facts, int64_t boot)
{
    uint64_t hertz = (uint64_t)sysconf(_SC_CLK_TCK);
    int64_t now = clock_now() / CLOCK_SECOND;
    int64_t started = boot + (int64_t)(facts->started / hertz);
    uint64_t used = facts->ticks / hertz;
    uint64_t share = now > started ? used * 100 / (uint64_t)(now - started) : 0;
    char **row = NULL;

    strv_take(&row, user_of(pid));
    strv_take(&row, xasprintf("%jd", (intmax_t)pid));
    strv_take(&row, xasprintf("%jd", (intmax_t)facts->parent));
    strv_take(&row, xasprintf("%ju", (uintmax_t)(share > 99 ? 99 : share)));
    strv_take(&row, start_time(started, now));
    strv_take(&row, terminal_name(facts->terminal));
    strv_take(&row, cpu_time(used));
    strv_take(&row, command_of(pid, facts));
    return row;
}

int processes_list(const struct members *whose, struct api_processes **ret, struct error *err)
{
    static char *const titles[] = {"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD", NULL};
    _cleanup_free_ int64_t *pids = NULL;
    size_t count = 0;

    int r = members_list(whose, PROCESSES_MAX, &pids, &count, err);
    if (r < 0)
        return r;
    struct api_processes *table = new_table(titles, count);
    int64_t boot = boot_time();
    for (size_t i = 0; i < count; i++) {
        struct process_facts facts = {0};
        /* One that has ended meanwhile is left out. */
        if (read_facts(pids[i], &facts))
            add_row(table, row_of(pids[i], &facts, boot));
    }
    *ret = table;
    return 0;
}

/* --- through ps(1) ---------------------------------------------------------------------------- */

/* The next word of a line, or with `rest` all that is left of it; NULL at its end. */
static char *next_word(char **line, bool rest)
{
    char *word = *line + strspn(*line, " \t");

    if (!*word)
        return NULL;
    size_t length = rest ? strlen(word) : strcspn(word, " \t");
    while (rest && length && strchr(" \t", word[length - 1]))
        length--;
    *line = word + length + (word[length] != '\0');
    word[length] = '\0';
    return word;
}

/* As many values as there are titles: the last one may hold blanks. */
static char **split_row(char *line, size_t columns)
{
    char **values = NULL;

    for (size_t i = 0; i < columns; i++) {
        char *word = next_word(&line, i + 1 == columns);
        strv_append(&values, word ? word : "");
    }
    return values;
}

static bool has_pid(const int64_t *pids, size_t count, const char *text)
{
    int64_t pid;

    if (text_to_i64(text, 1, INT32_MAX, &pid) < 0)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (pids[i] == pid)
            return true;
    }
    return false;
}

static size_t find_title(char *const *titles, const char *name)
{
    size_t i = 0;

    while (titles && titles[i] && !text_equal(titles[i], name))
        i++;
    return i;
}

int processes_pick(char *output, const int64_t *pids, size_t count, struct api_processes **ret,
                   struct error *err)
{
    _cleanup_strv_ char **titles = NULL;
    char *rest = output;

    for (char *head = strsep(&rest, "\n"), *word; (word = next_word(&head, false));)
        strv_append(&titles, word);
    size_t columns = strv_length(titles), pid_column = find_title(titles, "PID");
    if (pid_column == columns)
        return error_set(err, -EINVAL, "Couldn't find PID field in ps output");
    struct api_processes *table = new_table(titles, count);
    for (char *line; rest && (line = strsep(&rest, "\n"));) {
        _cleanup_strv_ char **row = split_row(line, columns);
        if (table->processes_count < count && has_pid(pids, count, row[pid_column]))
            add_row(table, steal_ptr(row));
    }
    *ret = table;
    return 0;
}

/* Reads to the end, within the limits. */
static int read_output(int fd, struct buffer *out, struct error *err)
{
    int64_t deadline = clock_milliseconds() + PS_TIME_MS;

    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - clock_milliseconds();
        if (left <= 0 || out->length > PS_OUTPUT_MAX)
            return error_set(err, -EIO, "ps does not come to an end");
        if (poll(&wait, 1, (int)left) <= 0)
            continue;
        buffer_reserve(out, 64 * 1024);
        ssize_t n = read(fd, out->data + out->length, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? error_errno(err, errno, "read what ps says") : 0;
        out->length += (size_t)n;
    }
}

static int run_ps(char *const *arguments, struct buffer *out, struct error *err)
{
    _cleanup_close_ int read_fd = -1, write_fd = -1;
    _cleanup_strv_ char **argv = NULL;
    char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", NULL};
    struct process process;
    int pair[2], status = 0;

    strv_append(&argv, "ps");
    for (; arguments && *arguments; arguments++)
        strv_append(&argv, *arguments);
    if (pipe2(pair, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    read_fd = pair[0];
    write_fd = pair[1];
    const int fds[] = {-1, write_fd, write_fd};
    struct process_spec spec = {.path = "ps",
                                .argv = argv,
                                .environment = environment,
                                .fds = fds,
                                .fds_count = 3,
                                .parent_death_signal = SIGKILL};
    int r = process_spawn(&spec, &process, err);
    if (r == -ENOENT)
        return error_set(err, -EOPNOTSUPP,
                         "there is no ps on this machine: without arguments "
                         "none is needed");
    if (r < 0)
        return r;
    close_fd(steal_fd(&write_fd));
    r = read_output(read_fd, out, err);
    if (r < 0)
        kill(process.pid, SIGKILL);
    int waited = process_wait(&process, &status, r < 0 ? NULL : err);
    if (r < 0 || waited < 0)
        return r < 0 ? r : waited;
    if (status)
        return error_set(err, -EINVAL, "ps: %.*s", (int)strcspn(buffer_text(out), "\n"),
                         buffer_text(out));
    return 0;
}

int processes_list_by_ps(const struct members *whose, char *const *arguments,
                         struct api_processes **ret, struct error *err)
{
    _cleanup_buffer_ struct buffer output = BUFFER_INIT;
    _cleanup_free_ int64_t *pids = NULL;
    size_t count = 0;

    int r = run_ps(arguments, &output, err);
    if (r >= 0)
        r = members_list(whose, PROCESSES_MAX, &pids, &count, err);
    if (r < 0)
        return r;
    _cleanup_free_ char *text = buffer_steal(&output);
    return processes_pick(text, pids, count, ret, err);
}
