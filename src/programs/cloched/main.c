/*
 * cloched: one event loop around the engine and its socket.
 *
 *     options, instance     who we are
 *     config_load           further sockets, limits
 *     listen_lock           the only daemon of the instance
 *     listen_open           clients may queue from here on
 *     engine_create         state opened, network set up, running containers adopted
 *     rpc_server_create     requests are answered; ready
 *     uv_run                until a signal or a request ends it
 *     stop                  everything let go in reverse; containers run on
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include <api/api.h>
#include <base/alloc.h>
#include <base/file.h>
#include <base/instance.h>
#include <base/log.h>
#include <base/memory.h>
#include <base/text.h>
#include <cni/cni.h>
#include <engine/engine.h>
#include <engine/garbage.h>
#include <engine/usb.h>
#include <engine/userns.h>
#include <engine/registry.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/openrpc.h>

#include "config.h"
#include "door.h"
#include "door_guests.h"
#include "listen.h"
#include "options.h"
#include "rootless.h"
#include "rootless_cgroup.h"
#include "sockets.h"

enum { DOCKER_CONNECTIONS = 8192, IDLE_MS = 3000 };

struct daemon {
    char **argv;
    struct options options;
    struct instance instance;
    char *user_cgroup; /* of an ordinary user's containers; NULL: none */
    uv_loop_t loop;
    uv_signal_t terminate;
    uv_signal_t interrupt;
    uv_signal_t hangup; /* the configuration is to be read again */
    uv_timer_t linger;  /* lets the last answer out */
    uv_timer_t idle;    /* nobody has asked for anything for a while */
    struct rpc_loop *rpc_loop;
    uv_poll_t rpc; /* of rpc_loop's descriptor */
    struct engine *engine;
    struct rpc_server *server;
    struct rpc_topic *events;
    struct door_settings *door_settings; /* until the door has them */
    struct door_keeper *door;            /* NULL: nobody comes over a network */
    struct door_keeper *docker;          /* of the socket of the Docker Engine API */
    struct api api;
    struct config *config; /* until the sockets have it */
    struct sockets_options sockets_options;
    struct sockets *sockets;
    int lock_fd;
    bool instance_removed;
    bool ending; /* a signal came */
};

/* --- where the other programs are ------------------------------------------------------------- */

/* $CLOCHE_LIBEXEC, else beside this program (the build tree), else where they were installed. Owned
 * by the caller. */
static char *find_libexec(void)
{
    const char *set = getenv("CLOCHE_LIBEXEC");
    char self[PATH_MAX];

    if (!text_empty(set))
        return xstrdup(set);
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length > 0) {
        self[length] = '\0';
        *strrchr(self, '/') = '\0';
        _cleanup_free_ char *monitor = xasprintf("%s/cloche-monitor", self);
        if (access(monitor, X_OK) == 0)
            return xstrdup(self);
    }
    return xstrdup(CLOCHE_LIBEXECDIR);
}

/* Beside the others in the build tree, in sbin where it was installed. Owned by the caller. */
static char *find_runtime(const char *libexec)
{
    char *beside = xasprintf("%s/cloche-runtime", libexec);

    if (access(beside, X_OK) == 0)
        return beside;
    free(beside);
    return xstrdup(CLOCHE_SBINDIR "/cloche-runtime");
}

/* --- ending ----------------------------------------------------------------------------------- */

