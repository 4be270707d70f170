#include <base/text.h>

#include "platform.h"

int platform_rank(const struct image_worker_platform *wanted,
                  const struct oci_image_platform *offered)
{
    if (!offered || text_empty(offered->architecture))
        return 1;
    if (!text_equal(offered->architecture, wanted->architecture) ||
        (!text_empty(offered->os) && !text_equal(offered->os, wanted->os)))
        return 0;
    return text_equal(offered->variant, wanted->variant) ? 3 : 2;
}

bool platform_is_index(const char *media_type)
{
    return text_equal(media_type, "application/vnd.oci.image.index.v1+json") ||
           text_equal(media_type, "application/vnd.docker.distribution.manifest.list.v2+json");
}
