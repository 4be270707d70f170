#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Whose socket cannot be used, and who has a place for one of his own. */
static bool is_users(const char *socket)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    return geteuid() != 0 && runtime && runtime[0] == '/' && access(socket, W_OK) < 0 &&
           (!text_empty(getenv("XDG_DATA_HOME")) || !text_empty(getenv("HOME")));
}

static char *data_folder(void)
{
    const char *data = getenv("XDG_DATA_HOME");

    return data && data[0] == '/' ? xstrdup(data) : xasprintf("%s/.local/share", getenv("HOME"));
}

/* In the user's folders, not in the machine's. */
static void move_to_user(struct instance *instance, const char *suffix)
{
    _cleanup_free_ char *data = data_folder();

    free(instance->root);
    free(instance->run);
    instance->root = xasprintf("%s/cloche%s", data, suffix);
    instance->run = xasprintf("%s/cloche%s", getenv("XDG_RUNTIME_DIR"), suffix);
    instance->of_user = true;
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
        .root = xasprintf("/var/lib/cloche%s%s", dash, name),
        .run = xasprintf("/run/cloche%s%s", dash, name),
        .bridge = name[0] ? xasprintf("clo-%s", name) : xstrdup("cloche0"),
        .nft_table = with_underscores(xasprintf("cloche%s%s", dash, name)),
        .cgroup_parent = xasprintf("cloche%s%s", dash, name),
    };
    _cleanup_free_ char *suffix = xasprintf("%s%s", dash, name);
    _cleanup_free_ char *machines = xasprintf("%s/cloche.sock", instance->run);
    if (is_users(machines))
        move_to_user(instance, suffix);
    instance->root = environment_or("CLOCHE_ROOT", instance->root);
    instance->run = environment_or("CLOCHE_RUN", instance->run);
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
