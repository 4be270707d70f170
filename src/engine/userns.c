#include "userns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <engine/userns.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "idmap.h"

enum { SUBORDINATE_FILE_MAX = 1024 * 1024, AUTO_SIZE_MIN = 1, NAME_MAX_SHOWN = 64 };

static const char uid_file[] = "/etc/subuid", gid_file[] = "/etc/subgid";
static const char host_word[] = "host", remap_word[] = "remap", auto_word[] = "auto";

/* --- settings --------------------------------------------------------------------------------- */

void engine_set_user_namespaces(struct engine *engine, struct userns_settings *settings)
{
    userns_settings_free(engine->userns);
    engine->userns = settings;
}

static const char *default_mode(const struct engine *engine)
{
    return engine->userns && engine->userns->mode ? engine->userns->mode : host_word;
}

bool userns_is_default(const struct engine *engine)
{
    return !text_equal(default_mode(engine), host_word);
}

/* dockerd's `default` is the user that it makes itself. */
static void remap_names(const struct engine *engine, char **ret_user, char **ret_group)
{
    const char *text = engine->userns ? engine->userns->remap : NULL;

    if (text_empty(text) || text_equal(text, "default"))
        text = "dockremap";
    const char *colon = strchr(text, ':');
    *ret_user = colon ? xstrndup(text, (size_t)(colon - text)) : xstrdup(text);
    *ret_group = xstrdup(colon && colon[1] ? colon + 1 : *ret_user);
}

static const char *pool_name(const struct engine *engine)
{
    const char *name = engine->userns ? engine->userns->pool : NULL;

    return text_empty(name) ? "containers" : name;
}

/* --- subordinate IDs -------------------------------------------------------------------------- */

static int read_pool(const char *file, const char *name, struct id_pool *ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    int r = file_read_at(AT_FDCWD, file, SUBORDINATE_FILE_MAX, &text, NULL, err);

    if (r < 0 && r != -ENOENT)
        return r;
    if (r < 0)
        error_finish(err);
    return idmap_read_pool(text ? text : "", file, name, ret, err);
}

static bool touches(struct api_id_range *const *a, size_t a_count, struct api_id_range *const *b,
                    size_t b_count)
{
    for (size_t i = 0; i < a_count; i++) {
        for (size_t j = 0; j < b_count; j++) {
            if (a[i]->host_id < (uint64_t)b[j]->host_id + b[j]->size &&
                b[j]->host_id < (uint64_t)a[i]->host_id + a[i]->size)
                return true;
        }
    }
    return false;
}

/* Where both kinds take their IDs of one name, or of lines that overlap. */
static int check_alone(const struct engine *engine, const struct api_id_mappings *mappings,
                       struct error *err)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *other = engine->containers[i];
        const struct api_id_mappings *its = other->record->user_namespace;
        if (!its || !text_equal(its->kind, auto_word))
            continue;
        if (touches(mappings->uids, mappings->uids_count, its->uids, its->uids_count) ||
            touches(mappings->gids, mappings->gids_count, its->gids, its->gids_count))
            return error_set(err, -EBUSY,
                             "container %s has IDs of its own among those that are to be shared",
                             other->name);
    }
    return 0;
}

static int choose_remap(const struct engine *engine, struct api_id_mappings *mappings,
                        struct error *err)
{
    _cleanup_free_ char *user = NULL, *group = NULL;
    struct id_pool uids, gids;

    remap_names(engine, &user, &group);
    int r = read_pool(uid_file, user, &uids, err);
    if (r == 0)
        r = read_pool(gid_file, group, &gids, err);
    if (r < 0)
        return error_context(err, "remap the container's users"), r;
    idmap_fill(&uids, &mappings->uids, &mappings->uids_count);
    idmap_fill(&gids, &mappings->gids, &mappings->gids_count);
    return check_alone(engine, mappings, err);
}

/* --- a range of its own ----------------------------------------------------------------------- */

static size_t count_ranges(const struct engine *engine, bool groups)
{
    size_t count = 0;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct api_id_mappings *its = engine->containers[i]->record->user_namespace;
        if (its)
            count += groups ? its->gids_count : its->uids_count;
    }
    return count;
}

