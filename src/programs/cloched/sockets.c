#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/socket.h>
#include <base/text.h>
#include <schema/management.h>
#include <schema/rpc.h>

#include "discover.h"
#include "peer.h"

enum { ID_DIGITS_MIN = 12, MOUNTS_BYTES_MAX = 4 << 20 };

/* One of them. */
struct section {
    struct section *next;
    struct sockets *owner;
    const struct config_socket *config; /* of the configuration that holds now */
    char *path;                         /* owned */
    struct rpc_limits limits;
    struct rpc_server *server;
    char *document;   /* owned; what rpc.discover shows */
    struct stat file; /* which file is ours */
};

struct sockets {
    const struct sockets_options *options;
    char **prefixes;       /* owned; peer_prefixes() */
    uint64_t generation;   /* of the configuration */
    struct config *config; /* owned; NULL: none yet */
    struct section *sections;
};

struct rpc_limits sockets_limits(const struct config_limits *limits)
{
    if (!limits)
        return (struct rpc_limits){0};
    return (struct rpc_limits){
        .message = limits->message,
        .in_flight = limits->in_flight,
        .connections = limits->connections,
        .connections_per_peer = limits->connections_per_user,
        .output = limits->output,
    };
}

/* ---- who may do what ---- */

static bool fits_one(char *const *patterns, size_t count, const char *word)
{
    for (size_t i = 0; word && i < count; i++) {
        if (fnmatch(patterns[i], word, 0) == 0)
            return true;
    }
    return false;
}

/* Everybody may see who they are and what they may do. */
static bool is_for_all(const char *method)
{
    static const char *const names[] = {"rpc.hello", "rpc.ping", "rpc.cancel", "rpc.whoami",
                                        "rpc.discover"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (text_equal(names[i], method))
            return true;
    }
    return false;
}

static bool is_allowed(const struct section *section, const char *method)
{
    const struct config_listen *listen = section->config->section;

    return is_for_all(method) || fits_one(listen->methods, listen->methods_count, method);
}

static bool has_id(const struct config_ids *ids, unsigned id)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->ids[i] == id)
            return true;
    }
    return false;
}

/* Of a connection: who it is, and what was found out of it. */
struct caller {
    struct peer *peer; /* owned */
    /* Whether it has one of the groups of its section, which are asked for with a system call. */
    uint64_t groups_generation; /* of the configuration that was asked; 0: none yet */
    bool has_group;
};

static bool look_for_group(const struct config_ids *groups, const struct peer *peer, int fd)
{
    bool found = has_id(groups, peer->gid);
    size_t count = 0;
    _cleanup_free_ gid_t *its = found || !groups->count ? NULL : peer_groups(fd, &count);

    for (size_t i = 0; !found && i < count; i++)
        found = has_id(groups, its[i]);
    return found;
}

static bool has_a_group(const struct section *section, struct caller *caller, int fd)
{
    uint64_t generation = section->owner->generation;

    if (caller->groups_generation != generation) {
        caller->has_group = look_for_group(&section->config->groups, caller->peer, fd);
        caller->groups_generation = generation;
    }
    return caller->has_group;
}

static const char *name_of_container(const struct sockets *sockets, const struct peer *peer)
{
    if (peer->place != PEER_CONTAINER)
        return NULL;
    return sockets->options->container_name(peer->container, sockets->options->data);
}

/* IDs are random: patterns would fit those of containers that nobody has thought of. */
static bool is_id(const char *word, const char *id)
{
    size_t length = strspn(word, "0123456789abcdef");

    return length >= ID_DIGITS_MIN && !word[length] && strncmp(word, id, length) == 0;
}

static bool fits_container(char *const *words, size_t count, const char *id, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (is_id(words[i], id))
            return true;
    }
    return fits_one(words, count, name);
}

/* users and groups do not speak of containers: their root has the number of ours. */
static bool is_welcome(const struct section *section, struct caller *caller, int fd)
{
    const struct config_listen *listen = section->config->section;
    const struct peer *peer = caller->peer;

    if (!listen->users && !listen->groups && !listen->containers)
        return true;
    switch (peer->place) {
    case PEER_ELSEWHERE:
    case PEER_OUTSIDE:
        return (peer->place == PEER_OUTSIDE || listen->foreign_containers) &&
               (has_id(&section->config->users, peer->uid) || has_a_group(section, caller, fd));
    case PEER_CONTAINER:
        return fits_container(listen->containers, listen->containers_count, peer->container,
                              name_of_container(section->owner, peer));
    case PEER_UNKNOWN:
        break;
    }
    return false;
}

