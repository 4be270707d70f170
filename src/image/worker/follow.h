/*
 * A file that one thread writes while another one reads it as a stream, so that the tar of a commit
 * is summed up and unpacked while it grows.
 */
#ifndef IMAGE_FOLLOW_H
#define IMAGE_FOLLOW_H

#include <pthread.h>

#include "stream.h"

struct follow;

/* fd: to read the file; not owned. */
struct follow *follow_create(int fd);
void follow_destroy(struct follow *follow);

/* The writer: so many more bytes are there. False: nobody reads them any more. */
bool follow_grown(struct follow *follow, uint64_t bytes);
/* The writer, once: that was all, or with a negative result, it failed. err is taken over. */
void follow_end(struct follow *follow, int result, struct error *err);

/* The reader: owned by the follow. Waits for what is not there yet; ends with the writer's failure.
 */
struct stream *follow_stream(struct follow *follow);
/* Nothing more is read. */
void follow_stop(struct follow *follow);

#endif