/* Of every record, of running containers or not: their processes may come back at any time. */
static size_t collect_ranges(const struct engine *engine, bool groups, struct id_range *ret)
{
    size_t count = 0;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct api_id_mappings *its = engine->containers[i]->record->user_namespace;
        struct api_id_range *const *list = !its ? NULL : groups ? its->gids : its->uids;
        size_t length = !its ? 0 : groups ? its->gids_count : its->uids_count;
        for (size_t j = 0; j < length; j++)
            ret[count++] = (struct id_range){list[j]->host_id, list[j]->size};
    }
    return count;
}

static int take_range(const struct engine *engine, bool groups, uint32_t size,
                      struct api_id_range ***ret, size_t *ret_count, struct error *err)
{
    const char *file = groups ? gid_file : uid_file, *name = pool_name(engine);
    struct id_pool pool, one = {.count = 1};
    int r = read_pool(file, name, &pool, err);

    if (r < 0)
        return r;
    _cleanup_free_ struct id_range *used =
        xnew_array(struct id_range, count_ranges(engine, groups) + 1);
    size_t count = collect_ranges(engine, groups, used);
    one.ranges[0].count = size;
    if (!idmap_find_free(&pool, used, count, size, &one.ranges[0].first)) {
        error_set(err, -ENOSPC, "the IDs of '%s' in %s are used up: no %u in a row are free", name,
                  file, size);
        return error_hint(err, "remove containers, ask for less with --userns=auto:size=N, or add "
                               "IDs to the file"),
               -ENOSPC;
    }
    idmap_fill(&one, ret, ret_count);
    return 0;
}

static int auto_size(const struct engine *engine, const char *mode, uint32_t *ret,
                     struct error *err)
{
    const char *options = mode + strlen(auto_word);
    uint64_t size = engine->userns && engine->userns->has_size ? engine->userns->size
                                                               : (uint64_t)IDMAP_SIZE_DEFAULT;

    if (options[0] &&
        (!text_starts_with(options, ":size=") ||
         text_to_u64(options + strlen(":size="), AUTO_SIZE_MIN, UINT32_MAX - 1, &size) < 0)) {
        error_set(err, -EINVAL, "invalid USER mode: %.80s", mode);
        return error_hint(err, "auto takes one option: auto:size=N"), -EINVAL;
    }
    *ret = (uint32_t)size;
    return 0;
}

static int choose_auto(const struct engine *engine, const char *mode,
                       struct api_id_mappings *mappings, struct error *err)
{
    uint32_t size;
    int r = auto_size(engine, mode, &size, err);

    if (r == 0)
        r = take_range(engine, false, size, &mappings->uids, &mappings->uids_count, err);
    if (r == 0)
        r = take_range(engine, true, size, &mappings->gids, &mappings->gids_count, err);
    return r;
}

/* --- choosing --------------------------------------------------------------------------------- */

struct container *userns_partner(const struct container *container)
{
    const struct api_container_spec *spec = container->spec;
    const char *const modes[] = {spec->network_mode, spec->pid_mode, spec->ipc_mode};
    struct container *partner;

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (modes[i] && text_starts_with(modes[i], "container:") &&
            engine_find(container->engine, strchr(modes[i], ':') + 1, &partner, NULL) == 0)
            return partner;
    }
    return NULL;
}

/* dockerd's, verifyPlatformContainerSettings: its clients know these words. */
static int check_shared(const struct api_container_spec *spec, struct error *err)
{
    if (spec->privileged)
        return error_set(err, -EINVAL,
                         "privileged mode is incompatible with user namespaces.  You must run the "
                         "container in the host namespace when running privileged mode");
    if (text_equal(spec->network_mode, host_word))
        return error_set(err, -EINVAL,
                         "cannot share the host's network namespace when user "
                         "namespaces are enabled");
    if (text_equal(spec->pid_mode, host_word))
        return error_set(err, -EINVAL,
                         "cannot share the host PID namespace when user namespaces are enabled");
    return 0;
}

static int check_partner(const struct container *container, const struct container *partner,
                         const struct api_id_mappings *mappings, struct error *err)
{
    if (!partner || idmap_equal(mappings, partner->record->user_namespace))
        return 0;
    error_set(err, -EINVAL,
              "cannot share namespaces with container %s, whose user namespace is another one",
              partner->name);
    return error_hint(err, "without --userns %s gets that of %s", container->name, partner->name),
           -EINVAL;
}