static struct caller *caller_of(struct sockets *sockets, struct rpc_connection *connection)
{
    struct caller *caller = rpc_connection_data(connection);

    if (!caller) {
        caller = xnew(struct caller);
        caller->peer = peer_look(rpc_connection_fd(connection), sockets->prefixes);
        rpc_connection_set_data(connection, caller);
    }
    return caller;
}

static int refuse_peer(const struct section *section, const struct peer *peer, struct error *err)
{
    const char *name = section->owner->config->name;

    if (peer->place == PEER_CONTAINER) {
        const char *container = name_of_container(section->owner, peer);
        error_set(err, -EACCES, "container %s may not use the socket %s",
                  container ? container : peer->container, section->path);
        return error_hint(err,
                          "Add it to \"containers\" of that socket in %s, then: "
                          "kill -HUP the daemon",
                          name);
    }
    if (peer->place == PEER_ELSEWHERE) {
        error_set(err, -EACCES,
                  "a process in a user or pid namespace of its own may not use the "
                  "socket %s",
                  section->path);
        return error_hint(err,
                          "If it is no container, or one that is trusted as user %u is: set "
                          "\"foreignContainers\" of that socket in %s, then: kill -HUP the daemon",
                          (unsigned)peer->uid, name);
    }
    if (peer->place == PEER_UNKNOWN) {
        error_set(err, -EACCES,
                  "the process that connected to the socket %s cannot be told any more",
                  section->path);
        return error_hint(err, "Connect from a process that stays.");
    }
    error_set(err, -EACCES, "user %u may not use the socket %s", (unsigned)peer->uid,
              section->path);
    return error_hint(err,
                      "Add it to \"users\", or a group of it to \"groups\", of that socket in %s, "
                      "then: kill -HUP the daemon",
                      name);
}

static int authorise(struct rpc_connection *connection, const struct json_method *method,
                     void *context, struct error *err)
{
    const struct section *section = rpc_connection_tag(connection);
    struct caller *caller = caller_of(section->owner, connection);

    if (!is_welcome(section, caller, rpc_connection_fd(connection))) {
        refuse_peer(section, caller->peer, err);
        return -EACCES;
    }
    if (is_allowed(section, method->name))
        return 0;
    error_set(err, -EACCES, "%s may not be called on the socket %s", method->name, section->path);
    error_hint(err, "Add it to \"methods\" of that socket in %s, then: kill -HUP the daemon",
               section->owner->config->name);
    return -EACCES;
}

/* Random, so that no two containers share one, nor 0. */
static uint64_t account_of(const struct peer *peer)
{
    char digits[17] = "";

    if (peer->place != PEER_CONTAINER)
        return 0;
    memcpy(digits, peer->container, sizeof(digits) - 1);
    return strtoull(digits, NULL, 16) | 1;
}

/* As early as can be: the process may end. A container counts by itself, whichever user its
 * processes are. */
static enum rpc_standing admit(struct rpc_connection *connection, uint64_t *account, void *context)
{
    const struct section *section = rpc_connection_tag(connection);
    struct caller *caller = caller_of(section->owner, connection);

    if (caller->peer->later)
        return RPC_NOT_NOW;
    *account = account_of(caller->peer);
    return is_welcome(section, caller, rpc_connection_fd(connection)) ? RPC_WELCOME : RPC_GUEST;
}

void sockets_connection_closed(struct rpc_connection *connection, void *context)
{
    struct caller *caller = rpc_connection_data(connection);

    if (!caller)
        return;
    rpc_connection_set_data(connection, NULL);
    peer_free(caller->peer);
    free(caller);
}

bool sockets_is_method(const char *pattern)
{
    for (size_t i = 0; i < management_methods_count; i++) {
        if (fnmatch(pattern, management_methods[i].name, 0) == 0)
            return true;
    }
    for (size_t i = 0; i < rpc_methods_count; i++) {
        if (fnmatch(pattern, rpc_methods[i].name, 0) == 0)
            return true;
    }
    return false;
}

bool sockets_may_call(struct sockets *sockets _unused_, const struct rpc_connection *connection,
                      const char *method)
{
    return is_allowed(rpc_connection_tag(connection), method);
}

bool sockets_sees(struct sockets *sockets _unused_, const struct rpc_connection *connection,
                  const char *id, const char *name)
{
    const struct section *section = rpc_connection_tag(connection);
    const struct config_listen *listen = section->config->section;
    const struct caller *caller = rpc_connection_data(connection);

    if (!listen->visible || fits_container(listen->visible, listen->visible_count, id, name))
        return true;
    return caller && id[0] && text_equal(caller->peer->container, id) &&
           strv_contains(listen->visible, "@self");
}

