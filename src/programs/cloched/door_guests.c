#include "door_guests.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/door.h>
#include <schema/management.h>
#include <schema/rpc.h>

/* What the door has said of a connection. */
struct guest {
    bool begun; /* something was called: who it is has been said by then, or never will be */
    bool introduced;
    char *
        *names; /* owned: "CN:till 7", "DNS:...", "email:...", "URI:...", "IP:...", "SHA256:..." */
};

/* ---- who may do what ---- */

static bool fits_one(char *const *patterns, size_t count, const char *word)
{
    for (size_t i = 0; i < count; i++)
        if (fnmatch(patterns[i], word, 0) == 0)
            return true;
    return false;
}

static bool grant_is_for(const struct door_grant *grant, char *const *names)
{
    for (; names && *names; names++)
        if (fits_one(grant->certificates, grant->certificates_count, *names))
            return true;
    return false;
}

/* Settings that name no methods at all let everybody who comes in do everything. */
static bool is_allowed(const struct door_settings *settings, const struct guest *guest,
                       const char *method)
{
    if (!settings->methods && !settings->grants)
        return true;
    if (fits_one(settings->methods, settings->methods_count, method))
        return true;
    for (size_t i = 0; i < settings->grants_count; i++) {
        const struct door_grant *grant = settings->grants[i];
        if (fits_one(grant->methods, grant->methods_count, method) &&
            grant_is_for(grant, guest->names))
            return true;
    }
    return false;
}

static int authorise(struct rpc_connection *connection, const struct json_method *method,
                     void *context _unused_, struct error *err)
{
    struct guest *guest = rpc_connection_data(connection);
    const char *name = rpc_connection_peer(connection)->name;
    bool first = !guest->begun;

    guest->begun = true;
    /* Also where its parameters are refused the client's word must not count for the door's. */
    if (text_equal(method->name, "rpc.peer"))
        return first ? 0
                     : error_set(err, -EACCES, "only a door may say who is behind a connection");
    if (!guest->introduced)
        return error_set(err, -EACCES, "nobody has said who is behind this connection");
    if (is_allowed(rpc_connection_tag(connection), guest, method->name))
        return 0;
    error_set(err, -EACCES, "%s may not be called %s%s", method->name,
              name ? "by " : "without a certificate", name ? name : "");
    error_hint(err, "See methods and grants in the settings of the door: cloched(8)");
    return -EACCES;
}

/* ---- who is there ---- */

static void on_opened(struct rpc_connection *connection, void *context _unused_)
{
    rpc_connection_set_data(connection, xnew(struct guest));
}

static void on_closed(struct rpc_connection *connection, void *context _unused_)
{
    struct guest *guest = rpc_connection_data(connection);

    rpc_connection_set_data(connection, NULL);
    strv_free(guest->names);
    free(guest);
}

static void add_name(struct guest *guest, const char *kind, const char *name)
{
    if (name)
        strv_take(&guest->names, xasprintf("%s:%s", kind, name));
}

static void introduce(struct guest *guest, const struct rpc_introduction *introduction)
{
    guest->introduced = true;
    add_name(guest, "CN", introduction->name);
    for (size_t i = 0; i < introduction->names_count; i++)
        strv_append(&guest->names, introduction->names[i]);
    add_name(guest, "SHA256", introduction->fingerprint);
}

/* The door's word comes first. What the client says goes the same way, so that a second one would
 * be its own. */
static void on_peer(struct rpc_request *request, const void *params, void *context _unused_)
{
    const struct rpc_introduction *introduction = params;
    struct rpc_connection *connection = rpc_request_connection(request);
    struct guest *guest = rpc_connection_data(connection);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!guest || guest->introduced) {
        error_set(&err, -EACCES, "only a door may say who is behind a connection");
        rpc_fail_errno(request, &err);
        return;
    }
    introduce(guest, introduction);
    rpc_connection_set_name(connection, guest->names ? guest->names[0] : NULL);
    log_debug("%s at %s: %s", introduction->address, introduction->listener,
              guest->names ? guest->names[0] : "no certificate");
    rpc_reply(request, NULL, NULL, 0);
}

static void add_methods(const struct rpc_connection *connection, const struct json_method *methods,
                        size_t count, char ***list)
{
    for (size_t i = 0; i < count; i++) {
        if (is_allowed(rpc_connection_tag(connection), rpc_connection_data(connection),
                       methods[i].name))
            strv_append(list, methods[i].name);
    }
}

void door_guests_whoami(struct rpc_request *request)
{
    const struct rpc_connection *connection = rpc_request_connection(request);
    struct api_identity identity = {
        .socket = (char *)"door",
        .certificate = (char *)(uintptr_t)rpc_connection_peer(connection)->name,
    };
    _cleanup_strv_ char **methods = NULL;

    add_methods(connection, management_methods, management_methods_count, &methods);
    add_methods(connection, rpc_methods, rpc_methods_count, &methods);
    identity.methods = methods;
    identity.methods_count = strv_length(methods);
    rpc_reply(request, &identity, NULL, 0);
}

int door_guests_create(const struct door_keeper_options *options, struct rpc_server **ret,
                       struct error *err)
{
    static const struct json_method peer_type = {.name = "rpc.peer",
                                                 .params = &rpc_introduction_type};
    static const struct rpc_method peer_method = {&peer_type, on_peer};
    const struct rpc_server_options server_options = {
        .document = options->document,
        .context = options->context,
        .authorise = authorise,
        .opened = on_opened,
        .closed = on_closed,
    };
    struct rpc_server *server;

    int r = rpc_server_create(options->loop, &server_options, &server, err);
    if (r < 0)
        return r;
    r = rpc_server_add_methods(server, &peer_method, 1, err);
    if (r == 0)
        r = options->add_methods(server, err);
    if (r < 0) {
        rpc_server_destroy(server);
        return r;
    }
    *ret = server;
    return 0;
}