int userns_choose(struct container *container, struct error *err)
{
    const struct engine *engine = container->engine;
    const struct container *partner = userns_partner(container);
    const char *mode = container->spec->userns_mode;

    if (text_empty(mode) && partner) {
        container->record->user_namespace = idmap_copy(partner->record->user_namespace);
        return container->record->user_namespace ? check_shared(container->spec, err) : 0;
    }
    if (text_empty(mode))
        mode = default_mode(engine);
    if (text_equal(mode, host_word))
        return check_partner(container, partner, NULL, err);
    int r = check_shared(container->spec, err);
    if (r < 0)
        return error_hint(err, "--userns=host gives it the machine's users"), r;
    _cleanup_api_id_mappings_ struct api_id_mappings *mappings = xnew(struct api_id_mappings);
    bool remap = text_equal(mode, remap_word);
    mappings->kind = xstrdup(remap ? remap_word : auto_word);
    r = remap ? choose_remap(engine, mappings, err) : choose_auto(engine, mode, mappings, err);
    if (r == 0)
        r = idmap_check(mappings, err);
    if (r == 0)
        r = check_partner(container, partner, mappings, err);
    if (r == 0)
        container->record->user_namespace = steal_ptr(mappings);
    return r;
}

static void append_ranges(struct buffer *text, struct api_id_range *const *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buffer_printf(text, "%s%u:%u:%u", i ? "," : "", ranges[i]->container_id, ranges[i]->host_id,
                      ranges[i]->size);
}

char *userns_text(const struct container *container)
{
    const struct api_id_mappings *mappings = container->record->user_namespace;
    struct buffer text = BUFFER_INIT;

    if (!mappings)
        return NULL;
    append_ranges(&text, mappings->uids, mappings->uids_count);
    buffer_append_char(&text, ' ');
    append_ranges(&text, mappings->gids, mappings->gids_count);
    return buffer_steal(&text);
}

/* --- when it starts --------------------------------------------------------------------------- */

static int check_id(struct api_id_range *const *ranges, size_t count, const char *what, uint32_t id,
                    struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (id >= ranges[i]->container_id && id - ranges[i]->container_id < ranges[i]->size)
            return 0;
    }
    error_set(err, -EINVAL, "%s %u is not in the container's user namespace", what, id);
    return error_hint(err, "--userns=auto:size=N gives it more IDs"), -EINVAL;
}

static int check_user(const struct api_id_mappings *mappings, const struct user *user,
                      struct error *err)
{
    int r = check_id(mappings->uids, mappings->uids_count, "user", user->uid, err);

    if (r == 0)
        r = check_id(mappings->gids, mappings->gids_count, "group", user->gid, err);
    for (size_t i = 0; r == 0 && i < user->additional_gids_count; i++)
        r = check_id(mappings->gids, mappings->gids_count, "group", user->additional_gids[i], err);
    return r;
}

int userns_check(const struct container *container, const struct user *user, struct error *err)
{
    const struct api_id_mappings *mappings = container->record->user_namespace;

    return mappings ? check_user(mappings, user, err) : 0;
}

/* --- the namespace itself --------------------------------------------------------------------- */

/* State on entry: a copy of the daemon with its descriptors, in the new namespaces. It only has to
 * be there. */
static void stand_by(pid_t parent) __attribute__((noreturn));

static void stand_by(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    syscall(SYS_close_range, 0U, ~0U, 0U);
    while (getppid() == parent) /* which may have ended before the first line */
        pause();
    _exit(0);
}

static int write_map(pid_t pid, const char *file, struct api_id_range *const *ranges, size_t count,
                     struct error *err)
{
    _cleanup_buffer_ struct buffer lines = BUFFER_INIT;
    char path[48];

    idmap_write_lines(ranges, count, &lines);
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    return file_write_existing_at(AT_FDCWD, path, lines.data, lines.length, err);
}

static int open_namespace(pid_t pid, const char *kind, int *ret_fd, struct error *err)
{
    char path[48];

    snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    *ret_fd = fd;
    return 0;
}

static int explain_clone(int code, struct error *err)
{
    error_errno(err, code, "make a user namespace");
    if (code == ENOSPC || code == EUSERS)
        error_hint(err, "sysctl user.max_user_namespaces says how many there may be");
    else if (code == EINVAL || code == EPERM)
        error_hint(err, "the kernel has none (CONFIG_USER_NS) or does not allow them; run it with "
                        "--userns=host");
    return -code;
}

