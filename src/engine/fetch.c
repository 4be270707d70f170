#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "endpoints.h"
#include "fetch.h"

bool fetch_is_address(const char *text)
{
    return text_starts_with(text, "http://") || text_starts_with(text, "https://");
}

bool fetch_is_git(const char *text)
{
    static const char *const starts[] = {"git://", "github.com/", "git@", "ssh://"};
    _cleanup_free_ char *path = xstrndup(text, strcspn(text, "#"));

    for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
        if (text_starts_with(text, starts[i]))
            return true;
    return fetch_is_address(text) && text_ends_with(path, ".git");
}

void fetch_settings_init(struct fetch_settings *settings, const struct engine *engine)
{
    const struct registries_settings *registries = engine->registries;

    *settings = (struct fetch_settings){.program = xstrdup(engine->registry_program)};
    if (!registries)
        return;
    settings->proxy = xstrdup(registries->proxy);
    settings->patience = registries->has_patience_seconds ? registries->patience_seconds : 0;
    settings->git_bytes = registries->git_bytes;
    settings->git_files = registries->git_files;
    settings->git_seconds = registries->git_seconds;
}

void fetch_settings_finish(struct fetch_settings *settings)
{
    free(settings->program);
    free(settings->proxy);
    *settings = (struct fetch_settings){0};
}

/* The proxy of registries is for these, too, but never for this machine itself. */
static bool wants_proxy(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    _cleanup_free_ char *name = xstrndup(host, strcspn(host, "/?#"));
    const char *at = strrchr(name, '@');

    return !endpoints_is_loopback(at ? at + 1 : name);
}

int fetch_check_repository(const char *address, struct error *err)
{
    if (!text_starts_with(address, "git@") && !text_starts_with(address, "ssh://"))
        return 0;
    error_set(err, -EOPNOTSUPP,
              "%.200s: repositories are not fetched over ssh, for which the daemon has no keys",
              address);
    error_hint(err, "give its https:// address, or clone it and build the folder");
    return -EOPNOTSUPP;
}

int fetch_repository(const struct fetch_settings *settings, const char *address, int staging_fd,
                     int cancel_fd, char **ret_commit, struct error *err)
{
    bool whole = strstr(address, "://") != NULL;
    _cleanup_free_ char *url = xasprintf("%s%s", whole ? "" : "https://", address);
    char *ref = strchr(url, '#'), *folder = NULL;
    struct image_worker_clone clone = {.url = url};
    const struct image_worker_request request = {.clone = &clone};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_result *result = NULL;

    if (ref) {
        *ref++ = '\0';
        folder = strchr(ref, ':');
        if (folder)
            *folder++ = '\0';
    }
    clone.ref = text_empty(ref) ? NULL : ref;
    clone.folder = text_empty(folder) ? NULL : folder;
    clone.proxy = wants_proxy(url) ? settings->proxy : NULL;
    clone.patience_seconds = settings->patience;
    clone.has_patience_seconds = settings->patience != 0;
    clone.bytes = settings->git_bytes;
    clone.has_bytes = settings->git_bytes != 0;
    clone.files = settings->git_files;
    clone.has_files = settings->git_files != 0;
    clone.seconds = settings->git_seconds;
    clone.has_seconds = settings->git_seconds != 0;
    spec.program = settings->program;
    spec.request = &request;
    spec.staging_fd = staging_fd;
    int r = fetch_check_repository(address, err);
    if (r == 0)
        r = image_worker_run(&spec, NULL, NULL, cancel_fd, &result, err);
    if (r == 0 && !result->cloned)
        r = error_set(err, -EPROTO, "the image worker has cloned nothing");
    if (r == 0)
        *ret_commit = steal_ptr(result->cloned->commit);
    image_worker_result_free(result);
    return r;
}

int fetch_file(const struct fetch_settings *settings, const char *url, const char *file,
               int staging_fd, int cancel_fd, struct image_worker_fetched **ret, struct error *err)
{
    struct image_worker_fetch fetch = {.url = (char *)url, .file = (char *)file};
    const struct image_worker_request request = {.fetch = &fetch};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_result *result = NULL;

    if (!fetch_is_address(url))
        return error_set(err, -EINVAL, "'%.200s' is no address of http or https", url);
    fetch.proxy = wants_proxy(url) ? settings->proxy : NULL;
    fetch.patience_seconds = settings->patience;
    fetch.has_patience_seconds = settings->patience != 0;
    spec.program = settings->program;
    spec.request = &request;
    spec.staging_fd = staging_fd;
    int r = image_worker_run(&spec, NULL, NULL, cancel_fd, &result, err);
    if (r == 0 && !result->fetched)
        r = error_set(err, -EPROTO, "the image worker has fetched nothing");
    if (r == 0)
        *ret = steal_ptr(result->fetched);
    image_worker_result_free(result);
    return r;
}
