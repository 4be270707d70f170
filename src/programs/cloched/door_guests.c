#include "door_guests.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/door.h>
#include <schema/management.h>
#include <schema/rpc.h>

#include "discover.h"

/* What counts together against the limits of the server: a certificate, or an address. */
struct account {
    struct account *next;
    char *key; /* owned */
    uint64_t number;
    size_t guests;
};

/* What the door has said of a connection, of which it is the tag. */
struct guest {
    struct guest *next, **at; /* of the door's guests, while it is connected */
    struct door_guests *owner;
    struct account *account;
    struct rpc_connection *connection;     /* while it is connected */
    struct rpc_introduction *introduction; /* owned */
    char *
        *names; /* owned: "CN:till 7", "DNS:...", "email:...", "URI:...", "IP:...", "SHA256:..." */
    unsigned references; /* whoever brings it in, and its connection */
};

struct door_guests {
    struct rpc_server *server;
    const struct door_settings *settings;
    const char *document; /* of all methods */
    struct guest *first;
    struct account *accounts;
    uint64_t last_account;
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

/* Everybody may see who they are and what they may do. */
static bool is_for_all(const char *method)
{
    static const char *const names[] = {"rpc.hello", "rpc.ping", "rpc.cancel", "rpc.whoami",
                                        "rpc.discover"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (text_equal(names[i], method))
            return true;
    return false;
}

/* Settings that name no methods at all let everybody who comes in do everything. */
static bool is_allowed(const struct door_settings *settings, const struct guest *guest,
                       const char *method)
{
    if ((!settings->methods && !settings->grants) || is_for_all(method))
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
    const struct guest *guest = rpc_connection_tag(connection);
    const char *name = guest->names ? guest->names[0] : NULL;

    if (is_allowed(guest->owner->settings, guest, method->name))
        return 0;
    error_set(err, -EACCES, "%s may not be called %s%s", method->name,
              name ? "by " : "without a certificate", name ? name : "");
    error_hint(err, "See methods and grants in the settings of the door: cloched.conf(5)");
    return -EACCES;
}

/* ---- accounts ---- */

/* So that one guest cannot use up what is for all, though to the kernel all of them are the door.
 * The port says nothing of who it is. */
static char *account_key(const struct rpc_introduction *introduction)
{
    const char *port = strrchr(introduction->address, ':');

    if (introduction->fingerprint)
        return xasprintf("SHA256:%s", introduction->fingerprint);
    return xstrndup(introduction->address,
                    port ? (size_t)(port - introduction->address) : strlen(introduction->address));
}

static struct account *account_enter(struct door_guests *guests,
                                     const struct rpc_introduction *introduction)
{
    _cleanup_free_ char *key = account_key(introduction);
    struct account *account = guests->accounts;

    while (account && !text_equal(account->key, key))
        account = account->next;
    if (!account) {
        account = xnew(struct account);
        account->key = steal_ptr(key);
        account->number = ++guests->last_account;
        account->next = guests->accounts;
        guests->accounts = account;
    }
    account->guests++;
    return account;
}

static void account_leave(struct door_guests *guests, struct account *account)
{
    struct account **at = &guests->accounts;

    if (--account->guests)
        return;
    while (*at != account)
        at = &(*at)->next;
    *at = account->next;
    free(account->key);
    free(account);
}

/* ---- who is there ---- */

static void guest_release(struct guest *guest)
{
    if (--guest->references)
        return;
    account_leave(guest->owner, guest->account);
    rpc_introduction_free(guest->introduction);
    strv_free(guest->names);
    free(guest);
}

static void on_opened(struct rpc_connection *connection, void *context _unused_)
{
    struct guest *guest = (struct guest *)(uintptr_t)rpc_connection_tag(connection);

    guest->references++;
    guest->connection = connection;
    guest->next = guest->owner->first;
    guest->at = &guest->owner->first;
    if (guest->next)
        guest->next->at = &guest->next;
    guest->owner->first = guest;
    rpc_connection_set_data(connection, guest);
    rpc_connection_set_name(connection, guest->names ? guest->names[0] : NULL);
}

static void on_closed(struct rpc_connection *connection, void *context _unused_)
{
    struct guest *guest = rpc_connection_data(connection);

    rpc_connection_set_data(connection, NULL);
    *guest->at = guest->next;
    if (guest->next)
        guest->next->at = guest->at;
    guest_release(guest);
}

static void add_name(struct guest *guest, const char *kind, const char *name)
{
    if (name)
        strv_take(&guest->names, xasprintf("%s:%s", kind, name));
}

/* introduction is taken over. */
static struct guest *make_guest(struct door_guests *guests, struct rpc_introduction *introduction)
{
    struct guest *guest = xnew(struct guest);

    guest->owner = guests;
    guest->account = account_enter(guests, introduction);
    guest->introduction = introduction;
    guest->references = 1;
    add_name(guest, "CN", introduction->name);
    for (size_t i = 0; i < introduction->names_count; i++)
        strv_append(&guest->names, introduction->names[i]);
    add_name(guest, "SHA256", introduction->fingerprint);
    return guest;
}

/* ---- who may come, and stay ---- */

/* The door has said so, by the settings that it was started with. */
static bool is_welcome(const struct door_settings *settings,
                       const struct rpc_introduction *introduction)
{
    bool tls = text_equal(introduction->transport, "tls") ||
               text_equal(introduction->transport, "wss") ||
               text_equal(introduction->transport, "docker+tls");

    for (size_t i = 0; i < settings->listen_count; i++)
        if (text_equal(settings->listen[i], introduction->listener))
            return !tls || !introduction->fingerprint == !settings->tls_client_ca;
    return false;
}

static bool names_origin(const struct door_settings *settings, const char *origin)
{
    for (size_t i = 0; origin && i < settings->origins_count; i++)
        if (text_equal(settings->origins[i], "*") || text_equal(settings->origins[i], origin))
            return true;
    return false;
}

static bool loses_one(const struct guest *guest, const struct json_method *methods, size_t count,
                      const struct door_settings *before, const struct door_settings *now)
{
    for (size_t i = 0; i < count; i++)
        if (is_allowed(before, guest, methods[i].name) && !is_allowed(now, guest, methods[i].name))
            return true;
    return false;
}

/* What it has begun with a right that it has no more, a subscription for one, would go on. */
static bool may_stay(const struct guest *guest, const struct door_settings *before,
                     const struct door_settings *now)
{
    const char *origin = guest->introduction->origin;

    return is_welcome(now, guest->introduction) &&
           !(names_origin(before, origin) && !names_origin(now, origin)) &&
           !loses_one(guest, management_methods, management_methods_count, before, now) &&
           !loses_one(guest, rpc_methods, rpc_methods_count, before, now);
}

void door_guests_apply(struct door_guests *guests, const struct door_settings *settings)
{
    const struct door_settings *before = guests->settings;
    struct guest *next;

    guests->settings = settings;
    for (struct guest *guest = guests->first; guest; guest = next) {
        next = guest->next;
        if (may_stay(guest, before, settings))
            continue;
        log_info("%s at %s may not stay by the new settings", guest->introduction->address,
                 guest->introduction->listener);
        rpc_connection_close(guest->connection);
    }
}

int door_guests_adopt(struct door_guests *guests, int fd, const char *text, size_t length,
                      struct error *err)
{
    struct rpc_introduction *introduction;

    int r = rpc_introduction_parse(text, length, NULL, &introduction, err);
    if (r < 0) {
        close_fd(fd);
        return r;
    }
    if (!is_welcome(guests->settings, introduction)) {
        close_fd(fd);
        error_set(err, -EACCES, "%s has come to %s by settings that hold no more",
                  introduction->address, introduction->listener);
        rpc_introduction_free(introduction);
        return -EACCES;
    }
    struct guest *guest = make_guest(guests, introduction);
    log_debug("%s at %s: %s", introduction->address, introduction->listener,
              guest->names ? guest->names[0] : "no certificate");
    r = rpc_server_adopt_for(guests->server, fd, guest, guest->account->number, err);
    guest_release(guest);
    return r;
}

/* ---- what they are told of themselves ---- */

static void add_methods(const struct guest *guest, const struct json_method *methods, size_t count,
                        char ***list)
{
    for (size_t i = 0; i < count; i++)
        if (is_allowed(guest->owner->settings, guest, methods[i].name))
            strv_append(list, methods[i].name);
}

void door_guests_whoami(struct rpc_request *request)
{
    const struct guest *guest = rpc_connection_tag(rpc_request_connection(request));
    const struct rpc_introduction *introduction = guest->introduction;
    struct api_identity identity = {
        .socket = (char *)"door",
        .certificate = guest->names ? guest->names[0] : NULL,
        .certificate_names = guest->names,
        .certificate_names_count = strv_length(guest->names),
        .transport = introduction->transport,
        .listener = introduction->listener,
        .address = introduction->address,
        .origin = introduction->origin,
    };
    _cleanup_strv_ char **methods = NULL;

    add_methods(guest, management_methods, management_methods_count, &methods);
    add_methods(guest, rpc_methods, rpc_methods_count, &methods);
    identity.methods = methods;
    identity.methods_count = strv_length(methods);
    rpc_reply(request, &identity, NULL, 0);
}

static bool may(const char *method, const void *data)
{
    const struct guest *guest = data;

    return is_allowed(guest->owner->settings, guest, method);
}

static void on_discover(struct rpc_request *request, const void *params _unused_,
                        void *context _unused_)
{
    const struct guest *guest = rpc_connection_tag(rpc_request_connection(request));
    _cleanup_free_ char *document = discover_filter(guest->owner->document, may, guest);

    rpc_reply_json(request, document, strlen(document), NULL, 0);
}

/* ---- the server ---- */

/* Its own, since each guest sees another document. */
static int add_discover(struct rpc_server *server, struct error *err)
{
    struct rpc_method method = {.handler = on_discover};

    for (size_t i = 0; i < rpc_methods_count; i++)
        if (text_equal(rpc_methods[i].name, "rpc.discover"))
            method.type = &rpc_methods[i];
    return rpc_server_add_methods(server, &method, 1, err);
}

int door_guests_create(const struct door_keeper_options *options,
                       const struct door_settings *settings, struct door_guests **ret,
                       struct error *err)
{
    const struct rpc_server_options server_options = {
        .limits = {.peer_bytes = RPC_PEER_BYTES_MAX / 4},
        .context = options->context,
        .authorise = authorise,
        .opened = on_opened,
        .closed = on_closed,
    };
    struct door_guests *guests = xnew(struct door_guests);

    guests->settings = settings;
    guests->document = options->document;
    int r = rpc_server_create(options->loop, &server_options, &guests->server, err);
    if (r == 0)
        r = add_discover(guests->server, err);
    if (r == 0)
        r = options->add_methods(guests->server, err);
    if (r < 0) {
        door_guests_destroy(guests);
        return r;
    }
    *ret = guests;
    return 0;
}

void door_guests_destroy(struct door_guests *guests)
{
    if (!guests)
        return;
    rpc_server_destroy(guests->server);
    free(guests);
}