/* ret_netns_fd: NULL: no network namespace. */
static int make(const struct api_id_mappings *mappings, int *ret_fd, int *ret_netns_fd,
                struct error *err)
{
    unsigned long flags = CLONE_NEWUSER | (ret_netns_fd ? (unsigned long)CLONE_NEWNET : 0);
    pid_t parent = getpid();
    /* No exit signal: nobody but us waits for it. */
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);

    if (pid == 0)
        stand_by(parent);
    if (pid < 0)
        return explain_clone(errno, err);
    int r = write_map(pid, "gid_map", mappings->gids, mappings->gids_count, err);
    if (r == 0)
        r = write_map(pid, "uid_map", mappings->uids, mappings->uids_count, err);
    if (r == 0)
        r = open_namespace(pid, "user", ret_fd, err);
    if (r == 0 && ret_netns_fd)
        r = open_namespace(pid, "net", ret_netns_fd, err);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
    return r;
}

int userns_open_mapping(const struct api_id_mappings *mappings, int *ret_fd, struct error *err)
{
    return make(mappings, ret_fd, NULL, err);
}

/* State on entry: as that of stand_by(), in the daemon's namespaces. A byte on ready_fd says that
 * it is where it should be. */
static void stand_by_inside(pid_t parent, int namespace_fd, int ready_fd) __attribute__((noreturn));

static void stand_by_inside(pid_t parent, int namespace_fd, int ready_fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (setns(namespace_fd, CLONE_NEWUSER) < 0 || unshare(CLONE_NEWNET) < 0 ||
        write(ready_fd, "", 1) != 1)
        _exit(1);
    stand_by(parent);
}

/* A network namespace that belongs to a user namespace which is there: whoever has another one's
 * cannot mount its sysfs. */
static int make_network(int namespace_fd, int *ret_fd, struct error *err)
{
    pid_t parent = getpid();
    int ready[2];
    char byte;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    pid_t pid = (pid_t)syscall(SYS_clone, 0UL, NULL, NULL, NULL, NULL);
    if (pid == 0)
        stand_by_inside(parent, namespace_fd, ready[1]);
    int failure = errno;
    close_fd(ready[1]);
    if (pid < 0) {
        close_fd(ready[0]);
        return error_errno(err, failure, "start a process");
    }
    int r = read(ready[0], &byte, 1) == 1
                ? open_namespace(pid, "net", ret_fd, err)
                : error_set(err, -EPERM, "make a network in another container's user namespace");
    close_fd(ready[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
    return r;
}

/* The user namespace of a container whose process this is. The process may have gone to one that it
 * made itself; its PID namespace, if it has one, stays what the container's is (NS_GET_USERNS,
 * Linux 4.9). */
static int open_users_of(pid_t pid, int *ret_fd, struct error *err)
{
    _cleanup_close_ int pids = -1;
    struct stat machine, owner;
    int r = open_namespace(pid, "pid", &pids, err);

    if (r < 0)
        return r;
    _cleanup_close_ int fd = ioctl(pids, NS_GET_USERNS);
    if (fd < 0 || fstat(fd, &owner) < 0 || stat("/proc/self/ns/user", &machine) < 0 ||
        owner.st_ino == machine.st_ino)
        return open_namespace(pid, "user", ret_fd, err);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* A network of its own for who shares the other's user namespace. */
static int make_network_beside(const struct container *partner, int *ret_fd, struct error *err)
{
    _cleanup_close_ int users = -1;

    if (partner->state != CONTAINER_RUNNING || partner->record->pid <= 0)
        return error_set(err, -EBUSY, "cannot join user namespace of a non running container: %s",
                         partner->id);
    int r = open_users_of((pid_t)partner->record->pid, &users, err);
    return r < 0 ? r : make_network(users, ret_fd, err);
}

int userns_open(const struct container *container, struct userns *ret, struct error *err)
{
    const struct api_id_mappings *mappings = container->record->user_namespace;
    const struct container *partner = userns_partner(container);
    int r = check_partner(container, partner, mappings, err);

    if (r < 0 || !mappings)
        return r;
    ret->users.root_uid = idmap_root(mappings->uids, mappings->uids_count);
    ret->users.root_gid = idmap_root(mappings->gids, mappings->gids_count);
    if (partner && !network_shared_with(container))
        r = make_network_beside(partner, &ret->netns_fd, err);
    if (r < 0)
        return r;
    return make(mappings, &ret->users.namespace_fd, partner ? NULL : &ret->netns_fd, err);
}

void userns_close(struct userns *userns)
{
    close_fd(steal_fd(&userns->users.namespace_fd));
    close_fd(steal_fd(&userns->netns_fd));
}
