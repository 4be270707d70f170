/*
 * The child of the daemon that calls plug-ins, and what it answers.
 */
#ifndef ENGINE_CNI_CHILD_H
#define ENGINE_CNI_CHILD_H

#include "cni.h"

/* answer is valid during the call; NULL when err is set. Warnings have been logged. */
typedef void (*cni_answered)(const struct error *err, const struct cni_answer *answer, void *data);

/* Where attachments are kept; owned by the caller. */
char *cni_folder(const struct engine *engine);

/* The request lacks only what the settings say. netns_fd: -1 for none. done comes later, not when
 * this fails. */
int cni_run_child(struct engine *engine, struct cni_request *request, int netns_fd,
                  cni_answered done, void *data, struct error *err);

#endif
