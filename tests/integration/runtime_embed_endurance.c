#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime_embed.h"

enum {
    STRESS_THREADS = 8,
    STRESS_ROUNDS = 4,
    REPEAT_WARM_UP = 5,                         /* until what is kept for later calls is there */
    REPEAT_ROUNDS = EMBED_SANITIZED ? 20 : 200, /* forks are slow there */
};

static pthread_rwlock_t in_library = PTHREAD_RWLOCK_INITIALIZER;

void enter(bool forks)
{
    if (EMBED_SANITIZED && forks)
        pthread_rwlock_wrlock(&in_library);
    else if (EMBED_SANITIZED)
        pthread_rwlock_rdlock(&in_library);
}

void leave(void)
{
    if (EMBED_SANITIZED)
        pthread_rwlock_unlock(&in_library);
}

/* One life of a container, seen by every function that takes its name. */
static void live(struct cloche_runtime *runtime, const char *name)
{
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = name, .bundle = bundle};
    const struct cloche_runtime_update_options changes = {
        .size = sizeof(changes), .id = name, .resources = "{\"pids\":{\"limit\":100}}"};
    struct cloche_runtime_info *info;
    char **list, *text;
    pid_t *pids;
    size_t count;

    enter(true);
    check(runtime, cloche_runtime_create(runtime, &options), "create");
    check(runtime, cloche_runtime_update(runtime, &changes), "update");
    check(runtime, cloche_runtime_start(runtime, name, NULL), "start");
    leave();
    enter(false);
    check(runtime, cloche_runtime_state(runtime, name, &info), "state");
    int pidfd = cloche_runtime_pidfd(runtime, name);
    check(runtime, pidfd, "pidfd");
    check(runtime, cloche_runtime_statistics(runtime, name, &text), "statistics");
    free(text);
    free(cloche_runtime_info_json(info, true));
    check(runtime, cloche_runtime_processes(runtime, name, &pids, &count), "processes");
    free(pids);
    check(runtime, cloche_runtime_list(runtime, &list), "list");
    cloche_runtime_list_free(list);
    check(runtime, cloche_runtime_pause(runtime, name), "pause");
    check(runtime, cloche_runtime_resume(runtime, name), "resume");
    check(runtime, cloche_runtime_kill(runtime, name, SIGKILL, 0), "kill");
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    if (poll(&ended, 1, -1) != 1 || waitpid(info->pid, NULL, 0) != info->pid)
        fail("wait for the container's process");
    close(pidfd);
    cloche_runtime_info_free(info);
    leave();
    enter(true);
    check(runtime, cloche_runtime_delete(runtime, name, 0), "delete");
    leave();
}

/* ---- many at once ---------------------------------------------------------------------------- */

/* A process in the container that all threads use. */
static void visit(struct cloche_runtime *runtime)
{
    char *const args[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char[]){"exit 5"}, NULL};
    const struct cloche_runtime_exec_options options = {
        .size = sizeof(options), .id = id, .args = args};
    struct cloche_runtime_info *info;
    int code;

    enter(true);
    check(runtime, cloche_runtime_exec(runtime, &options, &code), "exec");
    leave();
    enter(false);
    check(runtime, cloche_runtime_state(runtime, id, &info), "state");
    if (code != 5 || strcmp(info->id, id) != 0 || info->status != CLOCHE_RUNTIME_RUNNING)
        fail("the common container");
    cloche_runtime_info_free(info);
    leave();
}

static void stress_one(int number)
{
    enter(false);
    struct cloche_runtime *runtime = open_runtime(false);
    leave();

    for (int i = 0; i < STRESS_ROUNDS; i++) {
        char name[128];
        snprintf(name, sizeof(name), "%s-%d-%d", id, number, i);
        live(runtime, name);
        visit(runtime);
    }
    enter(false);
    cloche_runtime_close(runtime);
    leave();
}

void stress(void)
{
    struct cloche_runtime *runtime = open_runtime(false);
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .id = id, .bundle = bundle, .detach = true};
    struct cloche_runtime_info *info;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    check(runtime, cloche_runtime_run(runtime, &options, &(int){0}), "run");
    check(runtime, cloche_runtime_state(runtime, id, &info), "state");
    run_threads(STRESS_THREADS, stress_one);
    check(runtime, cloche_runtime_delete(runtime, id, CLOCHE_RUNTIME_DELETE_FORCE), "delete");
    if (waitpid(-1, NULL, 0) != info->pid || waitpid(-1, NULL, 0) != -1)
        fail("children are left");
    cloche_runtime_info_free(info);
    cloche_runtime_close(runtime);
    printf("%d lives\n", STRESS_THREADS * STRESS_ROUNDS);
}

/* ---- many one after the other ---------------------------------------------------------------- */

struct belongings {
    size_t descriptors, mappings, bytes; /* bytes: of malloc, in use */
};

static struct belongings look(void)
{
    struct belongings found = {.bytes = mallinfo2().uordblks};
    DIR *folder = opendir("/proc/self/fd");
    FILE *maps = fopen("/proc/self/maps", "re");

    if (!folder || !maps)
        fail("/proc/self");
    while (readdir(folder))
        found.descriptors++;
    for (int c; (c = getc(maps)) != EOF;)
        found.mappings += c == '\n';
    closedir(folder);
    fclose(maps);
    return found;
}

static void repeat(bool direct)
{
    struct belongings before = {0};

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < REPEAT_WARM_UP + REPEAT_ROUNDS; i++) {
        struct cloche_runtime *runtime = open_runtime(direct);
        live(runtime, id);
        cloche_runtime_close(runtime);
        if (i == REPEAT_WARM_UP - 1)
            before = look();
    }
    struct belongings after = look();
    prctl(PR_SET_DUMPABLE, 1); /* for LeakSanitizer, which looks from outside */
    printf("left: %zd descriptors, %zd mappings, %zd bytes\n",
           (ssize_t)(after.descriptors - before.descriptors),
           (ssize_t)(after.mappings - before.mappings), (ssize_t)(after.bytes - before.bytes));
}

void repeat_direct(void)
{
    repeat(true);
}

void repeat_in_forks(void)
{
    repeat(false);
}
