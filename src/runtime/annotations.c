#include <base/text.h>

#include "annotations.h"

char *const annotation_names[] = {ANNOTATION_HOOKS_STDERR, ANNOTATION_HOOKS_STDOUT,
                                  ANNOTATION_KEEP_GROUPS,  ANNOTATION_PIDFD_RECEIVER,
                                  ANNOTATION_SECCOMP_FAIL, NULL};

const char *annotation_value(const struct json_string_map *annotations, const char *name)
{
    for (size_t i = 0; annotations && i < annotations->count; i++) {
        if (text_equal(annotations->keys[i], name))
            return annotations->values[i];
    }
    return NULL;
}
