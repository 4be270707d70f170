#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/docker_config.h>

#include "base64.h"
#include "credential_helper.h"
#include "credentials.h"

enum { FILE_MAX = 4 * 1024 * 1024 };

/* How docker's tools call the registry of docker.io in that file. */
static const char docker_key[] = "https://index.docker.io/v1/";

char *credentials_registry(const char *image)
{
    const char *slash = strchr(image, '/');
    _cleanup_free_ char *first = slash ? xstrndup(image, (size_t)(slash - image)) : xstrdup("");

    if (slash && (strpbrk(first, ".:") || text_equal(first, "localhost")))
        return credentials_server(first);
    return xstrdup(CREDENTIALS_DOCKER);
}

char *credentials_server(const char *given)
{
    const char *scheme = given ? strstr(given, "://") : NULL;
    const char *start = scheme ? scheme + 3 : given;
    char *name =
        text_empty(start) ? xstrdup(CREDENTIALS_DOCKER) : xstrndup(start, strcspn(start, "/"));

    if (text_equal(name, "index.docker.io") || text_equal(name, "registry-1.docker.io")) {
        free(name);
        name = xstrdup(CREDENTIALS_DOCKER);
    }
    return name;
}

static const char *key_of(const char *registry)
{
    return text_equal(registry, CREDENTIALS_DOCKER) ? docker_key : registry;
}

static bool is_key_of(const char *key, const char *registry)
{
    _cleanup_free_ char *server = credentials_server(key);

    return text_equal(server, registry);
}

/* ---- the file ---- */

/* Owned. -ENOENT: nobody says where the user's home is. */
static int find_folder(char **ret, struct error *err)
{
    const char *given = getenv("DOCKER_CONFIG"), *home = getenv("HOME");

    if (!text_empty(given))
        *ret = xstrdup(given);
    else if (!text_empty(home))
        *ret = xasprintf("%s/.docker", home);
    else
        return error_set(err, -ENOENT, "neither DOCKER_CONFIG nor HOME is set");
    return 0;
}

/* A missing file is an empty one. *ret_path is where it is, behind links. */
static int read_file(struct docker_config_file **ret, char **ret_path, struct error *err)
{
    _cleanup_free_ char *folder = NULL, *path = NULL, *text = NULL;
    size_t length;
    int r = find_folder(&folder, err);

    if (r < 0)
        return r;
    path = xasprintf("%s/config.json", folder);
    char *target = realpath(path, NULL);
    if (target) {
        free(path);
        path = target;
    }
    r = file_read_at(AT_FDCWD, path, FILE_MAX, &text, &length, NULL);
    if (r == -ENOENT || r == -ENOTDIR)
        *ret = xnew(struct docker_config_file);
    else if (r < 0)
        return error_errno(err, -r, "read %s", path);
    else
        r = docker_config_file_parse(text, length, path, ret, err);
    if (r < 0 && !*ret)
        return r;
    if (ret_path)
        *ret_path = steal_ptr(path);
    return 0;
}

static int write_file(const struct docker_config_file *file, const char *path, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *folder = xstrndup(path, slash ? (size_t)(slash - path) : 0);
    int r = folder[0] ? file_mkdir_parents(folder, 0700, err) : 0;

    docker_config_file_write_pretty(file, &text);
    buffer_append_char(&text, '\n');
    return r < 0 ? r : file_replace_at(AT_FDCWD, path, text.data, text.length, 0600, err);
}

/* docker's web login has further keys below its server's address: the very key comes first. */
static struct docker_config_auth *find_auth(const struct docker_config_file *file,
                                            const char *registry, size_t *ret_place)
{
    const struct docker_config_auths *auths = file->auths;
    struct docker_config_auth *found = NULL;

    for (size_t i = 0; auths && i < auths->count; i++) {
        bool exact = text_equal(auths->keys[i], key_of(registry));
        if (!exact && (found || !is_key_of(auths->keys[i], registry)))
            continue;
        found = auths->values[i];
        if (ret_place)
            *ret_place = i;
        if (exact)
            break;
    }
    return found;
}

/* A helper for this registry alone comes before that for all. Borrowed; NULL: none. */
static const char *find_helper(const struct docker_config_file *file, const char *registry)
{
    const struct json_string_map *helpers = file->cred_helpers;

    for (size_t i = 0; helpers && i < helpers->count; i++)
        if (is_key_of(helpers->keys[i], registry))
            return helpers->values[i];
    return text_empty(file->creds_store) ? NULL : file->creds_store;
}

/* ---- reading ---- */

static int decode(const char *auth, struct api_credentials *credentials, struct error *err)
{
    _cleanup_free_ char *plain = base64_decode(auth);
    char *colon = plain ? strchr(plain, ':') : NULL;

    if (!colon)
        return error_set(err, -EBADMSG, "its member auth is not USER:PASSWORD in base64");
    credentials->username = xstrndup(plain, (size_t)(colon - plain));
    credentials->password = xstrdup(colon + 1);
    return 0;
}

static int read_auth(const struct docker_config_auth *auth, struct api_credentials **ret,
                     struct error *err)
{
    _cleanup_api_credentials_ struct api_credentials *credentials = xnew(struct api_credentials);
    int r = 0;

    if (!text_empty(auth->auth)) {
        r = decode(auth->auth, credentials, err);
    } else {
        credentials->username = xstrdup(auth->username);
        credentials->password = xstrdup(auth->password);
    }
    if (!text_empty(auth->identitytoken))
        credentials->identity_token = xstrdup(auth->identitytoken);
    if (!text_empty(auth->registrytoken))
        credentials->registry_token = xstrdup(auth->registrytoken);
    if (r < 0)
        return r;
    if (!text_empty(credentials->username) || credentials->identity_token ||
        credentials->registry_token)
        *ret = steal_ptr(credentials);
    return 0;
}

