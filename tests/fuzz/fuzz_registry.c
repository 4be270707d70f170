/*
 * What registries say: the header WWW-Authenticate, manifests and indexes with the choice of a
 * platform, and the other documents. The first byte says which.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/error.h>
#include <schema/docker_config.h>
#include <schema/registry_answers.h>

#include "challenge.h"
#include "manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_challenge(const char *text)
{
    struct challenge challenge = {0};

    challenge_parse(text, &challenge);
    /* Nobody goes to a token service that has no address. */
    if (challenge.scheme == CHALLENGE_BEARER && (!challenge.realm || !challenge.realm[0]))
        abort();
    if (challenge.scheme == CHALLENGE_NONE && challenge.service)
        abort();
    challenge_finish(&challenge);
}

static void read_index(const char *text, size_t length)
{
    static struct image_worker_platform platform = {(char *)"linux", (char *)"amd64", NULL};
    _cleanup_oci_image_index_ struct oci_image_index *index = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct oci_image_descriptor *chosen = NULL;

    if (oci_image_index_parse(text, length, "index", &index, &err) == 0 &&
        manifest_choose(index, &platform, &chosen, &err) == 0 && strlen(chosen->digest) != 71)
        abort(); /* it becomes part of an address */
}

static void read_image(const char *text, size_t length)
{
    _cleanup_oci_image_manifest_ struct oci_image_manifest *manifest = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (oci_image_manifest_parse(text, length, "manifest", &manifest, &err) < 0 ||
        manifest_check(manifest, &err) < 0)
        return;
    for (size_t i = 0; i < manifest->layers_count; i++)
        if (strlen(manifest->layers[i]->digest) != 71 || strchr(manifest->layers[i]->digest, '/'))
            abort();
}

static void read_manifest(const char *text, size_t length)
{
    static const char *const types[] = {NULL, "application/vnd.oci.image.index.v1+json",
                                        "application/vnd.docker.distribution.manifest.v2+json",
                                        "text/html"};
    bool is_index;

    for (size_t i = 0; i < 4; i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (manifest_is_index(text, length, types[i], &is_index, &err) < 0)
            continue;
        if (is_index)
            read_index(text, length);
        else
            read_image(text, length);
    }
}

#define READ(name)                                                                                 \
    do {                                                                                           \
        _cleanup_error_ struct error err = ERROR_INIT;                                             \
        struct name *document = NULL;                                                              \
        name##_parse(text, length, "answer", &document, &err);                                     \
        name##_free(document);                                                                     \
    } while (0)

static void read_answers(const char *text, size_t length)
{
    READ(answer_token);
    READ(answer_problems);
    READ(answer_tags);
    READ(answer_catalogue);
    READ(answer_hits);
    READ(docker_config_file);
    READ(docker_config_helper);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    _cleanup_free_ char *text = xstrndup((const char *)data + 1, size - 1);
    size_t length = strlen(text);

    if (data[0] == 'c')
        read_challenge(text);
    else if (data[0] == 'm')
        read_manifest(text, length);
    else
        read_answers(text, length);
    return 0;
}
