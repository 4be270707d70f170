/*
 * The document that `spec` prints.
 */
#include <runtime/runtime.h>

#include <base/cleanup.h>

#include "cgroup.h"

static const char spec_head[] =
    "{\n"
    "    \"ociVersion\": \"" RUNTIME_SPEC_VERSION "\",\n"
    "    \"process\": {\n"
    "        \"terminal\": true,\n"
    "        \"user\": {\"uid\": 0, \"gid\": 0},\n"
    "        \"args\": [\"sh\"],\n"
    "        \"env\": [\n"
    "            \"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\n"
    "            \"TERM=xterm\"\n"
    "        ],\n"
    "        \"cwd\": \"/\",\n"
    "        \"capabilities\": {\n"
    "            \"bounding\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"],\n"
    "            \"effective\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"],\n"
    "            \"permitted\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"]\n"
    "        },\n"
    "        \"rlimits\": [{\"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024}],\n"
    "        \"noNewPrivileges\": true\n"
    "    },\n"
    "    \"root\": {\"path\": \"rootfs\", \"readonly\": true},\n"
    "    \"hostname\": \"cloche\",\n"
    "    \"mounts\": [\n"
    "        {\"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\"},\n"
    "        {\"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\",\n"
    "         \"options\": [\"nosuid\", \"strictatime\", \"mode=755\", \"size=65536k\"]},\n"
    "        {\"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\",\n"
    "         \"options\": [\"nosuid\", \"noexec\", \"newinstance\", \"ptmxmode=0666\",\n";

static const char spec_tail[] =
    "    ],\n"
    "    \"linux\": {\n"
    "        \"maskedPaths\": [\n"
    "            \"/proc/acpi\", \"/proc/asound\", \"/proc/kcore\", \"/proc/keys\",\n"
    "            \"/proc/latency_stats\", \"/proc/timer_list\", \"/proc/timer_stats\",\n"
    "            \"/proc/sched_debug\", \"/sys/firmware\", \"/proc/scsi\",\n"
    "            \"/sys/devices/virtual/tpm\"\n"
    "        ],\n"
    "        \"readonlyPaths\": [\n"
    "            \"/proc/bus\", \"/proc/fs\", \"/proc/irq\", \"/proc/sys\", "
    "\"/proc/sysrq-trigger\"\n"
    "        ],\n";

void runtime_spec_write(bool rootless, struct buffer *out)
{
    buffer_append_text(out, spec_head);
    buffer_printf(out, "                     \"mode=0620\"%s]},\n", rootless ? "" : ", \"gid=5\"");
    buffer_append_text(
        out, "        {\"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\",\n"
             "         \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"mode=1777\", "
             "\"size=65536k\"]},\n"
             "        {\"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"source\": "
             "\"mqueue\",\n"
             "         \"options\": [\"nosuid\", \"noexec\", \"nodev\"]},\n");
    /* In a user namespace without its own network sysfs cannot be mounted, only bound. */
    buffer_append_text(
        out, rootless ? "        {\"destination\": \"/sys\", \"type\": \"none\", \"source\": "
                        "\"/sys\",\n"
                        "         \"options\": [\"rbind\", \"nosuid\", \"noexec\", \"nodev\", "
                        "\"ro\"]},\n"
                      : "        {\"destination\": \"/sys\", \"type\": \"sysfs\", \"source\": "
                        "\"sysfs\",\n"
                        "         \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"ro\"]},\n");
    buffer_append_text(out, "        {\"destination\": \"/sys/fs/cgroup\", \"type\": \"cgroup\", "
                            "\"source\": \"cgroup\",\n"
                            "         \"options\": [\"nosuid\", \"noexec\", \"nodev\", "
                            "\"relatime\", \"ro\"]}\n");
    buffer_append_text(out, spec_tail);
    if (rootless)
        buffer_printf(out,
                      "        \"uidMappings\": [{\"containerID\": 0, \"hostID\": %u, \"size\": "
                      "1}],\n"
                      "        \"gidMappings\": [{\"containerID\": 0, \"hostID\": %u, \"size\": "
                      "1}],\n",
                      geteuid(), getegid());
    else
        buffer_append_text(out, "        \"resources\": {\"devices\": [{\"allow\": false, "
                                "\"access\": \"rwm\"}]},\n");
    buffer_printf(out,
                  "        \"namespaces\": [\n"
                  "            {\"type\": \"pid\"}, %s{\"type\": \"ipc\"}, {\"type\": \"uts\"}, "
                  "{\"type\": \"mount\"}%s%s\n"
                  "        ]\n    }\n}\n",
                  rootless ? "" : "{\"type\": \"network\"}, ",
                  /* On v1 the mount of type cgroup shows the container's own alone as it is. */
                  cgroup_is_v2() ? ", {\"type\": \"cgroup\"}" : "",
                  rootless ? ", {\"type\": \"user\"}" : "");
}