int credentials_find(const char *registry, struct api_credentials **ret, struct error *err)
{
    _cleanup_docker_config_file_ struct docker_config_file *file = NULL;
    _cleanup_free_ char *path = NULL;

    *ret = NULL;
    int r = read_file(&file, &path, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    const char *helper = find_helper(file, registry);
    if (helper)
        return credential_helper_get(helper, key_of(registry), ret, err);
    const struct docker_config_auth *auth = find_auth(file, registry, NULL);
    r = auth ? read_auth(auth, ret, err) : 0;
    return r < 0 ? error_context(err, "%s: %s", path, registry), r : 0;
}

static void add_known(const char *key, struct api_build_credentials ***list, size_t *count)
{
    _cleanup_api_credentials_ struct api_credentials *credentials = NULL;
    _cleanup_free_ char *registry = credentials_server(key);

    for (size_t i = 0; i < *count; i++)
        if (text_equal((*list)[i]->registry, registry))
            return;
    if (credentials_find(registry, &credentials, NULL) < 0 || !credentials)
        return;
    *list = xrealloc(*list, *count + 1, sizeof(**list));
    struct api_build_credentials *known = (*list)[(*count)++] = xnew(struct api_build_credentials);
    known->registry = steal_ptr(registry);
    known->credentials = steal_ptr(credentials);
}

void credentials_all(struct api_build_credentials ***ret, size_t *ret_count)
{
    _cleanup_docker_config_file_ struct docker_config_file *file = NULL;

    *ret = NULL;
    *ret_count = 0;
    if (read_file(&file, NULL, NULL) < 0)
        return;
    for (size_t i = 0; file->auths && i < file->auths->count; i++)
        add_known(file->auths->keys[i], ret, ret_count);
    for (size_t i = 0; file->cred_helpers && i < file->cred_helpers->count; i++)
        add_known(file->cred_helpers->keys[i], ret, ret_count);
}

/* ---- writing ---- */

static struct docker_config_auth *add_auth(struct docker_config_file *file, const char *registry)
{
    struct docker_config_auth *auth = find_auth(file, registry, NULL);

    if (auth) {
        free(steal_ptr(auth->auth));
        free(steal_ptr(auth->username));
        free(steal_ptr(auth->password));
        free(steal_ptr(auth->identitytoken));
        free(steal_ptr(auth->registrytoken));
        return auth;
    }
    if (!file->auths)
        file->auths = xnew(struct docker_config_auths);
    struct docker_config_auths *auths = file->auths;
    auths->keys = xrealloc(auths->keys, auths->count + 1, sizeof(*auths->keys));
    auths->values = xrealloc(auths->values, auths->count + 1, sizeof(*auths->values));
    auth = auths->values[auths->count] = xnew(struct docker_config_auth);
    auths->keys[auths->count++] = xstrdup(key_of(registry));
    return auth;
}

/* Two logins at once would each write the file without the other's. The lock is that of the file's
 * folder, since the file itself is replaced; -1 where there is none yet. To be closed. */
static int lock_folder(void)
{
    _cleanup_free_ char *folder = NULL;

    if (find_folder(&folder, NULL) < 0)
        return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        flock(fd, LOCK_EX);
    return fd;
}

/* With a helper docker leaves an empty entry, by which it knows of the login. */
int credentials_keep(const char *registry, const struct api_credentials *credentials,
                     char **ret_path, struct error *err)
{
    _cleanup_docker_config_file_ struct docker_config_file *file = NULL;
    _cleanup_free_ char *path = NULL;

    *ret_path = NULL;
    _cleanup_close_ int lock_fd = lock_folder();
    int r = read_file(&file, &path, err);
    if (r < 0)
        return r;
    const char *helper = find_helper(file, registry);
    struct docker_config_auth *auth = add_auth(file, registry);
    if (helper) {
        r = credential_helper_store(helper, key_of(registry), credentials, err);
    } else {
        const char *password = credentials->password ? credentials->password : "";
        _cleanup_free_ char *both =
            xasprintf("%s:%s", credentials->username, credentials->identity_token ? "" : password);
        auth->auth = base64_encode(both);
        auth->identitytoken = xstrdup(credentials->identity_token);
    }
    if (r == 0)
        r = write_file(file, path, err);
    if (r == 0 && !helper)
        *ret_path = steal_ptr(path);
    return r;
}

int credentials_forget(const char *registry, struct error *err)
{
    _cleanup_docker_config_file_ struct docker_config_file *file = NULL;
    _cleanup_free_ char *path = NULL;
    size_t place = 0;
    _cleanup_close_ int lock_fd = lock_folder();
    int r = read_file(&file, &path, err);

    if (r < 0)
        return r;
    const char *helper = find_helper(file, registry);
    struct docker_config_auth *auth = find_auth(file, registry, &place);
    if (helper && auth)
        r = credential_helper_erase(helper, key_of(registry), err);
    if (r < 0 || !auth)
        return r;
    struct docker_config_auths *auths = file->auths;
    docker_config_auth_free(auth);
    free(auths->keys[place]);
    auths->count--;
    memmove(auths->keys + place, auths->keys + place + 1,
            (auths->count - place) * sizeof(*auths->keys));
    memmove(auths->values + place, auths->values + place + 1,
            (auths->count - place) * sizeof(*auths->values));
    r = write_file(file, path, err);
    return r < 0 ? r : 1;
}
