/*
 * A program that embeds libcloche-runtime, for test_runtime_library.py. It has the public header
 * and nothing else of the tree.
 *
 * usage: runtime_embed ROOT BUNDLE ID SCENARIO
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime_embed.h"

enum { THREADS = 4, THREADS_MAX = 8 };

const char *root, *bundle, *id;
static char **arguments;
static atomic_bool stop;

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

void check(struct cloche_runtime *runtime, int result, const char *what)
{
    if (result >= 0)
        return;
    const char *hint = cloche_runtime_hint(runtime);
    fprintf(stderr, "%s: %s (%d)%s%s\n", what, cloche_runtime_error(runtime), result,
            hint ? "; " : "", hint ? hint : "");
    exit(1);
}

static void take_log(void *context, enum cloche_runtime_level level, const char *text)
{
    if (level == CLOCHE_RUNTIME_WARNING)
        fprintf(context, "warning: %s\n", text);
}

struct cloche_runtime *open_runtime(bool direct)
{
    const struct cloche_runtime_settings settings = {.size = sizeof(settings),
                                                     .root = root,
                                                     .direct = direct,
                                                     .log = take_log,
                                                     .context = stdout};
    struct cloche_runtime *runtime;

    if (cloche_runtime_open(&settings, &runtime) < 0)
        fail("open");
    return runtime;
}

/* What a call must not change in the caller, as one line. */
static void describe_caller(char *out, size_t size)
{
    static const char *const spaces[] = {
        "pid_for_children", "time_for_children", "mnt", "net", "user", "cgroup"};
    size_t length = 0, count = 0;
    sigset_t mask;

    for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++) {
        char path[64];
        struct stat status;
        snprintf(path, sizeof(path), "/proc/self/ns/%s", spaces[i]);
        if (stat(path, &status) == 0)
            length +=
                (size_t)snprintf(out + length, size - length, "%lu ", (unsigned long)status.st_ino);
    }
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    snprintf(out + length, size - length, "fds %zu dumpable %d usr1 %d", count,
             prctl(PR_GET_DUMPABLE), sigismember(&mask, SIGUSR1));
}

/* Under a sanitizer the thread only is there: neither its allocations nor its start or end may fall
 * into a fork of the library's (runtime_embed.h, enter()). */
static void *allocate_always(void *started)
{
    sem_post(started);
    while (!atomic_load(&stop))
        if (EMBED_SANITIZED)
            usleep(10000);
        else
            free(malloc(100 + (size_t)rand() % 100000));
    return NULL;
}

static void life(void)
{
    char before[512], after[512];
    struct cloche_runtime_info *info;
    pthread_t thread;
    pid_t *pids;
    size_t count;
    int code, status, pipe_fds[2];
    char text[256] = "";
    sem_t started;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sem_init(&started, 0, 0);
    pthread_create(&thread, NULL, allocate_always, &started);
    while (sem_wait(&started) < 0)
        ;
    struct cloche_runtime *runtime = open_runtime(false);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        fail("pipe");
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    describe_caller(before, sizeof(before));
    const int stdio[3] = {null, pipe_fds[1], pipe_fds[1]};
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = bundle, .stdio = stdio};
    check(runtime, cloche_runtime_create(runtime, &options), "create");
    check(runtime, cloche_runtime_start(runtime, id, NULL), "start");
    if (read(pipe_fds[0], text, sizeof(text) - 1) < 0)
        fail("read");
    printf("container: %s", text);
    check(runtime, cloche_runtime_state(runtime, id, &info), "state");
    printf("status: %s\n", cloche_runtime_status_name(info->status));
    char *const args[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char[]){"exit 7"}, NULL};
    const struct cloche_runtime_exec_options further = {
        .size = sizeof(further), .id = id, .args = args, .stdio = stdio};
    check(runtime, cloche_runtime_exec(runtime, &further, &code), "exec");
    printf("exec: %d\n", code);
    check(runtime, cloche_runtime_processes(runtime, id, &pids, &count), "processes");
    printf("processes: %zu, the first %s\n", count, pids[0] == info->pid ? "as in state" : "other");
    free(pids);
    check(runtime, cloche_runtime_pause(runtime, id), "pause");
    check(runtime, cloche_runtime_resume(runtime, id), "resume");
    check(runtime, cloche_runtime_kill(runtime, id, SIGKILL, 0), "kill");
    if (waitpid(info->pid, &status, 0) != info->pid)
        fail("the container's process is not a child of the subreaper");
    printf("ended by signal %d\n", WTERMSIG(status));
    check(runtime, cloche_runtime_delete(runtime, id, 0), "delete");
    cloche_runtime_info_free(info);
    describe_caller(after, sizeof(after));
    printf("caller: %s\n", strcmp(before, after) == 0 ? "unchanged" : after);
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
        fail("a child is left");
    cloche_runtime_close(runtime);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

