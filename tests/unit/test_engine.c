/*
 * The engine's rules that need no machine: merging, users, status texts, log places, bundles.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/oci_config.h>

#include "bundle.h"
#include "commit_config.h"
#include "cpusets.h"
#include "idmap.h"
#include "limits.h"
#include "logfile.h"
#include "names.h"
#include "security.h"
#include "spec.h"
#include "status.h"
#include "user.h"

#define SECOND INT64_C(1000000000)

static struct api_container_spec *parse_spec(const char *text)
{
    struct api_container_spec *spec = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (api_container_spec_parse(text, strlen(text), "test", &spec, &err) < 0)
        fail_msg("%s", error_message(&err));
    return spec;
}

/* --- merging ---------------------------------------------------------------------------------- */

static const char *const image_entrypoint[] = {"/entry", "-x", NULL};
static const char *const image_command[] = {"serve", NULL};
static const char *const image_env[] = {"PATH=/image", "MODE=image", NULL};

static const struct image_defaults image = {
    .entrypoint = (char *const *)image_entrypoint,
    .command = (char *const *)image_command,
    .env = (char *const *)image_env,
    .user = "app",
    .working_dir = "/srv",
};

static char *arguments_of(const char *request)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = parse_spec(request);
    _cleanup_api_container_spec_ struct api_container_spec *merged = NULL;

    if (spec_merge(spec, &image, "0123456789abcdef", &merged, NULL) < 0)
        return xstrdup("(nothing)");
    _cleanup_strv_ char **arguments = spec_arguments(merged);
    return strv_join(arguments, " ");
}

static void check_arguments(const char *request, const char *expected)
{
    _cleanup_free_ char *arguments = arguments_of(request);

    assert_string_equal(arguments, expected);
}

static void test_command_rules(void **state)
{
    check_arguments("{\"image\":\"i\"}", "/entry -x serve");
    check_arguments("{\"image\":\"i\",\"command\":[\"a\",\"b\"]}", "/entry -x a b");
    check_arguments("{\"image\":\"i\",\"entrypoint\":[\"/other\"]}", "/other");
    check_arguments("{\"image\":\"i\",\"entrypoint\":[\"/other\"],\"command\":[\"a\"]}",
                    "/other a");
    check_arguments("{\"image\":\"i\",\"entrypoint\":[],\"command\":[\"a\"]}", "a");
    check_arguments("{\"image\":\"i\",\"entrypoint\":[]}", "(nothing)");
}

static void test_other_fields(void **state)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec =
        parse_spec("{\"image\":\"i\",\"env\":[\"MODE=mine\",\"X=1\"]}");
    _cleanup_api_container_spec_ struct api_container_spec *merged = NULL;

    assert_int_equal(spec_merge(spec, &image, "0123456789abcdef", &merged, NULL), 0);
    assert_string_equal(merged->user, "app");
    assert_string_equal(merged->working_dir, "/srv");
    assert_string_equal(merged->hostname, "0123456789ab");
    assert_string_equal(merged->stop_signal, "SIGTERM");
    _cleanup_strv_ char **environment = spec_environment(merged, NULL, "/home/app");
    _cleanup_free_ char *joined = strv_join(environment, " ");
    assert_string_equal(joined, "PATH=/image HOSTNAME=0123456789ab MODE=mine X=1 HOME=/home/app");
}

static void check_refused(const char *request, const char *message)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = parse_spec(request);
    _cleanup_error_ struct error err = ERROR_INIT;

    assert_int_equal(spec_check(spec, 2, &err), -EINVAL);
    if (!strstr(error_message(&err), message))
        fail_msg("'%s' does not say '%s'", error_message(&err), message);
}

static void test_labels_have_a_limit(void **state)
{
    _cleanup_buffer_ struct buffer many = BUFFER_INIT;
    _cleanup_free_ char *large = xasprintf("{\"image\":\"i\",\"labels\":{\"a\":\"%0131072d\"}}", 0);

    buffer_append_text(&many, "{\"image\":\"i\",\"labels\":{");
    for (int i = 0; i <= SPEC_LABELS_MAX; i++)
        buffer_printf(&many, "%s\"l%d\":\"\"", i ? "," : "", i);
    buffer_append_text(&many, "}}");
    check_refused(buffer_text(&many), "more than 1024 labels");
    check_refused(large, "more than 131072 bytes");
}

