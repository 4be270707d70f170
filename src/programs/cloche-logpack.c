/*
 * Packs a file of a container's log, or unpacks it again (unpack): descriptor 0 to descriptor 1.
 * A process of its own, as the monitor links libc only and the daemon unpacks nothing. What it has
 * packed is on the disk when it ends with 0.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    BLOCK_SIZE = 64 * 1024,
    LEVEL = 6,
    WINDOW_GZIP = 15 + 16, /* zlib.h: the largest window, in gzip's format */
};

static unsigned char in[BLOCK_SIZE], out[BLOCK_SIZE];

static int complain(const char *what, const char *why)
{
    dprintf(STDERR_FILENO, "cloche-logpack: %s: %s\n", what, why);
    return 1;
}

static int write_all(size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = write(STDOUT_FILENO, out + done, length - done);

        if (n < 0 && errno != EINTR)
            return complain("write", strerror(errno));
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Reads the next block; 0: the end. */
static ssize_t fill(z_stream *stream)
{
    ssize_t n;

    do
        n = read(STDIN_FILENO, in, sizeof(in));
    while (n < 0 && errno == EINTR);
    stream->next_in = in;
    stream->avail_in = n > 0 ? (uInt)n : 0;
    return n;
}

/* What the stream makes of what it has; *ret: its last answer. */
static int run(z_stream *stream, int (*step)(z_stream *, int), int flush, int *ret)
{
    do {
        stream->next_out = out;
        stream->avail_out = sizeof(out);
        *ret = step(stream, flush);
        if (*ret != Z_OK && *ret != Z_STREAM_END && *ret != Z_BUF_ERROR)
            return complain("the log", stream->msg ? stream->msg : "not of gzip's format");
        if (write_all(sizeof(out) - stream->avail_out) != 0)
            return 1;
    } while (stream->avail_out == 0);
    return 0;
}

static int pack(void)
{
    z_stream stream = {0};
    int last = Z_OK;
    ssize_t n;

    if (deflateInit2(&stream, LEVEL, Z_DEFLATED, WINDOW_GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return complain("pack", "no memory");
    do {
        n = fill(&stream);
        if (n < 0)
            return complain("read", strerror(errno));
        if (run(&stream, deflate, n == 0 ? Z_FINISH : Z_NO_FLUSH, &last) != 0)
            return 1;
    } while (n > 0);
    deflateEnd(&stream);
    return fsync(STDOUT_FILENO) < 0 ? complain("flush", strerror(errno)) : 0;
}

static int unpack(void)
{
    z_stream stream = {0};
    int last = Z_OK;

    if (inflateInit2(&stream, WINDOW_GZIP) != Z_OK)
        return complain("unpack", "no memory");
    while (last != Z_STREAM_END) {
        ssize_t n = fill(&stream);

        if (n <= 0)
            return complain("read", n < 0 ? strerror(errno) : "it ends in the middle");
        if (run(&stream, inflate, Z_NO_FLUSH, &last) != 0)
            return 1;
    }
    inflateEnd(&stream);
    return 0;
}

int main(int argc, char **argv)
{
    static const char usage[] = "cloche-logpack [unpack] <FILE >FILE";
    bool unpacks = argc == 2 && strcmp(argv[1], "unpack") == 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return puts(usage) < 0;
    if (argc > 1 && !unpacks) {
        complain("usage", usage);
        return 2;
    }
    return unpacks ? unpack() : pack();
}
