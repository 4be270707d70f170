/*
 * Fields of the specification that nothing carries out yet. They are refused, so that nobody gets
 * less than what was asked for; a field leaves this list with the code that does it.
 */
#include <errno.h>

#include <base/text.h>

#include "spec.h"

struct field {
    const char *name;
    bool present;
};

static int refuse(const struct field *fields, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (fields[i].present)
            return error_set(err, -EOPNOTSUPP, "container_spec.%s is not supported by this engine",
                             fields[i].name);
    }
    return 0;
}

static int check_endpoints(const struct api_container_spec *spec, struct error *err)
{
    struct field field = {"networks.linkLocalIps", false};

    for (size_t i = 0; spec->networks && i < spec->networks->count; i++)
        field.present = field.present || spec->networks->values[i]->link_local_ips_count > 0;
    return refuse(&field, 1, err);
}

int spec_check_built(const struct api_container_spec *spec, struct error *err)
{
    return check_endpoints(spec, err);
}