static void test_refused_specs(void **state)
{
    check_refused("{\"image\":\"i\",\"name\":\"-a\"}", "invalid container name");
    check_refused("{\"image\":\"i\",\"workingDir\":\"srv\"}", "absolute path");
    check_refused("{\"image\":\"i\",\"resources\":{\"memory\":1000}}", "6MB");
    check_refused("{\"image\":\"i\",\"resources\":{\"nanoCpus\":3000000000}}", "2 CPUs");
    check_refused("{\"image\":\"i\",\"env\":[\"=x\"]}", "environment variable");
    check_refused("{\"image\":\"i\",\"stopSignal\":\"SIGNONE\"}", "invalid signal");
    check_refused("{\"image\":\"i\",\"binds\":[{\"source\":\"/a\",\"target\":\"/\"}]}", "'/'");
    check_refused("{\"image\":\"i\",\"deviceCgroupRules\":[\"c 1:x rwm\"]}", "device cgroup rule");
    check_refused("{\"image\":\"i\",\"devices\":[{\"pathOnHost\":\"/dev/null\","
                  "\"cgroupPermissions\":\"rx\"}]}",
                  "device permissions");
    check_refused("{\"image\":\"i\",\"ulimits\":[{\"name\":\"fly\",\"soft\":1}]}",
                  "invalid ulimit");
    check_refused("{\"image\":\"i\",\"ulimits\":[{\"name\":\"core\",\"soft\":2,\"hard\":1}]}",
                  "less than or equal");
    check_refused("{\"image\":\"i\",\"pidMode\":\"other\"}", "invalid PID mode");
    check_refused("{\"image\":\"i\",\"extraHosts\":[\"a\"]}", "bad format for add-host");
    check_refused("{\"image\":\"i\",\"extraHosts\":[\"a:b\"]}", "invalid IP address");
    check_refused("{\"image\":\"i\",\"dns\":[\"x\"]}", "nameserver");
    check_refused("{\"image\":\"i\",\"networks\":{\"lan\":{\"linkLocalIps\":[\"10.0.0.1\"]}}}",
                  "invalid link-local IP address: 10.0.0.1");
    check_refused("{\"image\":\"i\",\"networks\":{\"lan\":{\"ipv4Address\":\"10.0.0\"}}}",
                  "invalid IPv4 address: 10.0.0");
    check_refused("{\"image\":\"i\",\"networks\":{\"lan\":{\"ipv6Address\":\"10.0.0.1\"}}}",
                  "invalid IPv6 address: 10.0.0.1");
    check_refused("{\"image\":\"i\",\"networks\":{\"lan\":{\"macAddress\":\"1\"}}}",
                  "is not a MAC address");
    check_refused("{\"image\":\"i\",\"cgroupParent\":\"a/../b\"}", "cgroup parent");
    check_refused("{\"image\":\"i\",\"ports\":[{\"containerPort\":0}]}", "invalid container port");
    check_refused("{\"image\":\"i\",\"ports\":[{\"containerPort\":1,\"hostAddress\":\"x\"}]}",
                  "invalid IP address");
}

static void test_signals(void **state)
{
    assert_int_equal(signal_parse("TERM", NULL), 15);
    assert_int_equal(signal_parse("sigkill", NULL), 9);
    assert_int_equal(signal_parse("1", NULL), 1);
    assert_int_equal(signal_parse("SIGRTMIN+3", NULL), 37);
    assert_true(signal_parse("0", NULL) < 0);
    assert_true(signal_parse("100", NULL) < 0);
}

/* --- users ------------------------------------------------------------------------------------ */

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "broken line\n"
                             "app:x:1000:1001:App:/home/app:/bin/sh\n"
                             "homeless:x:1002:1002::relative:/bin/sh\n";
static const char group[] = "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\napp:x:1001:\n";

static char *looked_up(const char *name)
{
    _cleanup_(user_finish) struct user user = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct buffer text = BUFFER_INIT;
    char *groups[] = {(char *)"staff", (char *)"7", NULL};
    struct user_question question = {name, NULL};

    if (name && name[0] == '+') {
        question.user = name + 1;
        question.groups = groups;
    }
    if (user_lookup(passwd, group, &question, &user, &err) < 0)
        return xstrdup(error_message(&err));
    buffer_printf(&text, "%u:%u", user.uid, user.gid);
    for (size_t i = 0; i < user.additional_gids_count; i++)
        buffer_printf(&text, "%c%u", i ? ',' : ' ', user.additional_gids[i]);
    buffer_printf(&text, " %s", user.home);
    return buffer_steal(&text);
}

static void check_user(const char *name, const char *expected)
{
    _cleanup_free_ char *found = looked_up(name);

    assert_string_equal(found, expected);
}

