/* Files from HTTP servers and repositories of git, fetched by cloche-registry in its jail. */
#ifndef ENGINE_FETCH_H
#define ENGINE_FETCH_H

#include <stdbool.h>

#include <image/worker.h>

#include "internal.h"

/* Whether docker takes the text for an address to fetch from. */
bool fetch_is_address(const char *text);
/* Whether it takes it for a repository of git (moby, pkg/urlutil). */
bool fetch_is_git(const char *text);

/* What a fetch needs of the engine, which may be configured anew meanwhile. */
struct fetch_settings {
    char *program, *proxy;         /* owned; proxy NULL: none */
    uint32_t patience;             /* seconds; 0: as it comes */
    uint64_t git_bytes, git_files; /* 0: as they come */
    uint32_t git_seconds;
};
/* On the loop's thread. */
void fetch_settings_init(struct fetch_settings *settings, const struct engine *engine);
void fetch_settings_finish(struct fetch_settings *settings);

/* On any thread: blocks until the file is in the staging folder under that name. cancel_fd as of
 * image_worker_run(). *ret is owned. */
int fetch_file(const struct fetch_settings *settings, const char *url, const char *file,
               int staging_fd, int cancel_fd, struct image_worker_fetched **ret, struct error *err);

/* A repository of git, as docker writes one: ADDRESS[#[REF][:FOLDER]]. Its files become the staging
 * folder's context/. -EOPNOTSUPP: over a protocol that is not spoken; -ENOENT: no git here, or no
 * such folder in it. Blocks and is cancelled like fetch_file(). *ret_commit is owned. */
int fetch_repository(const struct fetch_settings *settings, const char *address, int staging_fd,
                     int cancel_fd, char **ret_commit, struct error *err);
/* Whether it can be asked for at all. */
int fetch_check_repository(const char *address, struct error *err);

#endif