static void on_linger_over(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void on_shutdown(bool removed, void *data)
{
    struct daemon *daemon = data;

    daemon->instance_removed = removed;
    uv_timer_start(&daemon->linger, on_linger_over, 1, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;

    log_info("ending on signal %d; containers run on", number);
    /* uv_stop() alone would be forgotten when it comes while the engine still adopts containers. */
    daemon->ending = true;
    uv_stop(handle->loop);
}

static int open_door(struct daemon *daemon, const char *libexec, struct error *err);

/* settings NULL: there is to be none. */
static void apply_door(struct daemon *daemon, struct door_settings *settings)
{
    _cleanup_free_ char *libexec = find_libexec();
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = 0;

    if (!settings) {
        door_keeper_destroy(steal_ptr(daemon->door));
    } else if (daemon->door) {
        r = door_keeper_apply(daemon->door, settings, &err);
    } else {
        daemon->door_settings = settings;
        r = open_door(daemon, libexec, &err);
    }
    if (r < 0)
        log_failure(LOG_ERROR, &err, "the door stays as it was");
}

/* A configuration that is wrong changes nothing. */
static void on_hangup(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct config *config;

    if (!daemon->sockets)
        return; /* still starting */
    if (config_load(daemon->options.config, &daemon->instance, sockets_is_method, &config, &err) <
        0) {
        log_failure(LOG_ERROR, &err, "the configuration stays as it was");
        return;
    }
    if (engine_set_usb(daemon->engine, steal_ptr(config->file->usb), &err) < 0)
        log_failure(LOG_ERROR, &err, "the rules for USB devices stay as they were");
    apply_door(daemon, steal_ptr(config->file->door));
    engine_set_registries(daemon->engine, steal_ptr(config->file->registries));
    engine_set_garbage(daemon->engine, steal_ptr(config->file->garbage));
    engine_set_user_namespaces(daemon->engine, steal_ptr(config->file->user_namespaces));
    if (sockets_apply(daemon->sockets, config) >= 0)
        log_info("the configuration is read again");
    api_publish_daemon(daemon->events, "reload");
}

/* Before connections are closed: a client that sees its connection end knows that nothing is left.
 */
static void remove_run_folder(struct daemon *daemon)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (file_remove_tree_at(AT_FDCWD, daemon->instance.run, &err) < 0)
        log_failure(LOG_ERROR, &err, "the run folder is left");
}

static char *docker_socket(const struct daemon *daemon)
{
    return xasprintf("%s/docker.sock", daemon->instance.run);
}

static void remove_sockets(struct daemon *daemon)
{
    _cleanup_free_ char *docker = docker_socket(daemon);

    unlink(daemon->instance.socket);
    unlink(docker);
}

/* Last: the next daemon begins when it is gone. */
static void remove_lock(struct daemon *daemon)
{
    _cleanup_free_ char *pid = xasprintf("%s/cloched.pid", daemon->instance.run);

    unlink(pid);
}

static void stop(struct daemon *daemon)
{
    bool stays = daemon->lock_fd >= 0 && !daemon->instance_removed;

    listen_notify("STOPPING=1");
    if (daemon->instance_removed) {
        rootless_end(&daemon->instance);
        remove_run_folder(daemon);
    } else if (stays) {
        remove_sockets(daemon);
    }
    door_keeper_destroy(daemon->door);
    door_keeper_destroy(daemon->docker);
    sockets_destroy(daemon->sockets);
    config_free(daemon->config);
    door_settings_free(daemon->door_settings);
    rpc_server_destroy(daemon->server);
    uv_close((uv_handle_t *)&daemon->rpc, NULL);
    engine_end(daemon->engine);
    uv_close((uv_handle_t *)&daemon->terminate, NULL);
    uv_close((uv_handle_t *)&daemon->interrupt, NULL);
    uv_close((uv_handle_t *)&daemon->hangup, NULL);
    uv_close((uv_handle_t *)&daemon->linger, NULL);
    uv_close((uv_handle_t *)&daemon->idle, NULL);
    while (uv_run(&daemon->loop, UV_RUN_DEFAULT))
        ;
    engine_free(daemon->engine);
    if (stays)
        remove_lock(daemon);
    rpc_topic_destroy(daemon->events);
    rpc_loop_destroy(daemon->rpc_loop);
    uv_loop_close(&daemon->loop);
}

/* --- beginning -------------------------------------------------------------------------------- */

static void init_loop(struct daemon *daemon)
{
    uv_loop_init(&daemon->loop);
    uv_signal_init(&daemon->loop, &daemon->terminate);
    uv_signal_init(&daemon->loop, &daemon->interrupt);
    uv_signal_init(&daemon->loop, &daemon->hangup);
    uv_timer_init(&daemon->loop, &daemon->linger);
    uv_timer_init(&daemon->loop, &daemon->idle);
    uv_poll_init(&daemon->loop, &daemon->rpc, rpc_loop_fd(daemon->rpc_loop));
    uv_signal_start(&daemon->terminate, on_signal, SIGTERM);
    uv_signal_start(&daemon->interrupt, on_signal, SIGINT);
    uv_signal_start(&daemon->hangup, on_hangup, SIGHUP);
    daemon->terminate.data = daemon->interrupt.data = daemon->rpc.data = daemon;
    daemon->hangup.data = daemon;
    /* Without the server's socket there is nothing to wait for. */
    uv_unref((uv_handle_t *)&daemon->terminate);
    uv_unref((uv_handle_t *)&daemon->interrupt);
    uv_unref((uv_handle_t *)&daemon->hangup);
    uv_unref((uv_handle_t *)&daemon->idle);
    signal(SIGPIPE, SIG_IGN);
}

/* Descriptors are what a daemon with many containers runs out of first. */
static void raise_limits(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void on_idle(uv_timer_t *timer)
{
    memory_give_back();
}

static void on_rpc(uv_poll_t *poll, int status, int events)
{
    struct daemon *daemon = poll->data;

    uv_timer_start(&daemon->idle, on_idle, IDLE_MS, 0);
    rpc_loop_dispatch(daemon->rpc_loop);
}

static void on_whoami(struct rpc_request *request, void *data)
{
    const struct rpc_server *server = rpc_connection_server(rpc_request_connection(request));
    struct daemon *daemon = data;

    if (server == daemon->server || sockets_has(daemon->sockets, server))
        sockets_whoami(daemon->sockets, request);
    else
        door_guests_whoami(request);
}

static bool on_sees(const struct rpc_connection *connection, const char *id, const char *name,
                    void *data)
{
    const struct daemon *daemon = data;

    return !sockets_has(daemon->sockets, rpc_connection_server(connection)) ||
           sockets_sees(daemon->sockets, connection, id, name);
}

/* What is allowed can have changed since it subscribed. */
static bool on_visible(const struct rpc_connection *connection, const void *event, void *data)
{
    const struct daemon *daemon = data;

    if (sockets_has(daemon->sockets, rpc_connection_server(connection)) &&
        !sockets_may_call(daemon->sockets, connection, "events.subscribe"))
        return false;
    return api_sees_event(&daemon->api, connection, event);
}

static const char *name_of_container(const char *id, void *data)
{
    struct daemon *daemon = data;
    struct container *container;

    return engine_find(daemon->engine, id, &container, NULL) < 0 ? NULL : container_name(container);
}

/* The sockets of the configuration. One that cannot be made does not keep the others from being. */
static void serve_further(struct daemon *daemon)
{
    daemon->sockets_options = (struct sockets_options){
        .loop = daemon->rpc_loop,
        .instance = &daemon->instance,
        .context = &daemon->api,
        .document = schema_openrpc,
        .add_methods = api_add_methods,
        .container_name = name_of_container,
        .data = daemon,
    };
    daemon->sockets = sockets_create(&daemon->sockets_options);
    sockets_apply(daemon->sockets, steal_ptr(daemon->config));
}

static int serve(struct daemon *daemon, int listen_fd, struct error *err)
{
    const struct rpc_server_options options = {
        .limits = sockets_limits(daemon->config->file->limits),
        .context = &daemon->api,
        .document = schema_openrpc,
        .closed = sockets_connection_closed,
    };

    daemon->api = (struct api){.engine = daemon->engine,
                               .events = daemon->events,
                               .sees = on_sees,
                               .whoami = on_whoami,
                               .shutdown = on_shutdown,
                               .data = daemon};
    int r = rpc_server_create(daemon->rpc_loop, &options, &daemon->server, err);
    if (r == 0)
        r = api_add_methods(daemon->server, err);
    if (r == 0)
        r = rpc_server_listen(daemon->server, steal_fd(&listen_fd), NULL, err);
    close_fd(listen_fd);
    if (r < 0)
        return r;
    serve_further(daemon);
    uv_poll_start(&daemon->rpc, UV_READABLE, on_rpc);
    return 0;
}

static int open_door(struct daemon *daemon, const char *libexec, struct error *err)
{
    if (!daemon->door_settings)
        return 0;
    return door_keeper_create(
        &(struct door_keeper_options){.loop = daemon->rpc_loop,
                                      .settings = steal_ptr(daemon->door_settings),
                                      .libexec = libexec,
                                      .context = &daemon->api,
                                      .document = schema_openrpc,
                                      .add_methods = api_add_methods},
        &daemon->door, err);
}

/* A door of its own, with nothing to do with networks; whoever may connect may do everything, as
 * with the main socket. */
static int open_docker(struct daemon *daemon, const char *libexec, struct error *err)
{
    struct door_settings *settings = xnew(struct door_settings);
    _cleanup_free_ char *path = docker_socket(daemon);

    strv_take(&settings->listen, xasprintf("docker+unix://%s", path));
    settings->listen_count = 1;
    settings->connections = DOCKER_CONNECTIONS;
    settings->has_connections = true;
    return door_keeper_create(&(struct door_keeper_options){.loop = daemon->rpc_loop,
                                                            .settings = settings,
                                                            .libexec = libexec,
                                                            .program = "cloche-docker",
                                                            .known = true,
                                                            .context = &daemon->api,
                                                            .document = schema_openrpc,
                                                            .add_methods = api_add_methods},
                              &daemon->docker, err);
}

static int start(struct daemon *daemon, struct error *err)
{
    _cleanup_free_ char *libexec = find_libexec();
    _cleanup_free_ char *runtime = find_runtime(libexec);
    struct engine_config config = {.instance = &daemon->instance,
                                   .loop = &daemon->loop,
                                   .libexec = libexec,
                                   .runtime = runtime,
                                   .on_event = api_publish,
                                   .on_event_data = daemon->events,
                                   .cni = steal_ptr(daemon->config->file->cni),
                                   .usb = steal_ptr(daemon->config->file->usb),
                                   .rootless = rootless_is_inside(&daemon->instance)};

    daemon->user_cgroup = rootless_cgroup_parent();
    config.cgroup_parent = config.rootless ? daemon->user_cgroup : daemon->instance.cgroup_parent;

    daemon->lock_fd = listen_lock(&daemon->instance, err);
    if (daemon->lock_fd < 0)
        return daemon->lock_fd;
    _cleanup_close_ int listen_fd = listen_open(&daemon->instance, err);
    if (listen_fd < 0)
        return listen_fd;
    int r = engine_create(&config, &daemon->engine, err);
    if (r < 0)
        return r;
    engine_set_registries(daemon->engine, steal_ptr(daemon->config->file->registries));
    engine_set_garbage(daemon->engine, steal_ptr(daemon->config->file->garbage));
    engine_set_user_namespaces(daemon->engine, steal_ptr(daemon->config->file->user_namespaces));
    r = serve(daemon, steal_fd(&listen_fd), err);
    if (r == 0)
        r = open_docker(daemon, libexec, err);
    return r < 0 ? r : open_door(daemon, libexec, err);
}

static void tell_ready(struct daemon *daemon)
{
    if (daemon->options.ready_fd >= 0) {
        file_write_all(daemon->options.ready_fd, "1", 1);
        close(daemon->options.ready_fd);
    }
    listen_notify("READY=1");
    log_info("ready on %s", daemon->instance.socket);
}

static int run(struct daemon *daemon, struct error *err)
{
    int r;

    r = instance_init(&daemon->instance, daemon->options.instance, err);
    if (r < 0)
        return r;
    if (daemon->options.root) {
        free(daemon->instance.root);
        daemon->instance.root = xstrdup(daemon->options.root);
    }
    r = config_load(daemon->options.config, &daemon->instance, sockets_is_method, &daemon->config,
                    err);
    if (r >= 0)
        daemon->door_settings = steal_ptr(daemon->config->file->door);
    if (r >= 0 && daemon->options.check_config && daemon->door_settings) {
        _cleanup_free_ char *libexec = find_libexec();
        r = door_keeper_check(daemon->door_settings, libexec, err);
    }
    if (r < 0 || daemon->options.check_config) {
        config_free(steal_ptr(daemon->config));
        door_settings_free(steal_ptr(daemon->door_settings));
        return r;
    }
    if (geteuid() != 0 && daemon->options.ready_fd >= 0)
        fcntl(daemon->options.ready_fd, F_SETFD, 0); /* it is executed again */
    if (geteuid() != 0) {
        _cleanup_free_ char *libexec = find_libexec();
        return rootless_enter(&daemon->instance, libexec, daemon->argv, err);
    }
    r = rpc_loop_create(&daemon->rpc_loop, err);
    if (r < 0)
        return r;
    init_loop(daemon);
    struct rpc_topic_options topic = api_events_topic;
    topic.visible = on_visible;
    topic.data = daemon;
    rpc_topic_create(daemon->rpc_loop, &topic, &daemon->events);
    api_publish_daemon(daemon->events, "start");
    r = start(daemon, err);
    if (r == 0) {
        tell_ready(daemon);
        memory_give_back();
        uv_timer_start(&daemon->idle, on_idle, IDLE_MS, 0);
        if (!daemon->ending)
            uv_run(&daemon->loop, UV_RUN_DEFAULT);
    }
    stop(daemon);
    return r;
}

int main(int argc, char **argv)
{
    if (argc > 1 && text_equal(argv[1], ENGINE_LOOK_OPTION))
        return engine_look();
    if (argc > 1 && text_equal(argv[1], ENGINE_USB_PLACE_OPTION))
        return engine_usb_place();
    if (argc > 1 && text_equal(argv[1], CNI_OPTION))
        return cni_child();
    struct daemon daemon = {.lock_fd = -1, .argv = argv};
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = options_parse(argc, argv, &daemon.options);
    if (r)
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    if (daemon.options.ready_fd >= 0)
        fcntl(daemon.options.ready_fd, F_SETFD, FD_CLOEXEC);
    log_configure("cloched", STDERR_FILENO, daemon.options.log_level, daemon.options.log_format);
    umask(022);
    raise_limits();
    memory_use_one_heap();
    r = run(&daemon, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "cannot start");
    close_fd(daemon.lock_fd);
    instance_finish(&daemon.instance);
    free(daemon.user_cgroup);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