static void test_users(void **state)
{
    check_user("", "0:0 0,10 /root");
    check_user(NULL, "0:0 0,10 /root");
    check_user("app", "1000:1001 1001,10,50 /home/app");
    check_user("1000", "1000:1001 1001,10,50 /home/app");
    check_user("app:staff", "1000:50 50 /home/app");
    check_user("4711", "4711:0 0 /");
    check_user("4711:4712", "4711:4712 4712 /");
    check_user("homeless", "1002:1002 1002 /");
    check_user("nobody", "unable to find user nobody: no matching entries in passwd file");
    check_user("app:none", "unable to find group none: no matching entries in group file");
}

/* --- texts ------------------------------------------------------------------------------------ */

static void check_duration(int64_t seconds, const char *expected)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    status_duration(&text, seconds * SECOND);
    assert_string_equal(buffer_text(&text), expected);
}

static void test_durations(void **state)
{
    check_duration(0, "Less than a second");
    check_duration(1, "1 second");
    check_duration(59, "59 seconds");
    check_duration(60, "About a minute");
    check_duration(119, "About a minute");
    check_duration(120, "2 minutes");
    check_duration(3600, "About an hour");
    check_duration(2 * 3600, "2 hours");
    check_duration(47 * 3600, "47 hours");
    check_duration(48 * 3600, "2 days");
    check_duration(15 * 24 * 3600, "2 weeks");
    check_duration(90 * 24 * 3600, "3 months");
    check_duration(INT64_C(3) * 365 * 24 * 3600, "3 years");
}

static void test_status(void **state)
{
    struct status_facts facts = {.state = "running", .started_at = 10 * SECOND};
    _cleanup_free_ char *up = status_text(&facts, 13 * SECOND);
    assert_string_equal(up, "Up 3 seconds");

    facts = (struct status_facts){.state = "exited", .finished_at = SECOND, .exit_code = 137};
    _cleanup_free_ char *exited = status_text(&facts, 121 * SECOND);
    assert_string_equal(exited, "Exited (137) 2 minutes ago");
}

static void test_times(void **state)
{
    int64_t time = 0;

    assert_int_equal(clock_parse("2026-11-20T10:00:00.25Z", &time), 0);
    _cleanup_free_ char *text = clock_format(time);
    assert_string_equal(text, "2026-11-20T10:00:00.250000000Z");
    assert_int_equal(clock_parse("2026-11-20T12:00:00+02:00", &time), 0);
    _cleanup_free_ char *shifted = clock_format(time);
    assert_string_equal(shifted, "2026-11-20T10:00:00.000000000Z");
    assert_true(clock_parse("yesterday", &time) < 0);
    assert_true(clock_parse("2026-11-20T10:00:00", &time) < 0);
}

static void test_names(void **state)
{
    for (unsigned attempt = 0; attempt < 12; attempt++) {
        _cleanup_free_ char *name = name_invent(attempt);
        assert_int_equal(name_check(name, NULL), 0);
    }
    assert_true(name_check("a", NULL) < 0);
    assert_true(name_check("a/b", NULL) < 0);
    assert_int_equal(name_check("a.b_c-1", NULL), 0);
}

/* --- log -------------------------------------------------------------------------------------- */

static int log_of(const char *text)
{
    int fd = memfd_create("log", 0);

    assert_int_equal(file_write_all(fd, text, strlen(text)), 0);
    return fd;
}

static void check_from(int fd, off_t offset, const char *expected)
{
    char text[1024] = "";

    assert_true(offset >= 0);
    assert_true(pread(fd, text, sizeof(text) - 1, offset) >= 0);
    assert_string_equal(text, expected);
}

#define LINE_1 "2026-11-20T10:00:01.000000000Z stdout F one\n"
#define LINE_2 "2026-11-20T10:00:02.000000000Z stdout P two, first half\n"
#define LINE_3 "2026-11-20T10:00:03.000000000Z stdout F two, second half\n"
#define LINE_4 "2026-11-20T10:00:04.000000000Z stderr F three\n"

