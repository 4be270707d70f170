#include <base/alloc.h>
#include <base/text.h>
#include <schema/image_set.h>

void oci_image_set_add(struct oci_image_set **set, const char *name)
{
    if (!*set)
        *set = xnew(struct oci_image_set);
    for (size_t i = 0; i < (*set)->count; i++) {
        if (text_equal((*set)->keys[i], name))
            return;
    }
    size_t count = (*set)->count + 1;
    (*set)->keys = xrealloc((*set)->keys, count, sizeof(char *));
    (*set)->values = xrealloc((*set)->values, count, sizeof(*(*set)->values));
    (*set)->keys[count - 1] = xstrdup(name);
    (*set)->values[count - 1] = xnew(struct oci_image_empty);
    (*set)->count = count;
}
