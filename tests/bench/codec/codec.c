#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec.h"

enum { DOCUMENT_MAX = 1 << 20 };

/* Of the processor: nothing here waits, and the machine may have other work. */
static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static size_t read_document(const char *path, char *data)
{
    FILE *file = fopen(path, "re");

    if (!file) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    size_t length = fread(data, 1, DOCUMENT_MAX, file);
    fclose(file);
    return length;
}

static void parse_many(const struct codec *codec, const char *data, size_t length, long count)
{
    while (count-- > 0)
        codec->release(codec->parse(data, length));
}

static void write_many(const struct codec *codec, const char *data, size_t length, long count)
{
    void *value = codec->parse(data, length);
    size_t first = codec->write(value, 0);

    while (--count > 0) {
        if (codec->write(value, 0) != first)
            abort();
    }
    codec->release(value);
}

int codec_main(const struct codec *codec, int argc, char **argv)
{
    static char data[DOCUMENT_MAX];
    const char *mode = argc > 2 ? argv[1] : "";
    long count = argc > 3 ? atol(argv[3]) : 1;

    if (strcmp(mode, "parse") != 0 && strcmp(mode, "write") != 0 && strcmp(mode, "convert") != 0) {
        fprintf(stderr, "usage: %s parse|write FILE COUNT | convert FILE\n", codec->name);
        return EXIT_FAILURE;
    }
    size_t length = read_document(argv[2], data);
    if (mode[0] == 'c') {
        void *value = codec->parse(data, length);
        codec->write(value, 1);
        codec->release(value);
        return EXIT_SUCCESS;
    }
    double start = now();
    (mode[0] == 'p' ? parse_many : write_many)(codec, data, length, count);
    printf("%.6f\n", now() - start);
    return EXIT_SUCCESS;
}
