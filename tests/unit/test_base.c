#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/clock.h>
#include <base/error.h>
#include <base/file.h>
#include <base/instance.h>
#include <base/log.h>
#include <base/process.h>
#include <base/socket.h>
#include <base/text.h>
#include <base/watch.h>

#include "folder.h"
#include "kernel.h"

struct folder {
    char path[64];
    int fd;
};

static int folder_setup(void **state)
{
    struct folder *folder = xnew(struct folder);

    strcpy(folder->path, "/tmp/cloche-test-base.XXXXXX");
    if (!mkdtemp(folder->path))
        return -1;
    folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = folder;
    return folder->fd < 0 ? -1 : 0;
}

static int folder_teardown(void **state)
{
    struct folder *folder = *state;

    close(folder->fd);
    int r = folder_remove(folder->path);
    free(folder);
    return r;
}

static void error_carries_context_and_hint(void **state)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    assert_int_equal(error_errno(&err, ENOENT, "open %s", "/x"), -ENOENT);
    error_hint(&err, "create it");
    error_context(&err, "load %s", "shop.tar");
    assert_string_equal(error_message(&err), "load shop.tar: open /x: No such file or directory");
    assert_string_equal(err.hint, "create it");
    assert_int_equal(error_set(NULL, -EINVAL, "nobody listens"), -EINVAL);
}

static void error_messages_are_not_overlong(void **state)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *value = xmalloc(200001);

    for (int i = 0; i < 200000; i += 2)
        memcpy(value + i, "\xc3\xa4", 2);
    value[200000] = '\0';
    error_set(&err, -EINVAL, "field: '%s' is wrong", value);
    error_context(&err, "file.json");
    assert_true(strlen(err.message) < 4096);
    assert_memory_equal(err.message, "file.json: field: '\xc3\xa4", 20);
    assert_non_null(strstr(err.message, "\xc3\xa4 ... \xc3\xa4"));
    assert_string_equal(err.message + strlen(err.message) - 12, "\xc3\xa4' is wrong");
}

static void error_set_may_print_the_old_message(void **state)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -EIO, "inner");
    error_set(&err, -EPERM, "outer, because of %s", error_message(&err));
    assert_string_equal(error_message(&err), "outer, because of inner");
    assert_int_equal(err.code, -EPERM);
}

static void buffer_grows_and_consumes(void **state)
{
    _cleanup_buffer_ struct buffer buffer = BUFFER_INIT;

    assert_string_equal(buffer_text(&buffer), "");
    for (int i = 0; i < 1000; i++)
        buffer_printf(&buffer, "%d,", i);
    assert_int_equal(strlen(buffer_text(&buffer)), buffer.length);
    buffer_consume(&buffer, 4);
    assert_true(text_starts_with(buffer_text(&buffer), "2,3,4,"));
    buffer_clear(&buffer);
    assert_string_equal(buffer_text(&buffer), "");
}

static void sizes_are_read_as_docker_reads_them(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {{"0", 0},           {"100", 100},         {"64m", 64 << 20},
                {"64MB", 64 << 20}, {"1.5g", 3ULL << 29}, {"2KiB", 2048},
                {"7b", 7},          {"16 k", 16384}};
    static const char *const bad[] = {"", "m", "-1", "1x", "1mx", "0x10", "1bb"};
    uint64_t size;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(text_to_size(good[i].text, &size), 0);
        assert_int_equal(size, good[i].size);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(text_to_size(bad[i], &size), -EINVAL);
    assert_int_equal(text_to_size("99999999999999999999", &size), -ERANGE);
    assert_int_equal(text_to_size("18014398509481985k", &size), -ERANGE);
}

static void numbers_are_whole_and_in_range(void **state)
{
    uint64_t u;
    int64_t i;

    assert_int_equal(text_to_u64("18446744073709551615", 0, UINT64_MAX, &u), 0);
    assert_int_equal(u, UINT64_MAX);
    assert_int_equal(text_to_u64("18446744073709551616", 0, UINT64_MAX, &u), -ERANGE);
    assert_int_equal(text_to_u64(" 1", 0, 9, &u), -EINVAL);
    assert_int_equal(text_to_u64("+1", 0, 9, &u), -EINVAL);
    assert_int_equal(text_to_u64("1 ", 0, 9, &u), -EINVAL);
    assert_int_equal(text_to_i64("-5", -5, 9, &i), 0);
    assert_int_equal(i, -5);
    assert_int_equal(text_to_i64("-6", -5, 9, &i), -ERANGE);
    assert_int_equal(text_to_i64("--6", -9, 9, &i), -EINVAL);
}

