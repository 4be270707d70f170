/*
 * usage: stopwatch [-n COUNT] COMMAND... [";" COMMAND...]
 *
 * Runs the commands one after another and prints what they took: microseconds by the clock, of user
 * and of system time, and the peak of resident memory of the largest process in KiB. With -n the
 * command runs COUNT times at once, and "{}" in its words is the number.
 *
 * A program of its own because it is small: a process inherits, for the count of its peak, the
 * memory of the one that executed it, and to start one from a large process takes longer.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS_MAX = 64, WORD_MAX = 256 };

static long long now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static long long in_us(struct timeval value)
{
    return value.tv_sec * 1000000LL + value.tv_usec;
}

static void spawn(char **words)
{
    pid_t pid;

    errno = posix_spawnp(&pid, words[0], NULL, NULL, words, environ);
    if (errno) {
        perror(words[0]);
        exit(1);
    }
}

/* Returns whether all ended well. */
static int collect(int count)
{
    int good = 1, status;

    for (; count > 0; count--)
        good &= wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return good;
}

static int run_sequence(char **words)
{
    for (char **first = words, **word = words; *first; first = word) {
        while (*word && strcmp(*word, ";") != 0)
            word++;
        if (*word)
            *word++ = NULL;
        spawn(first);
        if (!collect(1))
            return 0;
    }
    return 1;
}

static int run_at_once(char **words, int count)
{
    static char numbered[WORDS_MAX][WORD_MAX];
    char *copy[WORDS_MAX + 1] = {NULL};

    for (int number = 0; number < count; number++) {
        for (int i = 0; words[i] && i < WORDS_MAX; i++) {
            const char *place = strstr(words[i], "{}");
            copy[i] = words[i];
            if (!place)
                continue;
            snprintf(numbered[i], WORD_MAX, "%.*s%d%s", (int)(place - words[i]), words[i], number,
                     place + 2);
            copy[i] = numbered[i];
        }
        spawn(copy);
    }
    return collect(count);
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int count = 0;

    if (argc > 2 && strcmp(argv[1], "-n") == 0) {
        count = atoi(argv[2]);
        argv += 2;
    }
    if (!argv[1]) {
        fprintf(stderr, "usage: stopwatch [-n COUNT] COMMAND... [\";\" COMMAND...]\n");
        return 2;
    }
    long long start = now_us();
    int good = count ? run_at_once(argv + 1, count) : run_sequence(argv + 1);
    long long wall = now_us() - start;
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("%lld %lld %lld %ld\n", wall, in_us(usage.ru_utime), in_us(usage.ru_stime),
           usage.ru_maxrss);
    return good ? 0 : 1;
}
