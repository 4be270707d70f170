#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "tls.h"

#define PRIORITIES                                                                                 \
    "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-SHA1:-SIGN-RSA-SHA1:-SIGN-DSA-SHA1:"           \
    "-SIGN-ECDSA-SHA1"

enum { SUBJECT_MAX = 1024 };

struct tls {
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priorities;
    gnutls_typed_vdata_st purpose;
    bool mutual;
};

void tls_destroy(struct tls *tls)
{
    if (!tls)
        return;
    if (tls->priorities)
        gnutls_priority_deinit(tls->priorities);
    if (tls->credentials)
        gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

static int load_pair(struct tls *tls, const struct door_config *config, struct error *err)
{
    _cleanup_free_ char *cert = NULL, *key = NULL;
    size_t cert_length, key_length;

    int r = file_read_at(AT_FDCWD, config->tls_cert, DOOR_FILE_MAX, &cert, &cert_length, err);
    if (r >= 0)
        r = file_read_at(AT_FDCWD, config->tls_key, DOOR_FILE_MAX, &key, &key_length, err);
    if (r < 0)
        return r;
    const gnutls_datum_t cert_data = {(unsigned char *)cert, (unsigned)cert_length};
    const gnutls_datum_t key_data = {(unsigned char *)key, (unsigned)key_length};
    r = gnutls_certificate_set_x509_key_mem(tls->credentials, &cert_data, &key_data,
                                            GNUTLS_X509_FMT_PEM);
    gnutls_memset(key, 0, key_length);
    if (r >= 0)
        return 0;
    error_set(err, -EINVAL, "certificate %s with key %s: %s", config->tls_cert, config->tls_key,
              gnutls_strerror(r));
    return error_hint(err, "Both are PEM files; the key is not encrypted and is the certificate's"),
           -EINVAL;
}

typedef int (*set_list)(gnutls_certificate_credentials_t credentials, const gnutls_datum_t *text,
                        gnutls_x509_crt_fmt_t format);

/* Authorities, or lists of what they have revoked. */
static int load_list(struct tls *tls, const char *path, set_list set, const char *what,
                     struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;

    int r = file_read_at(AT_FDCWD, path, DOOR_FILE_MAX, &text, &length, err);
    if (r < 0)
        return r;
    const gnutls_datum_t data = {(unsigned char *)text, (unsigned)length};
    r = set(tls->credentials, &data, GNUTLS_X509_FMT_PEM);
    if (r <= 0)
        return error_set(err, -EINVAL, "%s: %s: %s", what, path,
                         r < 0 ? gnutls_strerror(r) : "there is none in it");
    return 0;
}

static int load(struct tls *tls, const struct door_config *config, struct error *err)
{
    int r = load_pair(tls, config, err);

    if (r == 0 && config->tls_client_ca)
        r = load_list(tls, config->tls_client_ca, gnutls_certificate_set_x509_trust_mem,
                      "authorities of clients' certificates", err);
    if (r == 0 && config->tls_crl)
        r = load_list(tls, config->tls_crl, gnutls_certificate_set_x509_crl_mem,
                      "revoked certificates", err);
    return r;
}

static void set_purpose(struct tls *tls)
{
    tls->purpose = (gnutls_typed_vdata_st){
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT,
    };
}

int tls_create(const struct door_config *config, struct tls **ret, struct error *err)
{
    *ret = NULL;
    if (!config->tls_cert)
        return 0;
    struct tls *tls = xnew(struct tls);
    int r = gnutls_certificate_allocate_credentials(&tls->credentials);
    if (r >= 0)
        r = gnutls_priority_init(&tls->priorities, PRIORITIES, NULL);
    r = r < 0 ? error_set(err, -EIO, "TLS: %s", gnutls_strerror(r)) : load(tls, config, err);
    if (r < 0) {
        tls_destroy(tls);
        return r;
    }
    tls->mutual = config->tls_client_ca;
    set_purpose(tls);
    *ret = tls;
    return 0;
}

/* ---- other authorities ---- */

static int load_open(struct tls *tls, int fd, set_list set, const char *what, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;

    int r = file_read_fd(fd, DOOR_FILE_MAX, &text, &length, err);
    if (r < 0)
        return r;
    const gnutls_datum_t data = {(unsigned char *)text, (unsigned)length};
    r = set(tls->credentials, &data, GNUTLS_X509_FMT_PEM);
    return r > 0 ? 0
                 : error_set(err, -EINVAL, "%s: %s", what,
                             r < 0 ? gnutls_strerror(r) : "there is none in it");
}

int tls_trust(int ca_fd, int crl_fd, struct tls **ret, struct error *err)
{
    struct tls *tls = xnew(struct tls);

    set_purpose(tls);
    int r = gnutls_certificate_allocate_credentials(&tls->credentials);
    r = r < 0 ? error_set(err, -EIO, "TLS: %s", gnutls_strerror(r))
              : load_open(tls, ca_fd, gnutls_certificate_set_x509_trust_mem,
                          "authorities of clients' certificates", err);
    if (r == 0 && crl_fd >= 0)
        r = load_open(tls, crl_fd, gnutls_certificate_set_x509_crl_mem, "revoked certificates",
                      err);
    if (r < 0) {
        tls_destroy(tls);
        return r;
    }
    *ret = tls;
    return 0;
}

bool tls_trusts(struct tls *trust, struct gnutls_session_int *session)
{
    unsigned status;

    return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, trust->credentials) >= 0 &&
           gnutls_certificate_verify_peers(session, &trust->purpose, 1, &status) >= 0 &&
           status == 0;
}

