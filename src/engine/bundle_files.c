#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <net/net.h>

#include "bundle.h"

enum { RESOLV_CONF_MAX = 64 * 1024 };

const char *const bundle_files[BUNDLE_FILES] = {"resolv.conf", "hostname", "hosts"};

/* What we wrote to resolv.conf, to see whether somebody has changed that; only as long as it may
 * have to be written again. */
static const char written_resolv_conf[] = "resolv.conf.written";

static const char machine_resolv_conf[] = "/etc/resolv.conf";
/* What systemd-resolved's stub (127.0.0.53) asks itself. */
static const char resolved_resolv_conf[] = "/run/systemd/resolve/resolv.conf";

/* --- resolv.conf ------------------------------------------------------------------------------ */

/* The address of a "nameserver" line, else NULL. Owned by the caller. */
static char *nameserver_of(const char *line)
{
    char address[64];

    return sscanf(line, " nameserver %63s", address) == 1 ? xstrdup(address) : NULL;
}

static bool is_loopback(const char *address)
{
    return text_starts_with(address, "127.") || text_equal(address, "::1");
}

static bool starts_with_word(const char *line, const char *word)
{
    size_t length = strlen(word);

    line += strspn(line, " \t");
    return text_starts_with(line, word) && (line[length] == ' ' || line[length] == '\t');
}

/* Whether the specification has something else in this line's place. */
static bool is_replaced(const char *line, const struct api_container_spec *spec)
{
    return (spec->dns_count && starts_with_word(line, "nameserver")) ||
           (spec->dns_search_count &&
            (starts_with_word(line, "search") || starts_with_word(line, "domain"))) ||
           (spec->dns_options_count && starts_with_word(line, "options"));
}

static void add_words(struct buffer *out, const char *key, char *const *words)
{
    _cleanup_free_ char *joined = strv_join(words, " ");

    /* "." stands for no search at all. */
    if (joined[0] && !text_equal(joined, "."))
        buffer_printf(out, "%s %s\n", key, joined);
}

