/* Where the peers of a socket are, as the files of /proc say it. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "peer.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char mounts[] =
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "30 22 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
    "31 22 0:27 /docker/outer /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 22 0:27 /docker/outer /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "33 22 0:28 /.. /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "34 22 0:29 /some/where /mnt rw - ext4 /dev/sdb rw";

static void containers_are_found_below_our_own_cgroups(void **state)
{
    static const struct {
        const char *cgroups;
        bool inside;
    } cases[] = {
        {"0::/cloche/" ID "\n", true},
        {"5:cpu,cpuacct:/\n1:name=systemd:/cloche/" ID "/init.scope\n", true},
        {"5:cpu:/docker/outer/cloche/" ID "\n", true},
        {"5:cpu:/docker/other/cloche/" ID "\n", false},
        {"5:cpu:/user.slice/cloche/" ID "\n", false}, /* whoever makes such a group */
        {"5:cpu:/some/where/cloche/" ID "\n", false},
        {"5:cpu:/cloche/0123\n", false},
        {"5:cpu:/cloche/\n0::/" ID "\n", false},
        {"5:cpu:/docker/outer/cloche", false},
        {"", false},
    };
    _cleanup_strv_ char **prefixes = peer_prefixes(mounts, "cloche");
    char id[PEER_CONTAINER_DIGITS + 1];

    assert_int_equal(strv_length(prefixes), 2);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (peer_container(cases[i].cgroups, prefixes, id) != cases[i].inside)
            fail_msg("%s", cases[i].cgroups);
        if (cases[i].inside)
            assert_string_equal(id, ID);
    }
}

static void *stay(void *data)
{
    while (data)
        pause();
    return data;
}

/* The first thread ends, another stays: the process lives, and its cgroups are not told any more
 * on version 1. */
static void a_process_whose_first_thread_has_ended_is_ending(void **state)
{
    _cleanup_free_ char *own = NULL;
    bool ending = false;

    assert_int_equal(file_read_at(AT_FDCWD, "/proc/self/stat", 4096, &own, NULL, NULL), 0);
    assert_false(peer_is_ending(own));
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, stay, state);
        syscall(SYS_exit, 0);
    }
    _cleanup_free_ char *path = xasprintf("/proc/%d/stat", (int)pid);
    for (int i = 0; i < 5000 && !ending; i++) {
        _cleanup_free_ char *its = NULL;
        assert_int_equal(file_read_at(AT_FDCWD, path, 4096, &its, NULL, NULL), 0);
        ending = peer_is_ending(its);
        usleep(1000);
    }
    assert_true(ending);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void names_do_not_hide_that_a_process_is_ending(void **state)
{
    assert_false(peer_is_ending("7 (a) Z 1 2) S 1 7 7 0 -1 4194304 100"));
    assert_true(peer_is_ending("7 (a) S 1 7 7 0 -1 0 1) Z 1 7 7 0 -1 4194308 100"));
    assert_true(peer_is_ending("7 (a) S 1 7"));
    assert_true(peer_is_ending(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(containers_are_found_below_our_own_cgroups),
        cmocka_unit_test(a_process_whose_first_thread_has_ended_is_ending),
        cmocka_unit_test(names_do_not_hide_that_a_process_is_ending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