/* ---- rpc.whoami ---- */

static void add_methods(const struct section *section, const struct json_method *methods,
                        size_t count, char ***list)
{
    for (size_t i = 0; i < count; i++) {
        if (!section || is_allowed(section, methods[i].name))
            strv_append(list, methods[i].name);
    }
}

static void fill_peer(const struct sockets *sockets, const struct peer *peer,
                      struct api_identity *identity)
{
    identity->uid = peer->uid;
    identity->has_uid = peer->uid != (uid_t)-1;
    identity->gid = peer->gid;
    identity->has_gid = peer->gid != (gid_t)-1;
    identity->pid = peer->pid;
    identity->has_pid = peer->pid > 0;
    if (peer->place != PEER_CONTAINER)
        return;
    identity->container = (char *)(uintptr_t)peer->container;
    identity->container_name = (char *)(uintptr_t)name_of_container(sockets, peer);
}

bool sockets_has(const struct sockets *sockets, const struct rpc_server *server)
{
    const struct section *section = sockets->sections;

    while (section && section->server != server)
        section = section->next;
    return section != NULL;
}

void sockets_whoami(struct sockets *sockets, struct rpc_request *request)
{
    struct rpc_connection *connection = rpc_request_connection(request);
    const struct section *section = rpc_connection_tag(connection);
    const char *path = section ? section->path : sockets->options->instance->socket;
    struct api_identity identity = {
        .socket = (char *)(uintptr_t)path,
        .certificate = (char *)(uintptr_t)rpc_connection_peer(connection)->name,
    };
    _cleanup_strv_ char **methods = NULL;
    _cleanup_free_ gid_t *groups =
        peer_groups(rpc_connection_fd(connection), &identity.groups_count);

    identity.groups = groups;
    fill_peer(sockets, caller_of(sockets, connection)->peer, &identity);
    add_methods(section, management_methods, management_methods_count, &methods);
    add_methods(section, rpc_methods, rpc_methods_count, &methods);
    identity.methods = methods;
    identity.methods_count = strv_length(methods);
    rpc_reply(request, &identity, NULL, 0);
}

/* ---- making them ---- */

static bool may(const char *method, const void *data)
{
    return is_allowed(data, method);
}

static char *make_document(const struct section *section)
{
    return discover_filter(section->owner->options->document, may, section);
}

/* Whoever died here has left a socket that nobody answers; everything else is somebody's. */
static int clear_place(const char *path, struct error *err)
{
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "look at %s", path);
    if (!S_ISSOCK(status.st_mode))
        return error_set(err, -EEXIST, "%s is there already, and is no socket", path);
    _cleanup_close_ int fd = socket_connect_unix(path, SOCK_STREAM | SOCK_NONBLOCK, NULL);
    if (fd >= 0)
        return error_set(err, -EADDRINUSE, "somebody listens on %s already", path);
    if (fd != -ECONNREFUSED) /* a full queue, another kind of socket, no descriptor of ours */
        return error_errno(err, -fd, "find out whether somebody listens on %s", path);
    return unlink(path) < 0 ? error_errno(err, errno, "remove the old socket %s", path) : 0;
}

/* Who may write to the folder can have put something else there meanwhile: file is the one it has
 * to be, or NULL for one that was just made, of which *ret says which it is. */
static int set_access(const struct config_socket *config, const struct stat *file, struct stat *ret,
                      struct error *err)
{
    struct stat status;
    char name[32];
    _cleanup_close_ int fd = open(config->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "open %s", config->path);
    if (!S_ISSOCK(status.st_mode) ||
        (file && (status.st_ino != file->st_ino || status.st_dev != file->st_dev)))
        return error_set(err, -EEXIST, "%s was exchanged for something that is not ours",
                         config->path);
    if (fchownat(fd, "", config->owner, config->group, AT_EMPTY_PATH) < 0)
        return error_errno(err, errno, "give %s to its owner", config->path);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    if (chmod(name, config->mode) < 0)
        return error_errno(err, errno, "set the mode of %s", config->path);
    *ret = status;
    return 0;
}

/* For root only until it has its owner and its mode. */
static int open_socket(const struct config_socket *config, struct stat *ret, struct error *err)
{
    _cleanup_free_ char *folder = xstrdup(config->path);
    int r;

    *strrchr(folder, '/') = '\0';
    r = folder[0] ? file_mkdir_parents(folder, 0755, err) : 0;
    if (r >= 0)
        r = clear_place(config->path, err);
    if (r < 0)
        return r;
    _cleanup_close_ int fd =
        socket_listen_unix(config->path, SOCK_STREAM | SOCK_NONBLOCK, 0600, err);
    if (fd < 0)
        return fd;
    r = set_access(config, NULL, ret, err);
    return r < 0 ? r : steal_fd(&fd);
}

