#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "handlers.h"

#define INDEX "docker.io"

/* ---- _ping */

void docker_ping(struct exchange *exchange)
{
    answer_header(exchange, "Builder-Version", "1"); /* else the CLI would speak BuildKit's gRPC */
    answer_header(exchange, "Cache-Control", "no-cache, no-store, must-revalidate");
    answer_header(exchange, "Pragma", "no-cache");
    answer_header(exchange, "Swarm", "inactive");
    answer_text(exchange, 200, "text/plain; charset=utf-8", "OK");
}

/* ---- version */

static void write_component(struct json_writer *writer, const struct api_system_version *version)
{
    json_writer_key(writer, "Components");
    json_writer_array_begin(writer);
    json_writer_object_begin(writer);
    field_text(writer, "Name", "Engine");
    field_text(writer, "Version", version->version);
    field_object_begin(writer, "Details");
    field_text(writer, "ApiVersion", "1.44");
    field_text(writer, "MinAPIVersion", "1.22");
    field_text(writer, "GitCommit", version->git_commit);
    field_text(writer, "GoVersion", version->compiler);
    field_text(writer, "Os", version->os);
    field_text(writer, "Arch", version->arch);
    field_text(writer, "KernelVersion", version->kernel_version);
    field_text(writer, "Experimental", "true");
    field_text(writer, "BuildTime", "");
    json_writer_object_end(writer);
    json_writer_object_end(writer);
    json_writer_array_end(writer);
}

/* Clients compare it, and take it for docker's. */
static void on_version(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_system_version *version = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer document, *writer = &document;

    json_writer_init(writer, &out, JSON_COMPACT);
    json_writer_object_begin(writer);
    field_object_begin(writer, "Platform");
    field_text(writer, "Name", "Cloche");
    json_writer_object_end(writer);
    write_component(writer, version);
    field_text(writer, "Version", version->version);
    field_text(writer, "ApiVersion", "1.44");
    field_text(writer, "MinAPIVersion", "1.22");
    field_text(writer, "GitCommit", version->git_commit);
    field_text(writer, "GoVersion", version->compiler);
    field_text(writer, "Os", version->os);
    field_text(writer, "Arch", version->arch);
    field_text(writer, "KernelVersion", version->kernel_version);
    field_boolean(writer, "Experimental", true);
    field_text(writer, "BuildTime", "");
    json_writer_object_end(writer);
    answer_json(exchange, 200, &out);
}

void docker_version(struct exchange *exchange)
{
    call(exchange, "system.version", NULL, on_version, NULL);
}

/* ---- info */

static void write_counts(struct json_writer *writer, const struct api_system_info *info)
{
    field_integer(writer, "Containers", info->containers);
    field_integer(writer, "ContainersRunning", info->containers_running);
    field_integer(writer, "ContainersPaused", info->containers_paused);
    field_integer(writer, "ContainersStopped", info->containers_stopped);
    field_integer(writer, "Images", info->images);
}

static void write_list(struct json_writer *writer, const char *key, const char *const *items)
{
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
    for (; *items; items++)
        json_writer_string(writer, *items);
    json_writer_array_end(writer);
}

static void write_plugins(struct json_writer *writer)
{
    field_object_begin(writer, "Plugins");
    write_list(writer, "Volume", (const char *const[]){"local", NULL});
    write_list(writer, "Network", (const char *const[]){"bridge", "host", "null", NULL});
    field_null(writer, "Authorization");
    write_list(writer, "Log", (const char *const[]){"json-file", "local", "none", NULL});
    json_writer_object_end(writer);
}

/* What the engine can do is the kernel's and the same everywhere. */
static void write_abilities(struct json_writer *writer)
{
    static const char *const names[] = {
        "MemoryLimit", "SwapLimit", "CpuCfsPeriod",   "CpuCfsQuota",      "CPUShares",
        "CPUSet",      "PidsLimit", "IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        field_boolean(writer, names[i], true);
    field_boolean(writer, "KernelMemory", false);
    field_boolean(writer, "KernelMemoryTCP", false);
    field_boolean(writer, "OomKillDisable", true);
    field_boolean(writer, "Debug", false);
    field_boolean(writer, "ExperimentalBuild", true);
    field_boolean(writer, "LiveRestoreEnabled", true);
}

static void write_swarm(struct json_writer *writer)
{
    field_object_begin(writer, "Swarm");
    field_text(writer, "NodeID", "");
    field_text(writer, "NodeAddr", "");
    field_text(writer, "LocalNodeState", "inactive");
    field_boolean(writer, "ControlAvailable", false);
    field_text(writer, "Error", "");
    field_null(writer, "RemoteManagers");
    json_writer_object_end(writer);
}

static void write_runtimes(struct json_writer *writer, const struct api_system_info *info)
{
    field_object_begin(writer, "Runtimes");
    field_object_begin(writer, "cloche-runtime");
    field_text(writer, "path", info->runtime ? info->runtime : "cloche-runtime");
    json_writer_object_end(writer);
    json_writer_object_end(writer);
    field_text(writer, "DefaultRuntime", "cloche-runtime");
}

/* "seccomp" as docker writes it: "name=seccomp,profile=default". */
static void write_security(struct json_writer *writer, const struct api_system_info *info)
{
    json_writer_key(writer, "SecurityOptions");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < info->security_options_count; i++) {
        const char *name = info->security_options[i];
        _cleanup_free_ char *text =
            xasprintf("name=%s%s", name, text_equal(name, "seccomp") ? ",profile=default" : "");
        json_writer_string(writer, text);
    }
    json_writer_array_end(writer);
}