/* ---- sessions ---- */

/* A browser that a page has sent here offers the protocols that it would speak (ALPN, RFC 7301);
 * whoever offers none is no browser. */
static int refuse_browsers(gnutls_session_t session)
{
    static unsigned char name[] = "cloche-rpc";
    const gnutls_datum_t protocol = {name, sizeof(name) - 1};

    return gnutls_alpn_set_protocols(session, &protocol, 1, GNUTLS_ALPN_MANDATORY);
}

int tls_session(struct tls *tls, int fd, bool http, struct gnutls_session_int **ret,
                struct error *err)
{
    gnutls_session_t session;

    int r = gnutls_init(&session,
                        GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
    if (r < 0)
        return error_set(err, -ENOMEM, "TLS: %s", gnutls_strerror(r));
    r = gnutls_priority_set(session, tls->priorities);
    if (r >= 0)
        r = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
    if (r >= 0 && !http)
        r = refuse_browsers(session);
    if (r < 0) {
        gnutls_deinit(session);
        return error_set(err, -EIO, "TLS: %s", gnutls_strerror(r));
    }
    gnutls_certificate_server_set_request(session,
                                          tls->mutual ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
    if (tls->mutual)
        gnutls_session_set_verify_cert2(session, &tls->purpose, 1, 0);
    /* The door has its own clock for the whole of the handshake. */
    gnutls_handshake_set_timeout(session, GNUTLS_INDEFINITE_TIMEOUT);
    gnutls_transport_set_int(session, fd);
    *ret = session;
    return 0;
}

/* ---- whose certificate it is ---- */

/* What would let a name look like another, or break a line. */
static bool is_printable(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return length > 0;
}

static void add_name(char ***names, unsigned type, const char *text, size_t length)
{
    static const char *const prefixes[] = {[GNUTLS_SAN_DNSNAME] = "DNS",
                                           [GNUTLS_SAN_RFC822NAME] = "email",
                                           [GNUTLS_SAN_URI] = "URI",
                                           [GNUTLS_SAN_IPADDRESS] = "IP"};
    char address[INET6_ADDRSTRLEN];

    if (type >= ARRAY_SIZE(prefixes) || !prefixes[type])
        return;
    if (type == GNUTLS_SAN_IPADDRESS) {
        if ((length != 4 && length != 16) ||
            !inet_ntop(length == 4 ? AF_INET : AF_INET6, text, address, sizeof(address)))
            return;
        text = address;
        length = strlen(address);
    }
    if (is_printable(text, length))
        strv_take(names, xasprintf("%s:%.*s", prefixes[type], (int)length, text));
}

static void read_names(gnutls_x509_crt_t crt, char ***names)
{
    for (unsigned i = 0; i < TLS_NAMES_MAX; i++) {
        char name[TLS_NAME_LENGTH + 1];
        size_t length = sizeof(name);
        unsigned type, critical;
        int r = gnutls_x509_crt_get_subject_alt_name2(crt, i, name, &length, &type, &critical);
        if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            return;
        if (r == GNUTLS_E_SHORT_MEMORY_BUFFER || length > TLS_NAME_LENGTH)
            continue;
        if (r >= 0)
            add_name(names, type, name, length);
    }
}

static char *read_subject(gnutls_x509_crt_t crt)
{
    gnutls_datum_t dn;

    if (gnutls_x509_crt_get_dn3(crt, &dn, 0) < 0)
        return NULL;
    char *subject = dn.size && dn.size <= SUBJECT_MAX && is_printable((char *)dn.data, dn.size)
                        ? xstrndup((char *)dn.data, dn.size)
                        : NULL;
    gnutls_free(dn.data);
    return subject;
}

static char *read_common_name(gnutls_x509_crt_t crt)
{
    char name[TLS_NAME_LENGTH + 1];
    size_t length = sizeof(name);

    int r = gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &length);
    return r >= 0 && is_printable(name, length) ? xstrndup(name, length) : NULL;
}

int tls_certificate(struct gnutls_session_int *session, struct certificate *ret, struct error *err)
{
    unsigned count = 0;
    unsigned char digest[32];
    size_t length = sizeof(digest);
    gnutls_x509_crt_t crt;

    *ret = (struct certificate){0};
    const gnutls_datum_t *chain = session ? gnutls_certificate_get_peers(session, &count) : NULL;
    if (!chain || !count)
        return 0;
    if (gnutls_x509_crt_init(&crt) < 0)
        return error_set(err, -ENOMEM, "TLS: no memory for a certificate");
    if (gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER) < 0 ||
        gnutls_x509_crt_get_fingerprint(crt, GNUTLS_DIG_SHA256, digest, &length) < 0) {
        gnutls_x509_crt_deinit(crt);
        return error_set(err, -EBADMSG, "TLS: the certificate cannot be read");
    }
    text_hex(digest, sizeof(digest), ret->fingerprint);
    ret->subject = read_subject(crt);
    ret->common_name = read_common_name(crt);
    read_names(crt, &ret->names);
    gnutls_x509_crt_deinit(crt);
    return 1;
}

void certificate_finish(struct certificate *certificate)
{
    free(certificate->subject);
    free(certificate->common_name);
    strv_free(certificate->names);
    *certificate = (struct certificate){0};
}
