/*
 * What is shown to a registry: basic credentials, or a token of the service that it names.
 */
#ifndef REGISTRY_AUTHORIZE_H
#define REGISTRY_AUTHORIZE_H

#include "session.h"

/* What is to be sent now, owned; NULL: nothing. */
char *authorize_current(struct session *session);

/* The registry wanted more than `refused` (NULL: nothing was sent): gets it, unless another thread
 * has done so meanwhile. -EACCES: it is not to be had. lane is free; it is used for the token
 * service. */
int authorize(struct session *session, struct http_lane *lane, const char *challenge,
              const char *refused, struct error *err);

/* For login: asks the token service for a token to keep in place of the password. *ret_token NULL:
 * there is none. */
int authorize_keep(struct session *session, struct http_lane *lane, const char *challenge,
                   char **ret_token, struct error *err);

#endif
