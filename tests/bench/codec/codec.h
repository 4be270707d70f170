/*
 * What the benchmarks of the codecs share: the loop, the clock and the command line.
 *
 *     PROGRAM parse|write FILE COUNT     prints the seconds of the processor that COUNT documents
 * took PROGRAM convert FILE               prints the document as this codec writes it
 *
 * The work is the same for all: bytes to a value that can be asked for its parts, and its release;
 * and such a value to bytes, and their release.
 */
#ifndef CODEC_H
#define CODEC_H

#include <stddef.h>

struct codec {
    const char *name;
    /* The value; ends the program when the document cannot be read. */
    void *(*parse)(const char *data, size_t length);
    /* Length of what was written; to_stdout: writes it there, too. */
    size_t (*write)(void *value, int to_stdout);
    void (*release)(void *value);
};

int codec_main(const struct codec *codec, int argc, char **argv);

#endif