static void what_a_terminal_obeys_becomes_blanks(void **state)
{
    static const struct {
        const char *given, *harmless;
    } cases[] = {
        {"plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x8e\x81",
         "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x8e\x81"},
        {"\x1b[2J\a\x7f\tx\n", " [2J   x\n"},
        {"a\xc2\x9b"
         "31m",
         "a  31m"},
        {"\xe2\x80\xae"
         "b\xe2\x81\xa6"
         "c\xd8\x9c",
         "   b   c  "},
        {"\xff\x9b"
         "3m \xe2\x80",
         "??3m ??"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_free_ char *text = text_make_harmless(xstrdup(cases[i].given), "\n");
        assert_string_equal(text, cases[i].harmless);
    }
    assert_null(text_make_harmless(NULL, ""));
}

static void lists_split_and_join(void **state)
{
    _cleanup_strv_ char **list = strv_split("a::b:", ':');
    _cleanup_free_ char *joined = strv_join(list, "/");

    assert_int_equal(strv_length(list), 4);
    assert_string_equal(joined, "a//b/");
    assert_true(strv_contains(list, ""));
    assert_null(strv_split("", ':'));
}

static void paths_cannot_leave_their_root(void **state)
{
    struct folder *folder = *state;
    const char *name;

    needs_openat2();
    assert_int_equal(mkdirat(folder->fd, "root", 0755), 0);
    _cleanup_close_ int root = openat(folder->fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(symlinkat("/../../etc", root, "absolute"), 0);
    assert_int_equal(symlinkat("../../../../etc", root, "relative"), 0);
    assert_int_equal(symlinkat("/proc/self/root", root, "magic"), 0);
    assert_int_equal(file_open_in_root(root, "absolute/passwd", O_RDONLY, 0), -ENOENT);
    assert_int_equal(file_open_in_root(root, "relative/passwd", O_RDONLY, 0), -ENOENT);
    assert_int_equal(file_open_in_root(root, "../../../etc/passwd", O_RDONLY, 0), -ENOENT);
    assert_int_equal(file_open_in_root(root, "magic/etc/passwd", O_RDONLY, 0), -ENOENT);

    _cleanup_close_ int made = file_mkdir_in_root(root, "/a//b/./c", 0755, NULL);
    assert_true(made >= 0);
    assert_int_equal(faccessat(root, "a/b/c", F_OK, 0), 0);
    /* The target of a dangling link in the way is made inside. */
    _cleanup_close_ int linked = file_mkdir_in_root(root, "absolute/x", 0755, NULL);
    assert_true(linked >= 0);
    assert_int_equal(faccessat(root, "etc/x", F_OK, 0), 0);
    assert_int_equal(symlinkat("loop", root, "loop"), 0);
    assert_int_equal(file_mkdir_in_root(root, "loop/x", 0755, NULL), -ELOOP);
    _cleanup_close_ int parent = file_open_parent_in_root(root, "/a/b/file", 0, &name, NULL);
    assert_true(parent >= 0);
    assert_string_equal(name, "file");
    assert_int_equal(file_open_parent_in_root(root, "a/..", 0, &name, NULL), -EINVAL);
}

static void replace_leaves_old_or_new_and_nothing_else(void **state)
{
    struct folder *folder = *state;
    _cleanup_free_ char *text = NULL;
    size_t length;

    assert_int_equal(file_replace_at(folder->fd, "f", "one", 3, 0600, NULL), 0);
    assert_int_equal(file_replace_at(folder->fd, "f", "two\0x", 5, 0600, NULL), 0);
    assert_int_equal(file_read_at(folder->fd, "f", 5, &text, &length, NULL), 0);
    assert_int_equal(length, 5);
    assert_memory_equal(text, "two\0x", 6);
    assert_int_equal(mkdirat(folder->fd, "d", 0755), 0);
    assert_true(file_replace_at(folder->fd, "d", "x", 1, 0600, NULL) < 0);
    assert_int_equal(unlinkat(folder->fd, "d", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(folder->fd, "f", 0), 0);
    int copy = dup(folder->fd);
    _cleanup_closedir_ DIR *dir = fdopendir(copy);
    rewinddir(dir);
    int entries = 0;
    while (readdir(dir))
        entries++;
    assert_int_equal(entries, 2); /* . and .. */
}

static void read_refuses_more_than_its_limit(void **state)
{
    struct folder *folder = *state;
    _cleanup_error_ struct error err = ERROR_INIT;
    char *text;

    assert_int_equal(file_replace_at(folder->fd, "f", "12345", 5, 0600, NULL), 0);
    assert_int_equal(file_read_at(folder->fd, "f", 4, &text, NULL, &err), -EFBIG);
    assert_string_equal(error_message(&err), "f: larger than the limit of 4 bytes");
}

static void remove_tree_follows_no_links_and_stops_at_mounts(void **state)
{
    struct folder *folder = *state;
    _cleanup_free_ char *tree = xasprintf("%s/tree/a/b", folder->path);
    _cleanup_free_ char *mounted = xasprintf("%s/tree/a", folder->path);

    needs_openat2();
    assert_int_equal(file_mkdir_parents(tree, 0755, NULL), 0);
    assert_int_equal(file_replace_at(folder->fd, "keep", "x", 1, 0600, NULL), 0);
    assert_int_equal(symlinkat("../keep", folder->fd, "tree/link"), 0);
    if (geteuid() == 0 && mount("none", mounted, "tmpfs", 0, "size=4k") == 0) {
        assert_int_equal(file_remove_tree_at(folder->fd, "tree", NULL), -EBUSY);
        assert_int_equal(umount2(mounted, MNT_DETACH), 0);
    }
    assert_int_equal(file_remove_tree_at(folder->fd, "tree", NULL), 0);
    assert_int_equal(faccessat(folder->fd, "tree", F_OK, 0), -1);
    assert_int_equal(faccessat(folder->fd, "keep", F_OK, 0), 0);
    assert_int_equal(file_remove_tree_at(folder->fd, "tree", NULL), 0);
}

/* In each of so many folders a file and a folder of the name of the one below. */
static void make_deep(int dir_fd, int depth)
{
    int fd = dup(dir_fd);

    for (int i = 0; i < depth; i++) {
        assert_int_equal(mkdirat(fd, "d", 0755), 0);
        int below = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(below >= 0);
        close(fd);
        fd = below;
        assert_int_equal(file_replace_at(fd, "f", "x", 1, 0600, NULL), 0);
    }
    close(fd);
}

static void remove_tree_needs_few_descriptors_for_a_deep_one(void **state)
{
    struct folder *folder = *state;
    struct rlimit limit, few;

    needs_openat2();
    make_deep(folder->fd, 1500);
    assert_int_equal(mkdirat(folder->fd, "d/.removed-0", 0700), 0); /* a name that is taken */
    assert_int_equal(file_replace_at(folder->fd, "d/.removed-0/f", "x", 1, 0600, NULL), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = (struct rlimit){200, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int r = file_remove_tree_at(folder->fd, "d", NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(r, 0);
    assert_int_equal(faccessat(folder->fd, "d", F_OK, 0), -1);
}

static void spawned_child_gets_only_its_descriptors(void **state)
{
    char *argv[] = {"sh", "-c", "ls /proc/self/fd | wc -l; echo $X; exit 7", NULL};
    char *environment[] = {"PATH=/usr/bin:/bin", "X=y", NULL};
    int pipe_fds[2], leaked = open("/dev/null", O_RDONLY), status;
    struct process process;
    char output[64] = "";

    needs_shared_memory();
    assert_int_equal(pipe(pipe_fds), 0);
    int fds[] = {-1, pipe_fds[1], STDERR_FILENO};
    struct process_spec spec = {
        .path = "/bin/sh", .argv = argv, .environment = environment, .fds = fds, .fds_count = 3};
    assert_int_equal(process_spawn(&spec, &process, NULL), 0);
    close(pipe_fds[1]);
    assert_int_equal(process_wait(&process, &status, NULL), 0);
    assert_int_equal(process_exit_code(status), 7);
    assert_true(read(pipe_fds[0], output, sizeof(output) - 1) > 0);
    assert_string_equal(output, "4\ny\n"); /* 0 1 2 and ls's own */
    close(pipe_fds[0]);
    close(leaked);
}

static void spawn_reports_a_missing_program(void **state)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    char *argv[] = {"none", NULL};
    int fds[] = {-1, -1, -1};
    struct process_spec spec = {
        .path = "/nonexistent/none", .argv = argv, .fds = fds, .fds_count = 3};
    struct process process;

    needs_shared_memory();
    assert_int_equal(process_spawn(&spec, &process, &err), -ENOENT);
    assert_string_equal(error_message(&err),
                        "execute /nonexistent/none: No such file or directory");
}

static void sockets_carry_descriptors(void **state)
{
    struct folder *folder = *state;
    int pair[2], received[2];
    size_t count = 2;
    char text[8];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    int sent[] = {folder->fd, pair[0]};
    assert_int_equal(socket_send(pair[0], "hi", 2, sent, 2), 2);
    assert_int_equal(socket_receive(pair[1], text, sizeof(text), received, &count), 2);
    assert_int_equal(count, 2);
    assert_true(fcntl(received[0], F_GETFD) & FD_CLOEXEC);
    close(received[0]);
    close(received[1]);

    /* More than there is room for: refused, and none of them leaks. */
    int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(probe);
    assert_int_equal(socket_send(pair[0], "hi", 2, sent, 2), 2);
    count = 1;
    assert_int_equal(socket_receive(pair[1], text, sizeof(text), received, &count), -EMSGSIZE);
    int again = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(again, probe);
    close(again);
    close(pair[0]);
    close(pair[1]);
}

static void long_socket_paths_work(void **state)
{
    struct folder *folder = *state;
    char deep[256];

    memset(deep, 'd', 120);
    deep[120] = '\0';
    _cleanup_free_ char *directory = xasprintf("%s/%s", folder->path, deep);
    _cleanup_free_ char *path = xasprintf("%s/s.sock", directory);
    assert_int_equal(mkdir(directory, 0700), 0);
    _cleanup_close_ int listener = socket_listen_unix(path, SOCK_STREAM, 0600, NULL);
    assert_true(listener >= 0);
    _cleanup_close_ int client = socket_connect_unix(path, SOCK_STREAM, NULL);
    assert_true(client >= 0);
}

static void log_lines_are_json_off_a_terminal(void **state)
{
    int pipe_fds[2];
    char line[512] = "";

    assert_int_equal(pipe(pipe_fds), 0);
    log_configure("test", pipe_fds[1], LOG_INFO, LOG_FORMAT_AUTO);
    log_debug("not shown");
    log_warning("a \"quote\"\n\033[2J");
    assert_true(read(pipe_fds[0], line, sizeof(line) - 1) > 0);
    assert_non_null(strstr(line, "\"level\":\"warning\",\"program\":\"test\","
                                 "\"message\":\"a \\\"quote\\\"\\n\\u001b[2J\"}\n"));
    assert_null(strstr(line, "not shown"));
    log_configure("test", STDERR_FILENO, LOG_INFO, LOG_FORMAT_AUTO);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void instances_never_share_a_name(void **state)
{
    struct instance one, two;
    _cleanup_error_ struct error err = ERROR_INIT;

    unsetenv("CLOCHE_INSTANCE");
    assert_int_equal(instance_init(&one, NULL, NULL), 0);
    assert_int_equal(instance_init(&two, "t-1", NULL), 0);
    assert_string_equal(one.socket, "/run/cloche/cloche.sock");
    assert_string_equal(two.root, "/var/lib/cloche-t-1");
    assert_string_equal(two.bridge, "clo-t-1");
    assert_string_equal(two.nft_table, "cloche_t_1");
    instance_finish(&one);
    instance_finish(&two);
    assert_int_equal(instance_init(&one, "../etc", &err), -EINVAL);
    assert_int_equal(instance_init(&one, "waytoolong", &err), -EINVAL);
    assert_int_equal(instance_init(&one, "-a", &err), -EINVAL);
}

static void times_are_written_and_read(void **state)
{
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "2026-11-20T10:00:00",
                                      "2026-11-20 10:00:00Z",
                                      "2026-13-20T10:00:00Z",
                                      "2026-11-20T10:00:00+2:00",
                                      "2026-11-20T10:00:00+02:00x",
                                      "2262-01-01T00:00:00Z",
                                      "1970-01-01T00:00:00+01:00",
                                      "2026-11-20T25:00:00Z",
                                      "2026-11-20T10:00:00-:::::"};
    int64_t time, later;

    assert_int_equal(clock_parse("2026-11-20T10:00:00.25Z", &time), 0);
    _cleanup_free_ char *text = clock_format(time);
    assert_string_equal(text, "2026-11-20T10:00:00.250000000Z");
    assert_int_equal(clock_parse("2026-11-20T08:30:00.25-01:30", &later), 0);
    assert_int_equal(later, time);
    assert_int_equal(clock_parse("1970-01-01T00:00:00Z", &time), 0);
    assert_int_equal(time, 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(clock_parse(bad[i], &time), -EINVAL);
    assert_int_equal(clock_parse(NULL, &time), -EINVAL);
}

static void times_are_those_of_the_c_library(void **state)
{
    for (int64_t second = 0; second < INT64_C(9214646400); second += 86400 * 13 + 3671) {
        time_t at = (time_t)second;
        char expected[64];
        int64_t back;
        struct tm tm;

        gmtime_r(&at, &tm);
        strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.000000007Z", &tm);
        _cleanup_free_ char *text = clock_format(second * CLOCK_SECOND + 7);
        assert_string_equal(text, expected);
        assert_int_equal(clock_parse(text, &back), 0);
        assert_int_equal(back, second * CLOCK_SECOND + 7);
    }
}

static void watches_say_what_holds_them(void **state)
{
    enum { PIPE = 7 };
    struct holder {
        int number;
        struct watch watch;
    } holder = {42, WATCH_INIT};
    _cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event;
    int pipe_fds[2];

    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(watch_add(epoll_fd, &holder.watch, PIPE, pipe_fds[0], EPOLLIN), 0);
    assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 1);
    struct watch *watch = event.data.ptr;
    assert_int_equal(watch->type, PIPE);
    assert_int_equal(watch_owner(watch, struct holder, watch)->number, 42);

    /* With no events asked for, not even the other end's closing is told. */
    assert_int_equal(watch_set(epoll_fd, watch, 0), 0);
    close(pipe_fds[1]);
    assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
    watch_close(epoll_fd, watch);
    assert_int_equal(watch->fd, -1);
    assert_int_equal(fcntl(pipe_fds[0], F_GETFD), -1);
    watch_close(epoll_fd, watch);

    /* A regular file cannot be polled: the descriptor is taken over and closed all the same. */
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(watch_add(epoll_fd, &holder.watch, PIPE, file, EPOLLIN), -EPERM);
    assert_int_equal(fcntl(file, F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_carries_context_and_hint),
        cmocka_unit_test(error_messages_are_not_overlong),
        cmocka_unit_test(error_set_may_print_the_old_message),
        cmocka_unit_test(buffer_grows_and_consumes),
        cmocka_unit_test(sizes_are_read_as_docker_reads_them),
        cmocka_unit_test(numbers_are_whole_and_in_range),
        cmocka_unit_test(lists_split_and_join),
        cmocka_unit_test(what_a_terminal_obeys_becomes_blanks),
        cmocka_unit_test_setup_teardown(paths_cannot_leave_their_root, folder_setup,
                                        folder_teardown),
        cmocka_unit_test_setup_teardown(replace_leaves_old_or_new_and_nothing_else, folder_setup,
                                        folder_teardown),
        cmocka_unit_test_setup_teardown(read_refuses_more_than_its_limit, folder_setup,
                                        folder_teardown),
        cmocka_unit_test_setup_teardown(remove_tree_needs_few_descriptors_for_a_deep_one,
                                        folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(remove_tree_follows_no_links_and_stops_at_mounts,
                                        folder_setup, folder_teardown),
        cmocka_unit_test(spawned_child_gets_only_its_descriptors),
        cmocka_unit_test(spawn_reports_a_missing_program),
        cmocka_unit_test_setup_teardown(sockets_carry_descriptors, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(long_socket_paths_work, folder_setup, folder_teardown),
        cmocka_unit_test(log_lines_are_json_off_a_terminal),
        cmocka_unit_test(instances_never_share_a_name),
        cmocka_unit_test(times_are_written_and_read),
        cmocka_unit_test(times_are_those_of_the_c_library),
        cmocka_unit_test(watches_say_what_holds_them),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