static void test_log_tail(void **state)
{
    _cleanup_close_ int fd = log_of(LINE_1 LINE_2 LINE_3 LINE_4);

    check_from(fd, logfile_tail(fd, 0), "");
    check_from(fd, logfile_tail(fd, 1), LINE_4);
    check_from(fd, logfile_tail(fd, 2), LINE_2 LINE_3 LINE_4);
    check_from(fd, logfile_tail(fd, 3), LINE_1 LINE_2 LINE_3 LINE_4);
    check_from(fd, logfile_tail(fd, 30), LINE_1 LINE_2 LINE_3 LINE_4);
    _cleanup_close_ int unfinished = log_of(LINE_1 LINE_4 LINE_2);
    check_from(unfinished, logfile_tail(unfinished, 1), LINE_2);
    check_from(unfinished, logfile_tail(unfinished, 2), LINE_4 LINE_2);
    _cleanup_close_ int apart = log_of(LINE_1 LINE_2 LINE_4);
    check_from(apart, logfile_tail(apart, 2), LINE_2 LINE_4);
    check_from(apart, logfile_tail(apart, 3), LINE_1 LINE_2 LINE_4);
}

static void test_log_since(void **state)
{
    _cleanup_close_ int fd = log_of(LINE_1 LINE_2 LINE_3 LINE_4);
    int64_t time = 0;

    assert_int_equal(clock_parse("2026-11-20T10:00:02.5Z", &time), 0);
    check_from(fd, logfile_since(fd, time), LINE_3 LINE_4);
    check_from(fd, logfile_since(fd, time - 100 * SECOND), LINE_1 LINE_2 LINE_3 LINE_4);
    check_from(fd, logfile_since(fd, time + 100 * SECOND), "");
}

/* --- bundle ----------------------------------------------------------------------------------- */

static struct oci_config *bundle_of(const char *request, const struct user *user)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = parse_spec(request);
    _cleanup_api_container_spec_ struct api_container_spec *merged = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct oci_config *config = NULL;

    assert_int_equal(spec_merge(spec, &image, "0123456789abcdef", &merged, NULL), 0);
    struct bundle_facts facts = {
        .id = "0123456789abcdef",
        .rootfs = "/run/x/rootfs",
        .files_directory = "/var/x",
        .cgroup_parent = "cloche",
        .effective = merged,
        .user = user,
        .network = {BUNDLE_JOINED, "/run/x/netns"},
        .cgroup = {BUNDLE_HOST, NULL},
    };
    assert_int_equal(bundle_write_config(&facts, &text, NULL), 0);
    if (oci_config_parse(text.data, text.length, "config.json", &config, &err) < 0)
        fail_msg("%s", error_message(&err));
    return config;
}

/* What we write is a configuration by our own schema, with the default filter in it. */
static void test_bundle_is_valid(void **state)
{
    struct user root = {.home = (char *)"/root"};
    struct oci_config *config =
        bundle_of("{\"image\":\"i\",\"resources\":{\"memory\":67108864,\"nanoCpus\":500000000,"
                  "\"pidsLimit\":10}}",
                  &root);

    assert_int_equal(config->process->capabilities->effective_count, 14);
    assert_int_equal(config->linux->resources->memory->limit, 67108864);
    assert_int_equal(config->linux->resources->memory->swap, 2 * 67108864);
    assert_int_equal(config->linux->resources->cpu->quota, 50000);
    assert_int_equal(config->linux->resources->pids->limit, 10);
    assert_string_equal(config->linux->cgroups_path, "/cloche/0123456789abcdef");
    assert_string_equal(config->linux->seccomp->default_action, "SCMP_ACT_ERRNO");
    oci_config_free(config);
}

static void test_other_users_have_no_capabilities(void **state)
{
    struct user user = {.uid = 1000, .gid = 1000, .home = (char *)"/"};
    struct oci_config *config = bundle_of("{\"image\":\"i\"}", &user);

    assert_int_equal(config->process->user->uid, 1000);
    assert_int_equal(config->process->capabilities->effective_count, 0);
    assert_int_equal(config->process->capabilities->bounding_count, 14);
    oci_config_free(config);
}

