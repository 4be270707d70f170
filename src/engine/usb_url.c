#include "usb_url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#define SCHEME "usbip://"
#define DEFAULT_PORT "3240" /* IANA: usbip */

void usb_url_free(struct usb_url *url)
{
    if (!url)
        return;
    free(url->host);
    free(url->port);
    free(url->bus_id);
    free(url);
}

char *usb_url_text(const struct usb_url *url)
{
    bool brackets = strchr(url->host, ':') != NULL;

    return xasprintf(SCHEME "%s%s%s:%s/%s", brackets ? "[" : "", url->host, brackets ? "]" : "",
                     url->port, url->bus_id);
}

static int wrong(const char *text, struct error *err)
{
    return error_set(err, -EINVAL,
                     "'%.128s' is no remote USB device: usbip://HOST[:PORT]/BUSID is wanted", text);
}

static bool is_bus_id(const char *text)
{
    return *text && strlen(text) <= USB_BUS_ID_MAX &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
               strlen(text);
}

/* HOST or [HOST], and what comes behind. */
static char *take_host(const char **at)
{
    bool brackets = **at == '[';
    size_t length = strcspn(*at + brackets, brackets ? "]" : ":/");
    char *host = xstrndup(*at + brackets, length);

    *at += brackets + length;
    if (brackets && **at == ']')
        (*at)++;
    return host;
}

int usb_url_parse(const char *text, struct usb_url **ret, struct error *err)
{
    uint64_t number;

    if (!text_starts_with(text, SCHEME) || strlen(text) > USB_URL_MAX)
        return wrong(text, err);
    const char *at = text + strlen(SCHEME);
    struct usb_url *url = xnew(struct usb_url);
    url->host = take_host(&at);
    size_t port = *at == ':' ? strcspn(at + 1, "/") : 0;
    url->port = port ? xstrndup(at + 1, port) : xstrdup(DEFAULT_PORT);
    at += *at == ':' ? 1 + port : 0;
    url->bus_id = xstrdup(*at == '/' ? at + 1 : "");
    if (!url->host[0] || text_to_u64(url->port, 1, 65535, &number) < 0 || !is_bus_id(url->bus_id)) {
        usb_url_free(url);
        return wrong(text, err);
    }
    *ret = url;
    return 0;
}
