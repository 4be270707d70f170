/* What the files of this folder share. */
#ifndef CNI_INTERNAL_H
#define CNI_INTERNAL_H

#include <cni/cni.h>

#include <base/buffer.h>

enum {
    LIST_BYTES_MAX = 256 * 1024,
    OUTPUT_BYTES_MAX = 1024 * 1024, /* of one plug-in */
    COMPLAINT_BYTES_MAX = 2048,     /* of what it says on standard error */
    TYPE_LENGTH_MAX = 255,
};

/* --- list.c ----------------------------------------------------------------------------------- */

/* A list by its file (absolute), else by its name in the folder of lists. */
int list_find(const struct cni_request *request, const char *wanted, struct cni_list **ret,
              struct error *err);
/* -ENOENT: in none of the folders. Owned. */
int list_find_plugin(const struct cni_request *request, const char *type, char **ret,
                     struct error *err);
/* Whether one of its plug-ins says that it can do this. */
bool list_is_capable(const struct cni_list *list, const char *capability);
/* From this version on there are CHECK and previous results for DEL. */
bool list_knows_check(const struct cni_list *list);

/* --- plugin.c --------------------------------------------------------------------------------- */

struct plugin_call {
    const char *path;
    char *const *environment;
    const char *input; /* its configuration */
    unsigned limit_seconds;
};

/* Runs one program to its end. *output gets what it has said, at most OUTPUT_BYTES_MAX, also when
 * it fails. What does not end in time is killed together with all its descendants: -ETIMEDOUT. An
 * exit status that is not 0 is -EREMOTEIO with what it said on standard error. */
int plugin_run(const struct plugin_call *call, struct buffer *output, struct error *err);

/* --- chain.c ---------------------------------------------------------------------------------- */

/* attachment has its list and is on disk; its result is set. What the plug-ins before the one that
 * failed did is taken back. */
int chain_add(const struct cni_request *request, struct cni_attachment *attachment,
              const char *netns, struct error *err);
/* netns "": it is gone. All plug-ins are called; the first error is told. */
int chain_remove(const struct cni_request *request, const struct cni_attachment *attachment,
                 const char *netns, struct error *err);
int chain_check(const struct cni_request *request, const struct cni_attachment *attachment,
                const char *netns, struct error *err);

/* --- attachment.c: what is on disk ------------------------------------------------------------ */

/* One that makes no sense is put aside. */
int attachment_read(const struct cni_request *request, const char *name,
                    struct cni_attachment **ret, struct error *err);
/* It is on the disk, not only written, when this returns. */
int attachment_write(const struct cni_request *request, const struct cni_attachment *attachment,
                     struct error *err);
int attachment_delete(const struct cni_request *request, const struct cni_attachment *attachment,
                      struct error *err);
/* Names of the container's attachments. Owned. */
char **attachment_list(const struct cni_request *request, const char *container);
/* Waits until no other child is busy with this container; the lock goes with the descriptor. */
int attachment_lock(const struct cni_request *request, const char *container, int *ret_fd,
                    struct error *err);

/* --- the network namespace, for which plug-ins want a path that stays the same -----------------
 */

char *namespace_path(const struct cni_request *request, const char *container);
int namespace_bind(const struct cni_request *request, const char *container, int fd,
                   struct error *err);
/* Whether it is there: after the machine's restart it is not. */
bool namespace_is_bound(const char *path);
/* Whether it is this one, and not that of an earlier life. */
bool namespace_is_same(const char *path, int fd);
/* What is not there is no error. */
void namespace_unbind(const struct cni_request *request, const char *container);

#endif