static int start_server(struct section *section, int listen_fd, struct error *err)
{
    const struct sockets_options *options = section->owner->options;
    struct rpc_server_options server = {
        .limits = section->limits,
        .context = options->context,
        .document = section->document,
        .admit = admit,
        .authorise = authorise,
        .closed = sockets_connection_closed,
    };

    int r = rpc_server_create(options->loop, &server, &section->server, err);
    if (r == 0)
        r = options->add_methods(section->server, err);
    if (r < 0) {
        close_fd(listen_fd);
        return r;
    }
    return rpc_server_listen(section->server, listen_fd, section, err);
}

/* Another file in its place is not ours to remove. */
static void close_section(struct section *section)
{
    struct stat status;

    if (lstat(section->path, &status) == 0 && status.st_ino == section->file.st_ino &&
        status.st_dev == section->file.st_dev)
        unlink(section->path);
    rpc_server_destroy(section->server);
    free(section->document);
    free(section->path);
    free(section);
}

static int open_section(struct sockets *sockets, const struct config_socket *config,
                        struct error *err)
{
    struct stat file;
    int fd = open_socket(config, &file, err);

    if (fd < 0)
        return fd;
    struct section *section = xnew(struct section);
    section->owner = sockets;
    section->config = config;
    section->path = xstrdup(config->path);
    section->limits = sockets_limits(config->section->limits);
    section->document = make_document(section);
    section->file = file;
    int r = start_server(section, fd, err);
    if (r < 0) {
        close_section(section);
        return r;
    }
    section->next = sockets->sections;
    sockets->sections = section;
    log_info("listening on %s", section->path);
    return 0;
}

/* ---- changing them ---- */

static const struct config_socket *find_config(const struct config *config, const char *path)
{
    for (size_t i = 0; i < config->sockets_count; i++) {
        if (text_equal(config->sockets[i].path, path))
            return &config->sockets[i];
    }
    return NULL;
}

/* Whether it is to go on, and with what. */
static bool keep(struct section *section, const struct config *config)
{
    const struct config_socket *next = find_config(config, section->path);
    struct rpc_limits limits = next ? sockets_limits(next->section->limits) : section->limits;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!next || memcmp(&limits, &section->limits, sizeof(limits)) != 0)
        return false;
    section->config = next;
    char *document = make_document(section);
    rpc_server_set_document(section->server, document);
    free(section->document);
    section->document = document;
    if (set_access(next, &section->file, &section->file, &err) < 0)
        log_failure(LOG_ERROR, &err, "the access to %s is as it was", section->path);
    rpc_server_review(section->server);
    return true;
}

static bool is_open(const struct sockets *sockets, const char *path)
{
    const struct section *section = sockets->sections;

    while (section && !text_equal(section->path, path))
        section = section->next;
    return section != NULL;
}

int sockets_apply(struct sockets *sockets, struct config *config)
{
    struct config *before = sockets->config;
    int r = 0;

    sockets->config = config;
    sockets->generation++;
    for (struct section **at = &sockets->sections; *at;) {
        struct section *section = *at;
        if (keep(section, config)) {
            at = &section->next;
            continue;
        }
        *at = section->next;
        log_info("closing %s", section->path);
        close_section(section);
    }
    for (size_t i = 0; i < config->sockets_count; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (is_open(sockets, config->sockets[i].path) ||
            open_section(sockets, &config->sockets[i], &err) >= 0)
            continue;
        log_failure(LOG_ERROR, &err, "a socket of %s is missing", config->name);
        r = -EIO;
    }
    config_free(before);
    return r;
}

struct sockets *sockets_create(const struct sockets_options *options)
{
    struct sockets *sockets = xnew(struct sockets);
    _cleanup_free_ char *mounts = NULL;

    sockets->options = options;
    if (file_read_at(AT_FDCWD, "/proc/self/mountinfo", MOUNTS_BYTES_MAX, &mounts, NULL, NULL) < 0)
        log_warning("the cgroups that this daemon sees are not known");
    sockets->prefixes =
        peer_prefixes(mounts ? mounts : "", sockets->options->instance->cgroup_parent);
    return sockets;
}

void sockets_destroy(struct sockets *sockets)
{
    if (!sockets)
        return;
    while (sockets->sections) {
        struct section *section = sockets->sections;
        sockets->sections = section->next;
        close_section(section);
    }
    config_free(sockets->config);
    strv_free(sockets->prefixes);
    free(sockets);
}