static void test_resolv_conf(void **state)
{
    static const struct api_container_spec plain;
    _cleanup_free_ char *kept =
        bundle_resolv_conf("search lan\nnameserver 127.0.0.1\nnameserver 10.0.0.1\n", &plain, true);
    assert_string_equal(kept, "search lan\nnameserver 10.0.0.1\n");
    _cleanup_free_ char *fallback = bundle_resolv_conf("nameserver 127.0.0.53\n", &plain, true);
    assert_string_equal(fallback, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    _cleanup_api_container_spec_ struct api_container_spec *spec =
        parse_spec("{\"image\":\"i\",\"dns\":[\"9.9.9.9\"],\"dnsSearch\":[\".\"],"
                   "\"dnsOptions\":[\"ndots:2\",\"rotate\"]}");
    _cleanup_free_ char *asked =
        bundle_resolv_conf("search lan\nnameserver 10.0.0.1\noptions edns0\n", spec, true);
    assert_string_equal(asked, "nameserver 9.9.9.9\noptions ndots:2 rotate\n");
}

/* --- what processes may do -------------------------------------------------------------------- */

static char *capabilities_of(const char *fields)
{
    _cleanup_free_ char *request = xasprintf("{\"image\":\"i\"%s}", fields);
    _cleanup_api_container_spec_ struct api_container_spec *spec = parse_spec(request);
    _cleanup_strv_ char **list = security_capabilities(spec);

    return strv_length(list) > 3 ? xasprintf("%zu", strv_length(list)) : strv_join(list, " ");
}

static void check_capabilities(const char *fields, const char *expected)
{
    _cleanup_free_ char *list = capabilities_of(fields);

    assert_string_equal(list, expected);
}

static void test_capability_rules(void **state)
{
    check_capabilities("", "14");
    check_capabilities(",\"capAdd\":[\"net_admin\"]", "15");
    check_capabilities(",\"capDrop\":[\"CAP_CHOWN\",\"kill\"]", "12");
    check_capabilities(",\"capDrop\":[\"ALL\"],\"capAdd\":[\"SYS_TIME\",\"chown\"]",
                       "CAP_CHOWN CAP_SYS_TIME");
    check_capabilities(",\"capAdd\":[\"ALL\"],\"capDrop\":[\"SYS_ADMIN\"]", "40");
    check_capabilities(",\"privileged\":true,\"capDrop\":[\"ALL\"]", "41");
    check_refused("{\"image\":\"i\",\"capAdd\":[\"FLY\"]}", "unknown capability: \"CAP_FLY\"");
}

static void test_security_options(void **state)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec =
        parse_spec("{\"image\":\"i\",\"securityOpt\":[\"no-new-privileges\",\"seccomp:unconfined\","
                   "\"apparmor=mine\",\"label:disable\",\"systempaths=unconfined\"]}");
    struct security_options options;

    assert_int_equal(security_options_read(spec, &options, NULL), 0);
    assert_true(options.no_new_privileges && options.seccomp_unconfined);
    assert_string_equal(options.apparmor, "mine");
    assert_null(security_masked_paths(spec));
    assert_null(security_readonly_paths(spec));
    check_refused("{\"image\":\"i\",\"securityOpt\":[\"fly\"]}", "invalid --security-opt 1");
    check_refused("{\"image\":\"i\",\"securityOpt\":[\"fly=x\"]}", "invalid --security-opt 2");
    check_refused("{\"image\":\"i\",\"securityOpt\":[\"seccomp=x.json\"]}", "no JSON object");
    check_refused("{\"image\":\"i\",\"securityOpt\":[\"seccomp={}\"]}", "defaultAction");
}

static bool allows(const struct oci_config *config, const char *call)
{
    for (size_t i = 0; i < config->linux->seccomp->syscalls_count; i++) {
        const struct oci_syscall *rule = config->linux->seccomp->syscalls[i];
        if (rule->args_count == 0 && text_equal(rule->action, "SCMP_ACT_ALLOW") &&
            strv_contains(rule->names, call))
            return true;
    }
    return false;
}

static void test_filter_follows_capabilities(void **state)
{
    struct user root = {.home = (char *)"/root"};
    struct oci_config *plain = bundle_of("{\"image\":\"i\"}", &root);
    struct oci_config *admin = bundle_of("{\"image\":\"i\",\"capAdd\":[\"SYS_ADMIN\"]}", &root);
    struct oci_config *timer = bundle_of("{\"image\":\"i\",\"capAdd\":[\"SYS_TIME\"]}", &root);
    struct oci_config *none = bundle_of("{\"image\":\"i\",\"privileged\":true}", &root);

    assert_false(allows(plain, "mount") || allows(plain, "settimeofday"));
    assert_true(allows(admin, "mount") && allows(admin, "clone3") && allows(admin, "read"));
    assert_false(allows(timer, "mount"));
    assert_true(allows(timer, "settimeofday") && allows(timer, "read"));
    assert_int_equal(timer->linux->seccomp->architectures_count,
                     plain->linux->seccomp->architectures_count);
    assert_null(none->linux->seccomp);
    assert_int_equal(none->linux->masked_paths_count + none->linux->readonly_paths_count, 0);
    oci_config_free(plain);
    oci_config_free(admin);
    oci_config_free(timer);
    oci_config_free(none);
}

/* --- update ----------------------------------------------------------------------------------- */

