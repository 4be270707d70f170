/* The monitor's log writer and status file; the rest of it is in tests/integration/test_monitor.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/file.h>
#include <monitor/status.h>

#include "monitor_internal.h"
#include "folder.h"

static char folder[] = "/tmp/cloche-test-monitor-XXXXXX";
static int folder_fd = -1;
static char *log_path;
static char log_text[LOG_TEXT_SIZE];

static int set_up(void **state)
{
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    folder_fd = open(folder, O_RDONLY | O_DIRECTORY);
    log_path = xasprintf("%s/log", folder);
    return 0;
}

static int tear_down(void **state)
{
    close(folder_fd);
    free(log_path);
    return folder_remove(folder);
}

/* The log without its times: "stdout F text\n"... Checks that each has the fixed length. */
static char *read_log(void)
{
    _cleanup_free_ char *text = NULL;
    struct buffer out = BUFFER_INIT;
    size_t length;

    assert_int_equal(file_read_at(AT_FDCWD, log_path, 1 << 20, &text, &length, NULL), 0);
    for (char *line = text, *end; line < text + length; line = end + 1) {
        assert_true(text + length - line >= LOG_PREFIX_LENGTH);
        assert_int_equal(line[19], '.');
        assert_memory_equal(line + 29, "Z ", 2);
        end = memchr(line, '\n', (size_t)(text + length - line));
        assert_non_null(end);
        buffer_append(&out, line + 31, (size_t)(end - line) - 30);
    }
    return buffer_steal(&out);
}

static void lines_and_pieces(void **state)
{
    static const char expected[] = "stdout F one\nstdout F two\nstdout P begin\nstderr F between\n"
                                   "stdout F  end\nstdout F \nstdout F a\0b\rc\n";
    _cleanup_free_ char *text = NULL;
    struct container_log log;

    assert_int_equal(container_log_open(&log, log_path, log_text, NULL), 0);
    container_log_append(&log, STREAM_STDOUT, "one\ntwo\n", 8);
    container_log_append(&log, STREAM_STDOUT, "begin", 5);
    container_log_append(&log, STREAM_STDERR, "between\n", 8);
    container_log_append(&log, STREAM_STDOUT, " end\n\n", 6);
    container_log_append(&log, STREAM_STDOUT, "a\0b\rc\n", 6);
    text = read_log();
    assert_memory_equal(text, expected, sizeof(expected));
    struct stat status;
    assert_int_equal(fstat(log.file->fd, &status), 0);
    assert_int_equal(log.file->size, status.st_size);
    container_log_close(&log);
}

/* A line of exactly the limit is whole, one more byte makes it two. */
static void the_limit_of_a_line(void **state)
{
    char data[2 * LOG_LINE_MAX];
    struct container_log log;
    _cleanup_free_ char *text = NULL;

    memset(data, 'x', sizeof(data));
    assert_int_equal(container_log_open(&log, log_path, log_text, NULL), 0);
    data[LOG_LINE_MAX] = '\n';
    container_log_append(&log, STREAM_STDOUT, data, LOG_LINE_MAX + 1);
    assert_int_equal(log.file->size, LOG_PREFIX_LENGTH + LOG_LINE_MAX + 1);
    data[LOG_LINE_MAX] = 'x';
    data[LOG_LINE_MAX + 1] = '\n';
    container_log_append(&log, STREAM_STDOUT, data, LOG_LINE_MAX + 2);
    assert_int_equal(log.file->size, 3 * (LOG_PREFIX_LENGTH + 1) + 2 * LOG_LINE_MAX + 1);
    text = read_log();
    assert_memory_equal(text + LOG_LINE_MAX + 10, "stdout P xxx", 12);
    assert_string_equal(text + 2 * (LOG_LINE_MAX + 10), "stdout F x\n");
    container_log_close(&log);
}

static void times_are_true(void **state)
{
    struct container_log log;
    _cleanup_free_ char *text = NULL;
    struct tm tm = {0};
    time_t before = time(NULL);

    assert_int_equal(container_log_open(&log, log_path, log_text, NULL), 0);
    container_log_append(&log, STREAM_STDOUT, "x\n", 2);
    assert_int_equal(file_read_at(AT_FDCWD, log_path, 4096, &text, NULL, NULL), 0);
    assert_non_null(strptime(text, "%Y-%m-%dT%H:%M:%S.", &tm));
    assert_true(timegm(&tm) - before <= 1 && timegm(&tm) >= before);
    container_log_close(&log);
}