char *bundle_resolv_conf(const char *machine, const struct api_container_spec *spec,
                         bool own_network)
{
    _cleanup_strv_ char **lines = strv_split(machine, '\n');
    struct buffer out = BUFFER_INIT;
    size_t servers = spec->dns_count;

    for (size_t i = 0; lines && lines[i]; i++) {
        _cleanup_free_ char *server = nameserver_of(lines[i]);
        if ((server && own_network && is_loopback(server)) || !lines[i][0] ||
            is_replaced(lines[i], spec))
            continue;
        servers += server != NULL;
        buffer_printf(&out, "%s\n", lines[i]);
    }
    for (size_t i = 0; i < spec->dns_count; i++)
        buffer_printf(&out, "nameserver %s\n", spec->dns[i]);
    if (servers == 0 && own_network)
        buffer_append_text(&out, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    add_words(&out, "search", spec->dns_search);
    add_words(&out, "options", spec->dns_options);
    return buffer_steal(&out);
}

static char *read_or_empty(const char *path)
{
    char *text = NULL;

    if (file_read_at(AT_FDCWD, path, RESOLV_CONF_MAX, &text, NULL, NULL) < 0)
        return xstrdup("");
    return text;
}

/* The specification as it would be with our name server, which asks the others. */
static struct api_container_spec with_names(const struct api_container_spec *spec)
{
    static char *servers[] = {NET_NAMES_ADDRESS, NULL}, *options[] = {"ndots:0", NULL};
    struct api_container_spec own = *spec;

    own.dns = servers;
    own.dns_count = 1;
    if (own.dns_options_count == 0) {
        own.dns_options = options;
        own.dns_options_count = 1;
    }
    return own;
}

/* What a network says of servers, where the container asked for none. */
static struct api_container_spec with_network(const struct api_container_spec *spec,
                                              const struct cni_dns *dns)
{
    struct api_container_spec own = *spec;

    if (!dns)
        return own;
    if (own.dns_count == 0 && dns->nameservers_count > 0) {
        own.dns = dns->nameservers;
        own.dns_count = dns->nameservers_count;
    }
    if (own.dns_search_count == 0 && dns->search_count > 0) {
        own.dns_search = dns->search;
        own.dns_search_count = dns->search_count;
    }
    if (own.dns_options_count == 0 && dns->options_count > 0) {
        own.dns_options = dns->options;
        own.dns_options_count = dns->options_count;
    }
    return own;
}

static char *resolv_conf_for(const struct api_container_spec *wanted, bool own_network, bool names,
                             const struct cni_dns *dns)
{
    const struct api_container_spec asked = with_network(wanted, dns);
    const struct api_container_spec own = with_names(&asked);
    const struct api_container_spec *spec = names ? &own : &asked;
    _cleanup_free_ char *machine = read_or_empty(machine_resolv_conf);

    if (own_network && strstr(machine, "nameserver 127.0.0.53")) {
        free(machine);
        machine = read_or_empty(resolved_resolv_conf);
    }
    return bundle_resolv_conf(machine, spec, own_network);
}

/* --- hosts ------------------------------------------------------------------------------------ */

/* "NAME:ADDRESS" or "NAME=ADDRESS": where the address begins, NULL for neither. */
static const char *address_of(const char *entry)
{
    size_t length = strcspn(entry, ":=");

    return length && entry[length] ? entry + length + 1 : NULL;
}

static bool is_address(const char *text)
{
    struct in6_addr address;

    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* As docker's, an IPv6 address may stand in brackets. */
static char *bare_address(const char *text)
{
    size_t length = strlen(text);

    if (length > 2 && text[0] == '[' && text[length - 1] == ']')
        return xstrndup(text + 1, length - 2);
    return xstrdup(text);
}

static void add_extra_hosts(struct buffer *out, const struct api_container_spec *spec,
                            const struct bundle_place *place)
{
    char gateway[INET_ADDRSTRLEN] = "127.0.0.1";

    if (place)
        inet_ntop(AF_INET, &place->gateway, gateway, sizeof(gateway));
    for (size_t i = 0; i < spec->extra_hosts_count; i++) {
        const char *entry = spec->extra_hosts[i];
        const char *address = address_of(entry);
        _cleanup_free_ char *bare = bare_address(address ? address : "");
        if (address)
            buffer_printf(out, "%s\t%.*s\n", text_equal(bare, "host-gateway") ? gateway : bare,
                          (int)(address - entry - 1), entry);
    }
}

static void add_own_name(struct buffer *out, const struct api_container_spec *spec,
                         const char *address)
{
    _cleanup_free_ char *whole =
        xasprintf("%s%s%s", spec->hostname, text_empty(spec->domainname) ? "" : ".",
                  text_empty(spec->domainname) ? "" : spec->domainname);
    size_t first = strcspn(whole, ".");

    buffer_printf(out, "%s\t%s", address, whole);
    if (whole[first])
        buffer_printf(out, " %.*s", (int)first, whole);
    buffer_append_text(out, "\n");
}

static char *hosts_for(const struct api_container_spec *spec, const struct bundle_place *place)
{
    struct buffer out = BUFFER_INIT;
    char text[INET_ADDRSTRLEN];

    if (text_equal(spec->network_mode, "host")) {
        _cleanup_free_ char *machine = read_or_empty("/etc/hosts");
        buffer_append_text(&out, machine);
    } else {
        buffer_append_text(&out, "127.0.0.1\tlocalhost\n"
                                 "::1\tlocalhost ip6-localhost ip6-loopback\n"
                                 "fe00::0\tip6-localnet\n"
                                 "ff00::0\tip6-mcastprefix\n"
                                 "ff02::1\tip6-allnodes\n"
                                 "ff02::2\tip6-allrouters\n");
    }
    add_extra_hosts(&out, spec, place);
    for (char *const *line = place ? place->linked : NULL; line && *line; line++)
        buffer_printf(&out, "%s\n", *line);
    if (place && place->address.s_addr && inet_ntop(AF_INET, &place->address, text, sizeof(text)))
        add_own_name(&out, spec, text);
    return buffer_steal(&out);
}

/* --- checks ----------------------------------------------------------------------------------- */

static bool is_one_word(const char *text)
{
    return text[0] && !text[strcspn(text, " \t\r\n")];
}

static int check_words(const char *what, char *const *words, struct error *err)
{
    for (; words && *words; words++) {
        if (!is_one_word(*words))
            return error_set(err, -EINVAL, "invalid %s: '%.80s'", what, *words);
    }
    return 0;
}

static int check_extra_host(const char *entry, struct error *err)
{
    const char *address = address_of(entry);
    _cleanup_free_ char *bare = bare_address(address ? address : "");

    if (!address || !is_one_word(entry))
        return error_set(err, -EINVAL, "bad format for add-host: \"%.80s\"", entry);
    if (!text_equal(bare, "host-gateway") && !is_address(bare))
        return error_set(err, -EINVAL, "invalid IP address in add-host: \"%.80s\"", bare);
    return 0;
}

int bundle_check_files(const struct api_container_spec *spec, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->dns_count; i++) {
        if (!is_address(spec->dns[i]))
            r = error_set(err, -EINVAL, "bad nameserver address %.80s: not an IP address",
                          spec->dns[i]);
    }
    if (r == 0)
        r = check_words("search domain", spec->dns_search, err);
    if (r == 0)
        r = check_words("DNS option", spec->dns_options, err);
    for (size_t i = 0; r == 0 && i < spec->extra_hosts_count; i++)
        r = check_extra_host(spec->extra_hosts[i], err);
    return r;
}

/* --- all of them ------------------------------------------------------------------------------ */

static int write_file(int directory_fd, const char *name, const char *text, struct error *err)
{
    /* In place, since a container that runs has it mounted; it may hold a lease, too, which is not
     * waited for (fcntl(2), F_SETLEASE). */
    _cleanup_close_ int fd =
        openat(directory_fd, name,
               O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return error_errno(err, errno, "create %s", name);
    int r = file_write_all(fd, text, strlen(text));
    return r < 0 ? error_errno(err, -r, "write %s", name) : 0;
}

int bundle_write_files(int directory_fd, const struct api_container_spec *effective,
                       const struct bundle_place *place, struct error *err)
{
    bool host = text_equal(effective->network_mode, "host");
    _cleanup_free_ char *hosts = hosts_for(effective, place);
    _cleanup_free_ char *hostname = xasprintf("%s\n", effective->hostname);
    _cleanup_free_ char *resolv_conf =
        resolv_conf_for(effective, !host, place && place->names, place ? place->dns : NULL);
    int r;

    r = write_file(directory_fd, "hosts", hosts, err);
    if (r == 0)
        r = write_file(directory_fd, "hostname", hostname, err);
    if (r == 0)
        r = write_file(directory_fd, "resolv.conf", resolv_conf, err);
    if (r == 0 && place && !place->names)
        r = write_file(directory_fd, written_resolv_conf, resolv_conf, err);
    return r;
}

int bundle_read_file(int directory_fd, const char *name, size_t limit, char **ret,
                     struct error *err)
{
    _cleanup_close_ int fd =
        openat(directory_fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open %s", name);
    return file_read_fd(fd, limit, ret, NULL, err);
}

/* False, too, where nobody knows what was written. */
static bool is_as_written(int directory_fd)
{
    _cleanup_free_ char *now = NULL, *written = NULL;

    return bundle_read_file(directory_fd, "resolv.conf", RESOLV_CONF_MAX, &now, NULL) >= 0 &&
           bundle_read_file(directory_fd, written_resolv_conf, RESOLV_CONF_MAX, &written, NULL) >=
               0 &&
           text_equal(now, written);
}

int bundle_begin_names(const char *files_directory, const struct api_container_spec *effective,
                       struct error *err)
{
    _cleanup_close_ int fd = open(files_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_free_ char *resolv_conf = NULL;

    if (fd < 0)
        return error_errno(err, errno, "open %s", files_directory);
    if (!is_as_written(fd))
        return 0;
    resolv_conf = resolv_conf_for(effective, true, true, NULL);
    return write_file(fd, "resolv.conf", resolv_conf, err);
}