static char *merged_limits(const char *before, const char *asked)
{
    _cleanup_api_resources_ struct api_resources *first = NULL, *second = NULL, *merged = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct buffer text = BUFFER_INIT;

    assert_int_equal(api_resources_parse(before, strlen(before), "x", &first, NULL), 0);
    assert_int_equal(api_resources_parse(asked, strlen(asked), "x", &second, NULL), 0);
    if (limits_merge(first, second, 2, &merged, &err) < 0)
        return xstrdup(error_message(&err));
    api_resources_write(merged, &text);
    return buffer_steal(&text);
}

static void check_merged(const char *before, const char *asked, const char *expected)
{
    _cleanup_free_ char *merged = merged_limits(before, asked);

    if (!strstr(merged, expected))
        fail_msg("'%s' is not in '%s'", expected, merged);
}

static void check_cpuset(const char *wanted, const char *there, const char *complaint)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = cpusets_compare("cpus", wanted, there, &err);

    assert_int_equal(r, complaint ? -EINVAL : 0);
    if (complaint && !strstr(error_message(&err), complaint))
        fail_msg("'%s' is not in '%s'", complaint, error_message(&err));
}

static void test_cpusets_are_of_this_machine(void **state)
{
    check_cpuset(NULL, "0-1", NULL);
    check_cpuset("", "0-1", NULL);
    check_cpuset("0-2,5,1", "0-5", NULL);
    check_cpuset("7", NULL, NULL);
    check_cpuset("0-2", "0-1,3",
                 "Requested CPUs are not available - requested 0-2, available: 0-1,3");
    check_cpuset("8192", "0", "not available");
    check_cpuset("8193", "0", "value of out range, maximum is 8192");
    const char *const wrong[] = {"x", "0-", "-1", "1-0", " 0", "0,", "0,,1", "0-1-2", ","};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        check_cpuset(wrong[i], "0-1", "invalid format: ");
}

static void test_limits_are_merged(void **state)
{
    check_merged("{\"memory\":67108864,\"cpuShares\":5}", "{\"memory\":33554432,\"pidsLimit\":7}",
                 "{\"cpuShares\":5,\"memory\":33554432,\"pidsLimit\":7}");
    check_merged("{\"cpusetCpus\":\"0\"}", "{\"cpusetCpus\":\"\",\"cpusetMems\":\"0\"}",
                 "{\"cpusetCpus\":\"0\",\"cpusetMems\":\"0\"}");
    check_merged("{\"nanoCpus\":500000000}", "{\"cpuQuota\":5000}", "CPU Quota cannot be updated");
    check_merged("{\"cpuPeriod\":5000}", "{\"nanoCpus\":500000000}", "Nano CPUs cannot be updated");
    check_merged("{\"memory\":67108864,\"memorySwap\":134217728}", "{\"memory\":268435456}",
                 "update the memoryswap at the same time");
    check_merged("{}", "{\"memory\":1000}", "6MB");
}

static void test_limits_go_into_a_config(void **state)
{
    struct user root = {.home = (char *)"/root"};
    struct oci_config *before =
        bundle_of("{\"image\":\"i\",\"resources\":{\"memory\":67108864}}", &root);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT, limits = BUFFER_INIT, out = BUFFER_INIT;
    struct api_resources resources = {.memory = 33554432, .memory_swap = -1, .pids_limit = 9};
    struct oci_config *after;

    oci_config_write(before, &text);
    bundle_write_limits(&resources, NULL, 0, &limits);
    assert_int_equal(limits_put_into_config(text.data, text.length, &limits, &out, NULL), 0);
    assert_int_equal(oci_config_parse(out.data, out.length, "x", &after, NULL), 0);
    assert_int_equal(after->linux->resources->memory->limit, 33554432);
    assert_int_equal(after->linux->resources->memory->swap, -1);
    assert_int_equal(after->linux->resources->pids->limit, 9);
    assert_int_equal(after->linux->resources->devices_count,
                     before->linux->resources->devices_count);
    assert_int_equal(after->mounts_count, before->mounts_count);
    assert_int_equal(after->linux->seccomp->syscalls_count, before->linux->seccomp->syscalls_count);
    oci_config_free(before);
    oci_config_free(after);
}

/* --- mounts ----------------------------------------------------------------------------------- */