static void a_torn_line_is_ended(void **state)
{
    struct container_log log;
    _cleanup_free_ char *text = NULL;

    assert_int_equal(file_replace_at(AT_FDCWD, log_path, "torn", 4, 0600, NULL), 0);
    assert_int_equal(container_log_open(&log, log_path, log_text, NULL), 0);
    assert_int_equal(log.file->size, 5);
    container_log_append(&log, STREAM_STDOUT, "x\n", 2);
    assert_int_equal(file_read_at(AT_FDCWD, log_path, 4096, &text, NULL, NULL), 0);
    assert_memory_equal(text, "torn\n2", 6);
    container_log_close(&log);
}

/* RLIMIT_FSIZE as a disk that is full in the middle of a line. */
static void a_full_disk_leaves_whole_lines(void **state)
{
    struct rlimit before, limit;
    struct container_log log;
    char data[1000];
    struct stat status;

    memset(data, 'x', sizeof(data));
    data[999] = '\n';
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){.rlim_cur = 1500, .rlim_max = before.rlim_max};
    assert_int_equal(container_log_open(&log, log_path, log_text, NULL), 0);
    assert_int_equal(container_log_append(&log, STREAM_STDOUT, data, 1000), 0);
    log.failing = true; /* the complaint is not of interest here */
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_true(container_log_append(&log, STREAM_STDOUT, data, 1000) < 0);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(fstat(log.file->fd, &status), 0);
    assert_int_equal(status.st_size, 1040);
    assert_int_equal(log.file->size, 1040);
    container_log_close(&log);
}

static void write_status(const char *text)
{
    assert_int_equal(file_replace_at(folder_fd, "status", text, strlen(text), 0600, NULL), 0);
}

static void status_there_and_back(void **state)
{
    struct monitor_status status = {.state = MONITOR_STATE_EXITED,
                                    .monitor_pid = 12,
                                    .exit_code = 137,
                                    .oom = 1,
                                    .started = 18446744073709551615U,
                                    .finished = 5};
    struct monitor_status read_back;
    struct buffer text = BUFFER_INIT;
    char *error = NULL;

    monitor_status_format(&status, 4711, "it\nbroke", &text);
    write_status(text.data);
    assert_int_equal(monitor_status_read(folder_fd, &read_back, &error, NULL), 0);
    assert_memory_equal(&status, &read_back, sizeof(status));
    assert_string_equal(error, "it broke");
    free(error);
    uint64_t started = 0;
    assert_int_equal(monitor_status_read_monitor(folder_fd, &read_back, &started, NULL), 0);
    assert_memory_equal(&status, &read_back, sizeof(status));
    assert_int_equal(started, 4711);
    buffer_finish(&text);
}

static void malformed_status(void **state)
{
    static const struct {
        const char *text;
        int code;
    } cases[] = {
        {"", -EBADMSG},
        {"state=exited\n", -EBADMSG},
        {"version=x\nstate=exited\n", -EBADMSG},
        {"version=2\nstate=exited\n", -EPROTONOSUPPORT},
        {"version=1\n", -EBADMSG},
        {"version=1\nstate=asleep\n", -EBADMSG},
        {"version=1\nstate=exited\nexit_code=x\n", -EBADMSG},
        {"version=1\nstate=exited\nexit_code=99999999999\n", -EBADMSG},
        {"version=1\nstate=exited\nno equals\n", -EBADMSG},
        {"version=1\nstate=exited\nfuture=1\n", 0},
    };
    struct monitor_status status;

    assert_int_equal(monitor_status_read(folder_fd, &status, NULL, NULL), -ENOENT);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        write_status(cases[i].text);
        assert_int_equal(monitor_status_read(folder_fd, &status, NULL, NULL), cases[i].code);
    }
}

#define folder_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        folder_test(lines_and_pieces),
        folder_test(the_limit_of_a_line),
        folder_test(times_are_true),
        folder_test(a_torn_line_is_ended),
        folder_test(a_full_disk_leaves_whole_lines),
        folder_test(status_there_and_back),
        folder_test(malformed_status),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
