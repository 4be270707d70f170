#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/instance.h>
#include <base/text.h>

static int check_name(const char *name, struct error *err)
{
    if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(name) || name[0] == '-' ||
        strlen(name) > INSTANCE_NAME_MAX)
        return error_set(err, -EINVAL,
                         "instance name '%s' is not 1 to %d characters of a-z, 0-9 and '-'", name,
                         INSTANCE_NAME_MAX);
    return 0;
}

static char *environment_or(const char *variable, char *fallback)
{
    const char *value = getenv(variable);

    if (text_empty(value))
        return fallback;
    free(fallback);
    return xstrdup(value);
}

/* nftables identifiers know no '-'. */
static char *with_underscores(char *text)
{
    for (char *c = text; *c; c++) {
        if (*c == '-')
            *c = '_';
    }
    return text;
}

int instance_init(struct instance *instance, const char *name, struct error *err)
{
    int r;

    if (text_empty(name))
        name = getenv("CLOCHE_INSTANCE");
    if (text_empty(name))
        name = "";
    r = check_name(name, err);
    if (r < 0)
        return r;
    const char *dash = name[0] ? "-" : "";
    *instance = (struct instance){
        .name = xstrdup(name),
        .root = environment_or("CLOCHE_ROOT", xasprintf("/var/lib/cloche%s%s", dash, name)),
        .run = environment_or("CLOCHE_RUN", xasprintf("/run/cloche%s%s", dash, name)),
        .bridge = name[0] ? xasprintf("clo-%s", name) : xstrdup("cloche0"),
        .nft_table = with_underscores(xasprintf("cloche%s%s", dash, name)),
        .cgroup_parent = xasprintf("cloche%s%s", dash, name),
    };
    instance->socket = environment_or("CLOCHE_SOCKET", xasprintf("%s/cloche.sock", instance->run));
    return 0;
}

void instance_finish(struct instance *instance)
{
    free(instance->name);
    free(instance->root);
    free(instance->run);
    free(instance->socket);
    free(instance->bridge);
    free(instance->nft_table);
    free(instance->cgroup_parent);
    *instance = (struct instance){0};
}
