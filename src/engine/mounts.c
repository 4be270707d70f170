#include "mounts.h"

#include <base/alloc.h>
#include <base/text.h>

void mounts_fill_tree(const struct container *container, struct image_worker_tree *tree)
{
    const struct api_container_spec *spec = container->effective;

    tree->read_only = tree->has_read_only = spec->read_only_root;
    tree->mounts = xnew_array(struct image_worker_tree_mount *, spec->mounts_count + 1);
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_mount *from = spec->mounts[i];
        if (!text_equal(from->type, "bind"))
            continue;
        struct image_worker_tree_mount *mount = xnew(struct image_worker_tree_mount);
        mount->source = xstrdup(from->source);
        mount->target = xstrdup(from->target);
        mount->read_only = mount->has_read_only = from->read_only;
        tree->mounts[tree->mounts_count++] = mount;
    }
}

void mounts_clear_tree(struct image_worker_tree *tree)
{
    for (size_t i = 0; i < tree->mounts_count; i++)
        image_worker_tree_mount_free(tree->mounts[i]);
    free(tree->mounts);
    tree->mounts = NULL;
    tree->mounts_count = 0;
}
