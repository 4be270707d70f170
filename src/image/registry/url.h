/*
 * Addresses that come from outside, compared as curl understands them: the case of a host, and the
 * port that a scheme has by itself, make no difference.
 */
#ifndef REGISTRY_URL_H
#define REGISTRY_URL_H

#include <stdbool.h>

#include <base/error.h>

/* Whether scheme, host and port are the same. What is no address equals nothing. */
bool url_same_origin(const char *one, const char *other);
bool url_same_host(const char *one, const char *other);
/* localhost, ::1 and 127.0.0.0/8, as they are written. */
bool url_is_loopback(const char *url);
/* Where a Location leads from base, owned and without user and password; NULL: it is no address. */
char *url_resolve(const char *base, const char *location);
/* Whether something without TLS may be asked at url on behalf of a registry at home: where the
 * registry itself is as bare, on this machine or on the registry's own host. */
bool url_may_be_plain(const char *home, const char *url);

#endif
