#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/process.h>
#include <base/text.h>
#include <door/address.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/door.h>

#include "door.h"
#include "door_guests.h"
#include "door_process.h"

#define NS_PER_MS 1000000ULL

enum {
    LISTEN_MAX = DOOR_SOCKETS_MAX,
    BIND_STEP_MS = 50,
    SAID_MAX = 4096,
    FILES = 5,       /* that a door reads */
    RETIRED_MAX = 8, /* doors whose last clients are awaited; the oldest is ended for another */
};

struct place {
    struct door_keeper *keeper;
    char *url; /* owned */
    struct rpc_watch watch;
};

/* Another file, or another text in it. */
struct stamp {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct retired {
    struct retired *next; /* the younger one */
    struct door_process *process;
};

struct door_keeper {
    struct rpc_loop *loop;
    struct door_settings *settings;
    char *program;
    struct place places[LISTEN_MAX];
    size_t places_count;
    uid_t uid;
    gid_t gid;
    struct door_process *current; /* NULL: none runs, and the places are watched here */
    char **argv;                  /* owned; of what the current one was to do */
    struct stamp stamps[FILES];   /* of its files */
    struct retired *retired;
    struct door_guests *guests;
    struct rpc_timer retry;
    uint64_t pause_ms; /* after the next crash */
};

/* ---- who it runs as ---- */

/* /etc/passwd alone: what else NSS may ask could block, or be a stranger. */
static void find_user(struct door_keeper *keeper)
{
    const char *name = keeper->settings->user ? keeper->settings->user : "cloche-door";
    _cleanup_fclose_ FILE *file = fopen("/etc/passwd", "re");
    struct passwd *entry;

    keeper->uid = keeper->gid = DOOR_FALLBACK_ID;
    while (file && (entry = fgetpwent(file))) {
        if (text_equal(entry->pw_name, name)) {
            keeper->uid = entry->pw_uid;
            keeper->gid = entry->pw_gid;
            return;
        }
    }
}

static int check_user(struct door_keeper *keeper, struct error *err)
{
    const char *name = keeper->settings->user;

    find_user(keeper);
    if (name && keeper->uid == DOOR_FALLBACK_ID)
        return error_set(err, -ENOENT, "door: there is no user '%s'", name);
    if (keeper->uid == 0 || keeper->gid == 0)
        return error_set(err, -EINVAL, "door: it may not run as root");
    return 0;
}

/* ---- how it is called ---- */

static void add_text(char ***argv, const char *option, const char *value)
{
    if (!value)
        return;
    strv_append(argv, option);
    strv_append(argv, value);
}

static void add_number(char ***argv, const char *option, bool given, uint32_t value)
{
    if (!given)
        return;
    strv_append(argv, option);
    strv_take(argv, xasprintf("%u", value));
}

/* All but the places. */
static char **arguments(const struct door_keeper *keeper)
{
    const struct door_settings *settings = keeper->settings;
    char **argv = NULL;

    strv_append(&argv, strrchr(keeper->program, '/') + 1);
    add_text(&argv, "--tls-cert", settings->tls_cert);
    add_text(&argv, "--tls-key", settings->tls_key);
    add_text(&argv, "--tls-client-ca", settings->tls_client_ca);
    add_text(&argv, "--tls-crl", settings->tls_crl);
    add_text(&argv, "--page", settings->page);
    for (size_t i = 0; i < settings->origins_count; i++)
        add_text(&argv, "--origin", settings->origins[i]);
    if (settings->insecure_loopback)
        strv_append(&argv, "--insecure-loopback");
    add_number(&argv, "--connections", settings->has_connections, settings->connections);
    add_number(&argv, "--connections-per-address", settings->has_connections_per_address,
               settings->connections_per_address);
    add_number(&argv, "--handshakes-per-address", settings->has_handshakes_per_address,
               settings->handshakes_per_address);
    add_number(&argv, "--handshake-seconds", settings->has_handshake_seconds,
               settings->handshake_seconds);
    add_number(&argv, "--ping-seconds", settings->has_ping_seconds, settings->ping_seconds);
    add_number(&argv, "--stall-seconds", settings->has_stall_seconds, settings->stall_seconds);
    add_number(&argv, "--idle-seconds", settings->has_idle_seconds, settings->idle_seconds);
    add_number(&argv, "--exit-seconds", true,
               settings->has_exit_seconds ? settings->exit_seconds : DOOR_EXIT_SECONDS);
    add_number(&argv, "--control-fd", true, DOOR_CONTROL_FD);
    add_number(&argv, "--sockets-from", true, DOOR_SOCKETS_FD);
    add_number(&argv, "--uid", true, keeper->uid);
    add_number(&argv, "--gid", true, keeper->gid);
    return argv;
}

static char **arguments_with_places(const struct door_keeper *keeper)
{
    const struct door_settings *settings = keeper->settings;
    char **argv = arguments(keeper);

    for (size_t i = 0; i < settings->listen_count; i++)
        add_text(&argv, "--listen", settings->listen[i]);
    return argv;
}

/* What the door says against its configuration, before anybody comes. */
static int check(const struct door_keeper *keeper, struct error *err)
{
    static char *const environment[] = {NULL};
    _cleanup_strv_ char **argv = arguments_with_places(keeper);
    _cleanup_close_ int said_fd = memfd_create("door", MFD_CLOEXEC);
    const int fds[] = {-1, said_fd, said_fd};
    struct process process;
    char said[SAID_MAX];
    int status;

    if (said_fd < 0)
        return error_errno(err, errno, "make a file in memory");
    strv_append(&argv, "--check");
    const struct process_spec spec = {.path = keeper->program,
                                      .argv = argv,
                                      .environment = environment,
                                      .fds = fds,
                                      .fds_count = ARRAY_SIZE(fds),
                                      .directory = "/",
                                      .new_session = true};
    int r = process_spawn(&spec, &process, err);
    if (r == 0)
        r = process_wait(&process, &status, err);
    if (r < 0)
        return error_context(err, "door"), r;
    if (process_exit_code(status) == 0)
        return 0;
    ssize_t length = pread(said_fd, said, sizeof(said) - 1, 0);
    said[length > 0 ? length : 0] = '\0';
    char *hint = strchr(said, '\n');
    if (hint)
        *hint++ = '\0';
    error_set(err, -EINVAL, "door: %s", said[0] ? said : "it does not start");
    if (!text_empty(hint)) {
        hint[strcspn(hint, "\n")] = '\0';
        error_hint(err, "%s", hint);
    }
    return -EINVAL;
}

/* ---- a running door ---- */

static void watch_places(struct door_keeper *keeper, bool on)
{
    for (size_t i = 0; i < keeper->places_count; i++)
        rpc_loop_watch(keeper->loop, &keeper->places[i].watch, on ? EPOLLIN : 0);
}

static void on_retry(struct rpc_timer *timer)
{
    watch_places((struct door_keeper *)((char *)timer - offsetof(struct door_keeper, retry)), true);
}

static void wait_before_retry(struct door_keeper *keeper, uint64_t started, int status)
{
    uint64_t now = rpc_loop_now(keeper->loop);

    if (now - started >= DOOR_STEADY_MS * NS_PER_MS)
        keeper->pause_ms = DOOR_RETRY_MIN_MS;
    log_error("%s ended %s %d; the next one in %.1f s", strrchr(keeper->program, '/') + 1,
              WIFSIGNALED(status) ? "on signal" : "with exit code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
              (double)keeper->pause_ms / 1000);
    rpc_loop_set_timer(keeper->loop, &keeper->retry, now + keeper->pause_ms * NS_PER_MS);
    keeper->pause_ms *= 2;
    if (keeper->pause_ms > DOOR_RETRY_MAX_MS)
        keeper->pause_ms = DOOR_RETRY_MAX_MS;
}

static void forget_retired(struct door_keeper *keeper, const struct door_process *process)
{
    struct retired **at = &keeper->retired;

    while (*at && (*at)->process != process)
        at = &(*at)->next;
    struct retired *retired = *at;
    if (!retired)
        return;
    *at = retired->next;
    free(retired);
}

static void on_ended(struct door_process *process, int status, void *data)
{
    struct door_keeper *keeper = data;

    if (process != keeper->current) {
        forget_retired(keeper, process);
        return;
    }
    keeper->current = NULL;
    if (status == 0)
        watch_places(keeper, true);
    else
        wait_before_retry(keeper, door_process_started(process), status);
}

static void on_handed(int fd, const char *text, size_t length, void *data)
{
    struct door_keeper *keeper = data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (door_guests_adopt(keeper->guests, fd, text, length, &err) < 0)
        log_failure(LOG_WARNING, &err, "a connection of the door's");
}

/* Those that are not there, or are not named, are all zeros. */
static void take_stamps(const struct door_settings *settings, struct stamp ret[FILES])
{
    const char *const paths[FILES] = {settings->tls_cert, settings->tls_key,
                                      settings->tls_client_ca, settings->tls_crl, settings->page};
    struct stat status;

    memset(ret, 0, FILES * sizeof(*ret));
    for (size_t i = 0; i < FILES; i++) {
        if (!paths[i] || stat(paths[i], &status) < 0)
            continue;
        ret[i].device = status.st_dev;
        ret[i].inode = status.st_ino;
        ret[i].size = status.st_size;
        ret[i].changed = status.st_mtim;
    }
}

static int start_door(struct door_keeper *keeper, struct error *err)
{
    _cleanup_strv_ char **argv = arguments(keeper);
    int sockets[LISTEN_MAX];

    for (size_t i = 0; i < keeper->places_count; i++) {
        add_text(&argv, "--listen", keeper->places[i].url);
        sockets[i] = keeper->places[i].watch.fd;
    }
    strv_free(keeper->argv);
    keeper->argv = arguments_with_places(keeper);
    take_stamps(keeper->settings, keeper->stamps);
    return door_process_start(&(struct door_process_options){.loop = keeper->loop,
                                                             .program = keeper->program,
                                                             .argv = argv,
                                                             .sockets = sockets,
                                                             .sockets_count = keeper->places_count,
                                                             .handed = on_handed,
                                                             .ended = on_ended,
                                                             .data = keeper},
                              &keeper->current, err);
}

static void on_client(struct rpc_watch *watch, uint32_t events _unused_)
{
    struct door_keeper *keeper =
        ((struct place *)((char *)watch - offsetof(struct place, watch)))->keeper;
    _cleanup_error_ struct error err = ERROR_INIT;

    watch_places(keeper, false);
    if (start_door(keeper, &err) < 0) {
        log_failure(LOG_ERROR, &err, "no door could be started");
        rpc_loop_set_timer(keeper->loop, &keeper->retry,
                           rpc_loop_now(keeper->loop) + DOOR_RETRY_MAX_MS * NS_PER_MS);
    }
}

/* ---- begin and end ---- */

static void add_place(struct door_keeper *keeper, const char *url, int fd)
{
    struct place *place = &keeper->places[keeper->places_count++];

    *place = (struct place){
        .keeper = keeper, .url = xstrdup(url), .watch = {.fd = fd, .callback = on_client}};
}

static int open_place(struct door_keeper *keeper, const char *url, struct error *err)
{
    struct door_address address;

    int fd = door_address_parse(url, &address, err);
    for (int waited = 0; fd >= 0; waited += BIND_STEP_MS) {
        fd = door_address_listen(&address, url, err);
        if (fd != -EADDRINUSE || waited >= DOOR_BIND_MS)
            break;
        poll(NULL, 0, BIND_STEP_MS);
        fd = 0;
    }
    if (fd < 0)
        return error_context(err, "door"), fd;
    add_place(keeper, url, fd);
    return 0;
}

static int prepare(struct door_keeper *keeper, const struct door_keeper_options *options,
                   struct error *err)
{
    int r = check_user(keeper, err);