struct member {
    pthread_barrier_t *all_here;
    void (*function)(int number);
    int number;
};

static void *run_member(void *argument)
{
    struct member *self = argument;

    pthread_barrier_wait(self->all_here);
    self->function(self->number);
    pthread_barrier_wait(self->all_here); /* none ends while one forks */
    return NULL;
}

void run_threads(int count, void (*function)(int number))
{
    pthread_t threads[THREADS_MAX];
    struct member members[THREADS_MAX];
    pthread_barrier_t all_here;

    if (count > THREADS_MAX)
        fail("too many threads");
    pthread_barrier_init(&all_here, NULL, (unsigned)count);
    for (int i = 0; i < count; i++) {
        members[i] = (struct member){&all_here, function, i};
        pthread_create(&threads[i], NULL, run_member, &members[i]);
    }
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&all_here);
}

static void run_one(int number)
{
    char name[128], text[8] = "";
    int code, fds[2];

    enter(true);
    struct cloche_runtime *runtime = open_runtime(false);
    snprintf(name, sizeof(name), "%s-%d", id, number);
    if (pipe2(fds, O_CLOEXEC) < 0)
        fail("pipe");
    const int stdio[3] = {fds[0], fds[1], 2};
    char path[4096];
    snprintf(path, sizeof(path), "%s-%d", bundle, number);
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = name, .bundle = path, .stdio = stdio};
    check(runtime, cloche_runtime_run(runtime, &options, &code), "run");
    if (read(fds[0], text, sizeof(text) - 1) < 0)
        fail("read");
    if (code != number || atoi(text) != number)
        fail("another container's output or exit code");
    close(fds[0]);
    close(fds[1]);
    cloche_runtime_close(runtime);
    leave();
}

static void threads(void)
{
    run_threads(THREADS, run_one);
    printf("%d ran\n", THREADS);
}

static void direct(void)
{
    struct cloche_runtime *runtime = open_runtime(true);
    struct cloche_runtime_info *info;
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = bundle};
    int status;

    check(runtime, cloche_runtime_create(runtime, &options), "create");
    check(runtime, cloche_runtime_state(runtime, id, &info), "state");
    check(runtime, cloche_runtime_start(runtime, id, NULL), "start");
    if (waitpid(info->pid, &status, 0) != info->pid)
        fail("the container's process is not a child");
    printf("exit code %d\n", WEXITSTATUS(status));
    check(runtime, cloche_runtime_delete(runtime, id, 0), "delete");
    cloche_runtime_info_free(info);
    cloche_runtime_close(runtime);
}

static void expect(struct cloche_runtime *runtime, int result, int expected, const char *what)
{
    if (result != expected) {
        fprintf(stderr, "%s: %d in place of %d\n", what, result, expected);
        exit(1);
    }
    printf("%s\n", result < 0 ? cloche_runtime_error(runtime) : "done");
}