static char *mounts_of(const char *fields)
{
    _cleanup_free_ char *request = xasprintf("{\"image\":\"i\",%s}", fields);
    _cleanup_api_container_spec_ struct api_container_spec *spec = parse_spec(request);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct buffer text = BUFFER_INIT;

    if (spec_settle_mounts(spec, &err) < 0)
        return xstrdup(error_message(&err));
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_mount *mount = spec->mounts[i];
        buffer_printf(&text, "%s%s %s %s%s", i ? ", " : "", mount->type,
                      mount->source ? mount->source : "-", mount->target,
                      mount->read_only ? " ro" : "");
    }
    return buffer_steal(&text);
}

static void check_mounts(const char *fields, const char *expected)
{
    _cleanup_free_ char *mounts = mounts_of(fields);

    assert_string_equal(mounts, expected);
}

static void test_mounts_are_put_in_order(void **state)
{
    check_mounts("\"binds\":[{\"source\":\"/a\",\"target\":\"/x//y/../z/\",\"options\":[\"ro\"]},"
                 "{\"source\":\"data\",\"target\":\"/x\"}],\"volumes\":[\"/v\"],"
                 "\"tmpfs\":{\"/t\":\"size=1m,exec\"}",
                 "volume data /x, volume - /v, tmpfs - /t, bind /a /x/z ro");
    check_mounts("\"binds\":[{\"source\":\"/a\",\"target\":\"/x\"}],\"tmpfs\":{\"/x/\":\"\"}",
                 "Duplicate mount point: /x");
    check_mounts("\"binds\":[{\"source\":\"/a\",\"target\":\"/x\",\"options\":[\"fly\"]}]",
                 "invalid mode: fly");
    check_mounts("\"tmpfs\":{\"/t\":\"fly\"}", "invalid tmpfs option [\"fly\"]");
    check_mounts("\"mounts\":[{\"type\":\"bind\",\"target\":\"/t\"}]",
                 "invalid mount config for type \"bind\": field Source must not be empty");
    check_mounts(
        "\"mounts\":[{\"type\":\"bind\",\"source\":\"/a\",\"target\":\"/t\","
        "\"tmpfsOptions\":{}}]",
        "invalid mount config for type \"bind\": field TmpfsOptions must not be specified");
}

/* --- configurations of commits ------------------------------------------------------------------
 */

static void test_commits_fill_in_what_is_open(void **state)
{
    static const char own_text[] =
        "{\"User\":\"shop\",\"Env\":[\"A=1\",\"AB=2\"],\"Entrypoint\":[\"e\"],\"Cmd\":[\"c\"],"
        "\"Labels\":{\"a\":\"1\"},\"Volumes\":{\"/v\":{}},\"ExposedPorts\":{\"80/tcp\":{}},"
        "\"Healthcheck\":{\"Test\":[\"CMD\",\"t\"],\"Retries\":3}}";
    static const char given_text[] =
        "{\"Env\":[\"A=9\"],\"Entrypoint\":[\"new\"],\"Labels\":{\"a\":\"2\"},"
        "\"ExposedPorts\":{\"81/tcp\":{}},\"Healthcheck\":{\"Interval\":5}}";
    struct oci_image_execution *own = NULL, *config = NULL;

    assert_int_equal(oci_image_execution_parse(own_text, strlen(own_text), NULL, &own, NULL), 0);
    assert_int_equal(oci_image_execution_parse(given_text, strlen(given_text), NULL, &config, NULL),
                     0);
    commit_config_merge(config, own);
    assert_string_equal(config->user, "shop");
    assert_string_equal(config->env[0], "A=9");
    assert_string_equal(config->env[1], "AB=2");
    assert_string_equal(config->entrypoint[0], "new");
    assert_int_equal(config->cmd_count, 0);
    assert_string_equal(json_string_map_get(config->labels, "a"), "2");
    assert_int_equal(config->exposed_ports->count, 2);
    assert_int_equal(config->volumes->count, 1);
    assert_string_equal(config->healthcheck->test[1], "t");
    assert_int_equal(config->healthcheck->interval, 5);
    assert_int_equal(config->healthcheck->retries, 3);
    oci_image_execution_free(own);
    oci_image_execution_free(config);
}

/* --- user namespaces -------------------------------------------------------------------------- */

static const char *pool_error(const char *text, struct id_pool *pool, struct error *err)
{
    error_finish(err);
    idmap_read_pool(text, "subuid", "us", pool, err);
    return error_message(err);
}

