#include <arpa/inet.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "endpoints.h"

static const char *const default_certificates[] = {"/etc/cloche/certs.d", "/etc/docker/certs.d"};

bool endpoints_is_loopback(const char *name)
{
    struct in_addr address;

    if (text_equal(name, "[::1]") || text_starts_with(name, "[::1]:"))
        return true;
    _cleanup_free_ char *host = xstrndup(name, strcspn(name, ":"));
    if (text_equal(host, "localhost"))
        return true;
    return inet_pton(AF_INET, host, &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

static const struct registries_host *find_host(const struct registries_settings *settings,
                                               const char *name)
{
    const struct registries_hosts *hosts = settings ? settings->hosts : NULL;

    for (size_t i = 0; hosts && i < hosts->count; i++)
        if (text_equal(hosts->keys[i], name))
            return hosts->values[i];
    return NULL;
}

/* HOST[:PORT] of an address, owned. */
static char *host_of(const char *url)
{
    const char *start = strstr(url, "://");

    start = start ? start + 3 : url;
    return xstrndup(start, strcspn(start, "/"));
}

static void add_endpoint(struct image_worker_registry *registry,
                         const struct registries_settings *settings, const char *url, bool mirror,
                         bool insecure)
{
    struct image_worker_endpoint *endpoint = xnew(struct image_worker_endpoint);
    _cleanup_free_ char *host = host_of(url);
    bool own = settings && settings->certificates;
    size_t length = strlen(url);

    while (length && url[length - 1] == '/')
        length--;
    endpoint->url = xstrndup(url, length);
    endpoint->mirror = endpoint->has_mirror = mirror;
    endpoint->insecure = endpoint->has_insecure = insecure;
    for (size_t i = 0; i < (own ? settings->certificates_count : ARRAY_SIZE(default_certificates));
         i++) {
        strv_take(
            &endpoint->certificates,
            xasprintf("%s/%s", own ? settings->certificates[i] : default_certificates[i], host));
        endpoint->certificates_count++;
    }
    registry->endpoints =
        xrealloc(registry->endpoints, registry->endpoints_count + 1, sizeof(endpoint));
    registry->endpoints[registry->endpoints_count++] = endpoint;
}

/* The registry itself: where the settings say, else by its name; on loopback also without TLS. */
static void add_itself(struct image_worker_registry *registry,
                       const struct registries_settings *settings,
                       const struct registries_host *host, enum endpoints_purpose purpose)
{
    bool docker = text_equal(registry->name, ENDPOINTS_DOCKER);
    bool search = purpose == ENDPOINTS_SEARCH;
    const char *given = host ? (search && host->search_url ? host->search_url : host->url) : NULL;
    const char *name = registry->name;
    bool loopback = endpoints_is_loopback(name);

    if (docker)
        name = search ? "index.docker.io" : "registry-1.docker.io";
    if (given) {
        add_endpoint(registry, settings, given, false, host->insecure);
        return;
    }
    _cleanup_free_ char *https = xasprintf("https://%s", name);
    _cleanup_free_ char *http = xasprintf("http://%s", name);
    if (!host || !host->plain_http)
        add_endpoint(registry, settings, https, false, loopback || (host && host->insecure));
    if (loopback || (host && host->plain_http))
        add_endpoint(registry, settings, http, false, false);
}

static struct image_worker_credentials *copy_credentials(const struct api_credentials *given)
{
    struct image_worker_credentials *copy = xnew(struct image_worker_credentials);

    copy->username = xstrdup(given->username);
    copy->password = xstrdup(given->password);
    copy->identity_token = xstrdup(given->identity_token);
    copy->registry_token = xstrdup(given->registry_token);
    return copy;
}

struct image_worker_registry *endpoints_of(const struct registries_settings *settings,
                                           const char *name, enum endpoints_purpose purpose,
                                           const struct api_credentials *credentials)
{
    struct image_worker_registry *registry = xnew(struct image_worker_registry);
    const struct registries_host *host = find_host(settings, name);

    registry->name = xstrdup(name);
    for (size_t i = 0; host && purpose == ENDPOINTS_IMAGES && i < host->mirrors_count; i++)
        add_endpoint(registry, settings, host->mirrors[i], true, false);
    add_itself(registry, settings, host, purpose);
    if (credentials)
        registry->credentials = copy_credentials(credentials);
    if (!settings)
        return registry;
    if (!endpoints_is_loopback(name))
        registry->proxy = xstrdup(settings->proxy);
    registry->patience_seconds = settings->patience_seconds;
    registry->has_patience_seconds = settings->has_patience_seconds;
    registry->attempts = settings->attempts;
    registry->has_attempts = settings->has_attempts;
    registry->pause_milliseconds = settings->pause_milliseconds;
    registry->has_pause_milliseconds = settings->has_pause_milliseconds;
    return registry;
}
