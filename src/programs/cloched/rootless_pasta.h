/*
 * The way of an ordinary user's engine to other machines: pasta (package passt), and the process
 * outside that attaches it, again when it ended or when there was no way at first.
 */
#ifndef CLOCHED_ROOTLESS_PASTA_H
#define CLOCHED_ROOTLESS_PASTA_H

#include <sys/types.h>

#include <base/error.h>
#include <base/instance.h>

/* Outside, by one launcher at a time. Waits for the first attempt (at most five seconds); that
 * there is no way yet is logged and no error. What it starts ends with the holder. */
int rootless_pasta_ensure(const struct instance *instance, pid_t holder, struct error *err);

/* Inside: pasta ends. Where there is none it is no error. */
void rootless_pasta_end(const struct instance *instance, pid_t holder);

#endif
