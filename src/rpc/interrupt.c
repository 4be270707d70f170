/*
 * Synchronous calls that another thread ends. A thread that waits for an answer does so in the
 * kernel: its connection is shut down under it, which the server notices, too. One that waits for a
 * connection is woken.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <base/alloc.h>

#include "pool.h"

void link_enter(struct cloche_connection *link, struct cloche_cancel *cancel)
{
    struct cloche_client *client = link->endpoint->client;

    link->cancel = cancel;
    link->next_used = client->used;
    link->at_used = &client->used;
    if (link->next_used)
        link->next_used->at_used = &link->next_used;
    client->used = link;
}

void link_leave(struct cloche_connection *link)
{
    if (!link->at_used)
        return;
    *link->at_used = link->next_used;
    if (link->next_used)
        link->next_used->at_used = link->at_used;
    link->at_used = NULL;
    link->cancel = NULL;
}

bool link_cancelled(struct cloche_connection *link)
{
    client_lock(link->endpoint->client);
    bool cancelled = link->cancelled;
    client_unlock(link->endpoint->client);
    return cancelled;
}

/* Under the lock. cancel NULL: all. */
static void shut_down(struct cloche_client *client, const struct cloche_cancel *cancel)
{
    for (struct cloche_connection *link = client->used; link; link = link->next_used) {
        if (cancel && link->cancel != cancel)
            continue;
        link->cancelled = true;
        if (link->fd >= 0)
            shutdown(link->fd, SHUT_RDWR);
    }
    pthread_cond_broadcast(&client->changed);
}

void cloche_client_interrupt(struct cloche_client *client)
{
    if (!client_is_ours(client))
        return;
    client_lock(client);
    client->interrupts++;
    shut_down(client, NULL);
    client_unlock(client);
}

struct cloche_cancel *cloche_cancel_create(struct cloche_client *client)
{
    struct cloche_cancel *cancel = xnew(struct cloche_cancel);

    cancel->client = client;
    return cancel;
}

void cloche_cancel_fire(struct cloche_cancel *cancel)
{
    client_lock(cancel->client);
    cancel->fired = true;
    shut_down(cancel->client, cancel);
    client_unlock(cancel->client);
}

void cloche_cancel_destroy(struct cloche_cancel *cancel)
{
    free(cancel);
}

/* ---- the end of the client ---- */

int client_enter(struct cloche_client *client, struct error *err)
{
    client->callers++;
    if (!client->closing)
        return 0;
    client->callers--;
    return error_set(err, -ECANCELED, "the client is being closed");
}

/* The client may be gone when this returns. */
void client_leave(struct cloche_client *client)
{
    client->callers--;
}

/* Again and again, since a call may be between two connections. */
void client_end_calls(struct cloche_client *client)
{
    client->closing = true;
    while (client->callers) {
        cloche_client_interrupt(client);
        poll(NULL, 0, 1);
    }
}