static void errors(void)
{
    struct cloche_runtime *runtime = open_runtime(false);
    const struct cloche_runtime_settings relative = {.size = sizeof(relative), .root = "relative"};
    const int wrong[3] = {0, 999, 2};
    struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = "/nowhere"};
    struct cloche_runtime_info *info;
    char **list;

    if (cloche_runtime_open(&relative, &runtime) != -EINVAL)
        fail("a relative root was taken");
    expect(runtime, cloche_runtime_state(runtime, id, &info), -ENOENT, "no container");
    expect(runtime, cloche_runtime_create(runtime, &options), -ENOENT, "no bundle");
    options.bundle = bundle;
    options.stdio = wrong;
    expect(runtime, cloche_runtime_create(runtime, &options), -EBADF, "closed descriptors");
    options.stdio = NULL;
    options.detach = true;
    check(runtime, cloche_runtime_run(runtime, &options, &(int){0}), "run");
    expect(runtime, cloche_runtime_create(runtime, &options), -EEXIST, "a second one");
    expect(runtime, cloche_runtime_delete(runtime, id, 0), -EBUSY, "a running one");
    check(runtime, cloche_runtime_delete(runtime, id, CLOCHE_RUNTIME_DELETE_FORCE), "delete");
    check(runtime, cloche_runtime_list(runtime, &list), "list");
    printf("left: %s\n", list && list[0] ? list[0] : "none");
    cloche_runtime_list_free(list);
    cloche_runtime_close(runtime);
}

/* A program that was compiled with another version of the header. */
static void versions(void)
{
    struct newer {
        struct cloche_runtime_create_options known;
        void *unknown;
    } newer = {.known = {.size = sizeof(newer), .id = id, .bundle = "/nowhere"}};
    struct cloche_runtime_create_options *options = &newer.known;
    struct cloche_runtime *runtime = open_runtime(false);

    expect(runtime, cloche_runtime_create(runtime, options), -ENOENT, "nothing new used");
    newer.unknown = runtime;
    expect(runtime, cloche_runtime_create(runtime, options), -E2BIG, "something new used");
    options->size = 0;
    expect(runtime, cloche_runtime_create(runtime, options), -EINVAL, "no size");
    options->size = offsetof(struct cloche_runtime_create_options, config);
    options->config = "/nowhere/config.json";
    options->bundle = bundle;
    expect(runtime, cloche_runtime_create(runtime, options), 0, "an older one, without config");
    expect(runtime, cloche_runtime_kill(runtime, id, 0, 1U << 31), -EINVAL, "an unknown flag");
    check(runtime, cloche_runtime_delete(runtime, id, CLOCHE_RUNTIME_DELETE_FORCE), "delete");
    cloche_runtime_close(runtime);
}

enum { ENOUGH = 7, ENOUGH_EVENTS = 2 };

static int take_event(void *context, const char *json)
{
    int *count = context;

    if (!strstr(json, "\"type\":\"stats\"") || !strstr(json, id))
        fail(json);
    return ++*count == ENOUGH_EVENTS ? ENOUGH : 0;
}

static void *kill_later(void *handle)
{
    usleep(100000);
    check(handle, cloche_runtime_kill(handle, id, SIGKILL, 0), "kill");
    return NULL;
}

/* The three ends of a watch: the caller's word, its descriptor, and the container's end. */
static void watch(void)
{
    struct cloche_runtime *runtime = open_runtime(false), *other = open_runtime(false);
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = bundle, .detach = true};
    int fds[2], count = 0;
    struct cloche_runtime_events_options events = {
        .size = sizeof(events), .interval_ms = 20, .event = take_event, .context = &count};
    pthread_t thread;

    check(runtime, cloche_runtime_run(runtime, &options, &(int){0}), "run");
    printf("%d\n", cloche_runtime_events(runtime, id, &events));
    if (pipe2(fds, O_CLOEXEC) < 0 || write(fds[1], "", 1) != 1)
        fail("pipe");
    events.stop_fd = &fds[0];
    events.interval_ms = 60000;
    printf("%d\n", cloche_runtime_events(runtime, id, &events));
    events.stop_fd = NULL;
    pthread_create(&thread, NULL, kill_later, other);
    printf("%d\n", cloche_runtime_events(runtime, id, &events));
    pthread_join(thread, NULL);
    printf("%s\n", cloche_runtime_pidfd(runtime, id) == -ESRCH ? "ended" : "not ended");
    const struct cloche_runtime_criu_options criu = {
        .size = sizeof(criu), .id = id, .criu = "/nowhere/criu"};
    printf("%s\n", cloche_runtime_checkpoint(runtime, &criu) < 0 ? cloche_runtime_error(runtime)
                                                                 : "a checkpoint of nothing");
    check(runtime, cloche_runtime_delete(runtime, id, 0), "delete");
    cloche_runtime_close(other);
    cloche_runtime_close(runtime);
}