    if (r == 0 && !options->known)
        r = check(keeper, err);
    for (size_t i = 0; r == 0 && i < keeper->settings->listen_count; i++)
        r = open_place(keeper, keeper->settings->listen[i], err);
    if (r == 0)
        r = door_guests_create(options, keeper->settings, &keeper->guests, err);
    if (r == 0)
        watch_places(keeper, true);
    return r;
}

int door_keeper_create(const struct door_keeper_options *options, struct door_keeper **ret,
                       struct error *err)
{
    const char *name = options->program ? options->program : "cloche-door";
    struct door_keeper *keeper = xnew(struct door_keeper);

    *keeper = (struct door_keeper){.loop = options->loop,
                                   .settings = options->settings,
                                   .program = xasprintf("%s/%s", options->libexec, name),
                                   .retry = {.callback = on_retry},
                                   .pause_ms = DOOR_RETRY_MIN_MS};
    int r = prepare(keeper, options, err);
    if (r < 0) {
        door_keeper_destroy(keeper);
        return r;
    }
    *ret = keeper;
    return 0;
}

/* ---- other settings ---- */

static bool is_same(char *const *a, char *const *b)
{
    while (*a && *b && text_equal(*a, *b)) {
        a++;
        b++;
    }
    return !*a && !*b;
}

/* Whether a door that is started now would be another than the current one. */
static bool has_changed(const struct door_keeper *keeper)
{
    _cleanup_strv_ char **argv = arguments_with_places(keeper);
    struct stamp stamps[FILES];

    take_stamps(keeper->settings, stamps);
    return !is_same(argv, keeper->argv) || memcmp(stamps, keeper->stamps, sizeof(stamps)) != 0 ||
           keeper->places_count != keeper->settings->listen_count;
}

/* Opened for each, as each reads from where the last one has ended. */
static void tell_to_retire(const struct door_keeper *keeper, struct door_process *process)
{
    const struct door_settings *settings = keeper->settings;
    _cleanup_close_ int ca = -1, crl = -1;

    if (settings->tls_client_ca)
        ca = open(settings->tls_client_ca, O_RDONLY | O_CLOEXEC);
    if (ca >= 0 && settings->tls_crl)
        crl = open(settings->tls_crl, O_RDONLY | O_CLOEXEC);
    door_process_retire(process, ca, crl);
}

static void add_retired(struct door_keeper *keeper, struct door_process *process)
{
    struct retired **at = &keeper->retired, *first;
    size_t count = 0;

    for (; *at; at = &(*at)->next)
        count++;
    *at = xnew(struct retired);
    (*at)->process = process;
    if (count < RETIRED_MAX)
        return;
    first = keeper->retired;
    keeper->retired = first->next;
    door_process_destroy(first->process);
    free(first);
}

/* It has the old files, in a jail from which it sees no others: the next client gets a new one. All
 * that have clients yet hear what is trusted now. */
static void retire(struct door_keeper *keeper)
{
    if (keeper->current)
        add_retired(keeper, steal_ptr(keeper->current));
    for (struct retired *at = keeper->retired; at; at = at->next)
        tell_to_retire(keeper, at->process);
}

/* The socket of a place that is there already, whatever is to be spoken at it. */
static int take_socket(struct place *places, size_t count, const char *url)
{
    struct door_address wanted, is;

    if (door_address_parse(url, &wanted, NULL) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (places[i].watch.fd >= 0 && door_address_parse(places[i].url, &is, NULL) == 0 &&
            is.socket_length == wanted.socket_length &&
            memcmp(&is.socket, &wanted.socket, is.socket_length) == 0)
            return steal_fd(&places[i].watch.fd);
    }
    return -1;
}

/* What goes is closed first: it may be in the way of what comes. */
static void move_places(struct door_keeper *keeper)
{
    const struct door_settings *settings = keeper->settings;
    struct place before[LISTEN_MAX];
    size_t count = keeper->places_count;
    int fds[LISTEN_MAX];

    watch_places(keeper, false);
    memcpy(before, keeper->places, sizeof(before));
    keeper->places_count = 0;
    for (size_t i = 0; i < settings->listen_count; i++)
        fds[i] = take_socket(before, count, settings->listen[i]);
    for (size_t i = 0; i < count; i++) {
        close_fd(before[i].watch.fd);
        free(before[i].url);
    }
    for (size_t i = 0; i < settings->listen_count; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (fds[i] >= 0)
            add_place(keeper, settings->listen[i], fds[i]);
        else if (open_place(keeper, settings->listen[i], &err) < 0)
            log_failure(LOG_ERROR, &err, "a place of the door is missing");
    }
}

int door_keeper_apply(struct door_keeper *keeper, struct door_settings *settings, struct error *err)
{
    struct door_settings *before = keeper->settings;

    keeper->settings = settings;
    int r = check_user(keeper, err);
    if (r == 0)
        r = check(keeper, err);
    if (r < 0) {
        keeper->settings = before;
        find_user(keeper);
        door_settings_free(settings);
        return r;
    }
    if ((keeper->current || keeper->retired) && has_changed(keeper))
        retire(keeper);
    move_places(keeper);
    door_guests_apply(keeper->guests, settings);
    door_settings_free(before);
    if (!keeper->current && !keeper->retry.place)
        watch_places(keeper, true);
    return 0;
}

int door_keeper_check(struct door_settings *settings, const char *libexec, struct error *err)
{
    struct door_keeper keeper = {.settings = settings};
    _cleanup_free_ char *program = xasprintf("%s/cloche-door", libexec);

    keeper.program = program;
    int r = check_user(&keeper, err);
    return r < 0 ? r : check(&keeper, err);
}

void door_keeper_destroy(struct door_keeper *keeper)
{
    if (!keeper)
        return;
    rpc_loop_clear_timer(keeper->loop, &keeper->retry);
    for (size_t i = 0; i < keeper->places_count; i++) {
        rpc_loop_watch(keeper->loop, &keeper->places[i].watch, 0);
        close(keeper->places[i].watch.fd);
        free(keeper->places[i].url);
    }
    door_process_destroy(keeper->current);
    while (keeper->retired) {
        struct retired *retired = keeper->retired;
        keeper->retired = retired->next;
        door_process_destroy(retired->process);
        free(retired);
    }
    door_guests_destroy(keeper->guests);
    strv_free(keeper->argv);
    free(keeper->program);
    door_settings_free(keeper->settings);
    free(keeper);
}