static void write_machine(struct json_writer *writer, const struct api_system_info *info)
{
    _cleanup_free_ char *cgroups = xasprintf("%jd", (intmax_t)info->cgroup_version);

    field_text(writer, "LoggingDriver", "json-file");
    field_text(writer, "CgroupDriver", info->cgroup_driver);
    field_text(writer, "CgroupVersion", cgroups);
    field_text(writer, "KernelVersion", info->kernel_version);
    field_text(writer, "OperatingSystem", info->operating_system);
    field_text(writer, "OSVersion", "");
    field_text(writer, "OSType", "linux");
    field_text(writer, "Architecture", info->architecture);
    field_integer(writer, "NCPU", info->cpus);
    field_unsigned(writer, "MemTotal", info->memory);
    field_text(writer, "IndexServerAddress", "https://index.docker.io/v1/");
    field_text(writer, "DockerRootDir", info->root_dir);
    field_text(writer, "Name", info->name);
    json_writer_key(writer, "Labels");
    json_writer_array_begin(writer);
    json_writer_array_end(writer);
    field_text(writer, "ServerVersion", info->version);
    write_security(writer, info);
    field_list(writer, "Warnings", info->warnings);
}

/* ---- registries */

static const struct api_registry_settings *settings_of(const struct api_system_info *info,
                                                       const char *name)
{
    for (size_t i = 0; i < info->registries_count; i++)
        if (text_equal(info->registries[i]->name, name))
            return info->registries[i];
    return NULL;
}

static void write_index(struct json_writer *writer, const char *name,
                        const struct api_registry_settings *settings)
{
    static char *const none[] = {NULL};

    field_object_begin(writer, name);
    field_text(writer, "Name", name);
    field_list(writer, "Mirrors", settings && settings->mirrors ? settings->mirrors : none);
    field_boolean(writer, "Secure", !settings || !settings->insecure);
    field_boolean(writer, "Official", text_equal(name, INDEX));
    json_writer_object_end(writer);
}

static void write_registries(struct json_writer *writer, const struct api_system_info *info)
{
    static char *const none[] = {NULL};
    const struct api_registry_settings *docker = settings_of(info, INDEX);

    field_object_begin(writer, "RegistryConfig");
    write_list(writer, "AllowNondistributableArtifactsCIDRs", (const char *const[]){NULL});
    write_list(writer, "AllowNondistributableArtifactsHostnames", (const char *const[]){NULL});
    write_list(writer, "InsecureRegistryCIDRs", (const char *const[]){"127.0.0.0/8", NULL});
    field_object_begin(writer, "IndexConfigs");
    write_index(writer, INDEX, docker);
    for (size_t i = 0; i < info->registries_count; i++)
        if (info->registries[i] != docker)
            write_index(writer, info->registries[i]->name, info->registries[i]);
    json_writer_object_end(writer);
    field_list(writer, "Mirrors", docker && docker->mirrors ? docker->mirrors : none);
    json_writer_object_end(writer);
    field_text(writer, "HttpProxy", info->proxy);
    field_text(writer, "HttpsProxy", info->proxy);
    field_text(writer, "NoProxy", "");
}

/* What is counted in dockerd alone, and its helpers. */
static void write_dockerds(struct json_writer *writer)
{
    static const char *const counts[] = {"NFd", "NGoroutines", "NEventsListener"};
    static const char *const commits[] = {"ContainerdCommit", "RuncCommit", "InitCommit"};
    _cleanup_free_ char *now = clock_format(clock_now());

    for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
        field_integer(writer, counts[i], 0);
    for (size_t i = 0; i < ARRAY_SIZE(commits); i++) {
        field_object_begin(writer, commits[i]);
        field_text(writer, "ID", "");
        field_text(writer, "Expected", "");
        json_writer_object_end(writer);
    }
    field_text(writer, "SystemTime", now);
    field_null(writer, "GenericResources");
    field_text(writer, "Isolation", "");
}

static void on_info(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_system_info *info = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer document, *writer = &document;

    json_writer_init(writer, &out, JSON_COMPACT);
    json_writer_object_begin(writer);
    field_text(writer, "ID", info->instance[0] ? info->instance : "cloche");
    write_counts(writer, info);
    field_text(writer, "Driver", "overlay2");
    json_writer_key(writer, "DriverStatus");
    json_writer_raw(writer, "[[\"Backing Filesystem\",\"overlayfs\"]]");
    write_plugins(writer);
    write_abilities(writer);
    write_machine(writer, info);
    write_runtimes(writer, info);
    write_swarm(writer);
    write_registries(writer, info);
    write_dockerds(writer);
    field_text(writer, "InitBinary", "cloche-monitor");
    json_writer_object_end(writer);
    answer_json(exchange, 200, &out);
}

void docker_info(struct exchange *exchange)
{
    call(exchange, "system.info", NULL, on_info, NULL);
}