/* In a program that lets nobody else have the ends of its children. */
static void reaper(void)
{
    struct cloche_runtime *runtime = open_runtime(false);
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = bundle};
    char *const args[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char[]){"exit 7"}, NULL};
    const struct cloche_runtime_exec_options further = {
        .size = sizeof(further), .id = id, .args = args};
    int code;

    signal(SIGCHLD, SIG_IGN); /* they do not even become zombies */
    check(runtime, cloche_runtime_create(runtime, &options), "create");
    check(runtime, cloche_runtime_start(runtime, id, NULL), "start");
    check(runtime, cloche_runtime_exec(runtime, &further, &code), "exec");
    check(runtime, cloche_runtime_delete(runtime, id, CLOCHE_RUNTIME_DELETE_FORCE), "delete");
    cloche_runtime_close(runtime);
    printf("exec: %d\n", code);
}

/* The next descriptor is not open: nothing of the library's may come to lie there. */
static void preserve(void)
{
    int code, first = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char *const args[] = {(char[]){"/bin/sh"}, (char[]){"-c"},
                          (char[]){"echo forged >&3 && exit 1; echo \"$(ls /proc/self/fd)\""},
                          NULL};
    struct cloche_runtime *runtime = open_runtime(false);
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = bundle};
    const struct cloche_runtime_exec_options further = {
        .size = sizeof(further), .id = id, .args = args, .preserve_fds = 8};

    for (int fd = 3; fd <= first; fd++)
        close(fd);
    check(runtime, cloche_runtime_create(runtime, &options), "create");
    check(runtime, cloche_runtime_start(runtime, id, NULL), "start");
    check(runtime, cloche_runtime_exec(runtime, &further, &code), "exec");
    printf("exec: %d\n", code);
    check(runtime, cloche_runtime_delete(runtime, id, CLOCHE_RUNTIME_DELETE_FORCE), "delete");
    cloche_runtime_close(runtime);
}

static void seal(void)
{
    struct statvfs status;
    int fd;

    int r = cloche_runtime_seal(arguments, 0);
    if (r < 0)
        fail(strerror(-r));
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstatvfs(fd, &status) < 0)
        fail("open /proc/self/exe");
    printf("%s\n", status.f_flag & ST_RDONLY || fcntl(fd, F_GET_SEALS) > 0 ? "sealed" : "open");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {
        {"life", life},
        {"threads", threads},
        {"direct", direct},
        {"errors", errors},
        {"versions", versions},
        {"reaper", reaper},
        {"watch", watch},
        {"preserve", preserve},
        {"seal", seal},
        {"stress", stress},
        {"repeat-direct", repeat_direct},
        {"repeat-in-forks", repeat_in_forks},
    };

    if (argc != 5)
        fail("usage: runtime_embed ROOT BUNDLE ID SCENARIO");
    setvbuf(stdout, NULL, _IONBF, 0);
    root = argv[1];
    bundle = argv[2];
    id = argv[3];
    arguments = argv;
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
        if (strcmp(scenarios[i].name, argv[4]) == 0) {
            scenarios[i].run();
            return 0;
        }
    }
    fail("no such scenario");
}
