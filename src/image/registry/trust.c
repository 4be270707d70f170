#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "session.h"
#include "trust.h"

/* Where distributions keep the authorities they trust, in one file. */
static const char *const machine_authorities[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

enum { FILES_MAX = 256 }; /* of a folder */

static int append_file(int folder_fd, const char *name, struct buffer *out, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = file_read_at(folder_fd, name, CERTIFICATE_MAX, &text, &length, err);

    if (r < 0)
        return r;
    buffer_append(out, text, length);
    buffer_append_char(out, '\n');
    return 0;
}

static int read_folder(const char *path, struct http_trust *trust, struct error *err)
{
    struct dirent **names = NULL;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int count = fd < 0 ? 0 : scandirat(fd, ".", &names, NULL, alphasort), r = 0;

    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r < 0 || i >= FILES_MAX)
            ;
        else if (text_ends_with(name, ".crt"))
            r = append_file(fd, name, &trust->authorities, err);
        else if (text_ends_with(name, ".cert") && !trust->certificate.length)
            r = append_file(fd, name, &trust->certificate, err);
        else if (text_ends_with(name, ".key") && !trust->key.length)
            r = append_file(fd, name, &trust->key, err);
        free(names[i]);
    }
    free(names);
    return r < 0 ? error_context(err, "%s", path), r : 0;
}

static void read_machine(struct http_trust *trust)
{
    for (size_t i = 0; i < ARRAY_SIZE(machine_authorities); i++) {
        if (append_file(AT_FDCWD, machine_authorities[i], &trust->authorities, NULL) == 0)
            break;
    }
}

int trust_read(const struct image_worker_endpoint *endpoint, struct http_trust *ret,
               struct error *err)
{
    for (size_t i = 0; i < endpoint->certificates_count; i++) {
        int r = read_folder(endpoint->certificates[i], ret, err);
        if (r < 0)
            return r;
    }
    ret->insecure = endpoint->insecure && !ret->authorities.length;
    read_machine(ret);
    return 0;
}

void trust_finish(struct http_trust *trust)
{
    buffer_finish(&trust->authorities);
    buffer_finish(&trust->certificate);
    buffer_finish(&trust->key);
}