static void test_subordinate_ids(void **state)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct id_pool pool;

    assert_string_equal(pool_error("other:5:6\nus:100:50\nus2:1:1\n\n#x\nus:1000:20", &pool, &err),
                        "no error");
    assert_int_equal(pool.count, 2);
    assert_int_equal(pool.ranges[1].first, 1000);
    assert_int_equal(pool.ranges[1].count, 20);
    assert_non_null(strstr(pool_error("other:5:6\n", &pool, &err), "no IDs for 'us'"));
    assert_non_null(strstr(pool_error("", &pool, &err), "no IDs for 'us'"));
    assert_non_null(strstr(pool_error("us:0:1000\n", &pool, &err), "root"));
    assert_non_null(strstr(pool_error("x:1:1\nus:5\n", &pool, &err), "subuid:2: "));
    assert_non_null(strstr(pool_error("us:5:0\n", &pool, &err), "NAME:FIRST:COUNT"));
    assert_non_null(strstr(pool_error("us:-5:1\n", &pool, &err), "NAME:FIRST:COUNT"));
    assert_non_null(strstr(pool_error("us:2:4294967294\n", &pool, &err), "NAME:FIRST:COUNT"));
    assert_string_equal(pool_error("us:1:4294967294\n", &pool, &err), "no error");
    assert_non_null(
        strstr(pool_error("us:100:10\nus:105:1\n", &pool, &err), "subuid:2: us has some"));
    assert_string_equal(pool_error("us:100:10\nother:105:1\nus:110:1\n", &pool, &err), "no error");
}

static void test_free_ranges(void **state)
{
    const struct id_pool pool = {{{100, 50}, {4294967000, 295}}, 2};
    struct id_range used[] = {{130, 5}, {90, 15}, {4294967010, 200}};
    uint32_t first = 0;

    assert_true(idmap_find_free(&pool, NULL, 0, 50, &first));
    assert_int_equal(first, 100);
    assert_true(idmap_find_free(&pool, used, 3, 25, &first));
    assert_int_equal(first, 105);
    assert_false(idmap_find_free(&pool, used, 3, 86, &first));
    assert_true(idmap_find_free(&pool, used, 3, 85, &first));
    assert_int_equal(first, 4294967210U);
    assert_true(idmap_find_free(&pool, used, 3, 15, &first));
    assert_int_equal(first, 105);
    assert_false(idmap_find_free(&pool, used, 3, 4294967294U, &first));
}

static int check_mapping(const char *uids)
{
    _cleanup_free_ char *text = xasprintf("{\"kind\":\"auto\",\"uids\":[%s],"
                                          "\"gids\":[{\"containerId\":0,\"hostId\":7,\"size\":1}]}",
                                          uids);
    _cleanup_api_id_mappings_ struct api_id_mappings *mappings = NULL;

    assert_int_equal(api_id_mappings_parse(text, strlen(text), "test", &mappings, NULL), 0);
    return idmap_check(mappings, NULL);
}

/* A record may have been changed by hand, or by a disk. */
static void test_id_mappings(void **state)
{
#define RANGE(inside, outside, size)                                                               \
    "{\"containerId\":" #inside ",\"hostId\":" #outside ",\"size\":" #size "}"
    assert_int_equal(check_mapping(RANGE(0, 100000, 65536)), 0);
    assert_int_equal(check_mapping(RANGE(10, 500, 5) "," RANGE(0, 100, 10)), 0);
    assert_int_equal(check_mapping(""), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(0, 0, 10)), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(1, 100, 10)), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(0, 100, 0)), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(0, 100, 4294967295)), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(0, 4294967290, 6)), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(0, 100, 10) "," RANGE(5, 200, 10)), -EBADMSG);
    assert_int_equal(check_mapping(RANGE(0, 100, 10) "," RANGE(10, 109, 10)), -EBADMSG);
#undef RANGE
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subordinate_ids),
        cmocka_unit_test(test_free_ranges),
        cmocka_unit_test(test_id_mappings),
        cmocka_unit_test(test_command_rules),
        cmocka_unit_test(test_other_fields),
        cmocka_unit_test(test_refused_specs),
        cmocka_unit_test(test_labels_have_a_limit),
        cmocka_unit_test(test_capability_rules),
        cmocka_unit_test(test_security_options),
        cmocka_unit_test(test_filter_follows_capabilities),
        cmocka_unit_test(test_limits_are_merged),
        cmocka_unit_test(test_cpusets_are_of_this_machine),
        cmocka_unit_test(test_limits_go_into_a_config),
        cmocka_unit_test(test_mounts_are_put_in_order),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_log_tail),
        cmocka_unit_test(test_log_since),
        cmocka_unit_test(test_bundle_is_valid),
        cmocka_unit_test(test_other_users_have_no_capabilities),
        cmocka_unit_test(test_resolv_conf),
        cmocka_unit_test(test_commits_fill_in_what_is_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
