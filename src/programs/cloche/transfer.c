#include <rpc/client.h>
#include <schema/management.h>

#include <base/alloc.h>

#include "credentials.h"
#include "transfer.h"
#include "transfer_lines.h"

int transfer_call(struct cli *cli, const char *method, const void *params, void *ret_result,
                  FILE *out, bool quiet, struct error *err)
{
    return transfer_call_with_fd(cli, method, params, ret_result, -1, out, quiet, err);
}

int transfer_call_with_fd(struct cli *cli, const char *method, const void *params, void *ret_result,
                          int fd, FILE *out, bool quiet, struct error *err)
{
    struct transfer_lines lines;
    int r = cli_connect(cli, err);

    if (r < 0)
        return r;
    transfer_lines_start(&lines, out, quiet);
    rpc_client_on_progress(cli->client, transfer_lines_take, &lines);
    r = fd >= 0 ? cli_call_with_fd(cli, method, params, ret_result, fd, NULL, NULL, err)
                : cli_call(cli, method, params, ret_result, err);
    if (cli->client)
        rpc_client_on_progress(cli->client, NULL, NULL);
    transfer_lines_finish(&lines);
    return r;
}

int transfer_pull_missing(struct cli *cli, const char *image, const char *platform, bool quiet,
                          struct error *err)
{
    _cleanup_free_ char *registry = credentials_registry(image);
    _cleanup_api_credentials_ struct api_credentials *credentials = NULL;
    int r = credentials_find(registry, &credentials, err);
    const struct api_image_pull params = {
        .image = (char *)image,
        .platform = (char *)platform,
        .credentials = credentials,
    };

    return r < 0 ? r : transfer_call(cli, "image.pull", &params, NULL, stderr, quiet, err);
}
