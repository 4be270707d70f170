/*
 * The foreign documents we read: OCI runtime configuration and state, image documents.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>

#include <base/file.h>
#include <base/text.h>
#include <schema/oci_config.h>
#include <schema/oci_image.h>
#include <schema/oci_state.h>

static char *read_document(const char *name)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *path = xasprintf("%s/%s", DOCUMENTS, name);
    char *text;

    if (file_read_at(AT_FDCWD, path, JSON_DOCUMENT_MAX, &text, NULL, &err) < 0)
        fail_msg("%s", error_message(&err));
    return text;
}

static struct oci_config *parse_config(const char *text)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct oci_config *config = NULL;

    if (oci_config_parse(text, strlen(text), "config.json", &config, &err) < 0)
        fail_msg("%s", error_message(&err));
    return config;
}

static void every_field_of_a_config_survives(void **state)
{
    _cleanup_free_ char *text = read_document("full.json");
    _cleanup_oci_config_ struct oci_config *config = parse_config(text);
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    oci_config_write_pretty(config, &out);
    buffer_append_char(&out, '\n');
    assert_string_equal(out.data, text);

    assert_string_equal(config->oci_version, "1.3.0");
    assert_true(config->process->rlimits[0]->hard == UINT64_MAX);
    assert_int_equal(config->process->console_size->width, 65535);
    assert_true(config->linux->resources->memory->has_disable_oom_killer);
    assert_true(config->linux->resources->cpu->idle == INT64_MIN);
    assert_true(config->linux->resources->block_io->throttle_read_iops_device[0]->rate ==
                UINT64_MAX);
    assert_true(config->linux->resources->network->class_id == UINT32_MAX);
    assert_true(config->linux->seccomp->syscalls[0]->args[0]->value_two == UINT64_MAX);
    assert_string_equal(config->linux->intel_rdt->l3_cache_schema, "l3CacheSchema");
    assert_string_equal(config->linux->time_offsets->keys[0], "key one");
    assert_true(config->linux->time_offsets->values[0]->secs == INT64_MIN);
    assert_string_equal(config->linux->net_devices->values[0]->name, "name");
    assert_string_equal(config->process->exec_cpu_affinity->final, "0-1");
    assert_string_equal(config->vm, "{\"k\":[1,2.5,null]}");
}

static void configs_of_other_tools_are_read(void **state)
{
    static const char *const names[] = {"runc-spec.json", "podman.json"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_free_ char *text = read_document(names[i]);
        _cleanup_oci_config_ struct oci_config *config = parse_config(text);
        _cleanup_buffer_ struct buffer first = BUFFER_INIT, second = BUFFER_INIT;

        oci_config_write(config, &first);
        _cleanup_oci_config_ struct oci_config *again = parse_config(first.data);
        oci_config_write_pretty(again, &second);
        _cleanup_oci_config_ struct oci_config *third = parse_config(second.data);
        buffer_clear(&second);
        oci_config_write(third, &second);
        assert_string_equal(first.data, second.data);
        assert_non_null(config->process->args);
        assert_int_equal(config->linux->namespaces_count, 5);
    }
}

static void null_in_a_config_is_absence(void **state)
{
    _cleanup_oci_config_ struct oci_config *config =
        parse_config("{\"ociVersion\":\"1.0.2\",\"process\":{\"cwd\":\"/\",\"args\":null,"
                     "\"user\":null,\"terminal\":null},\"windows\":null,\"mounts\":[],\"x\":{}}");

    assert_null(config->process->args);
    assert_null(config->process->user);
    assert_false(config->process->has_terminal);
    assert_null(config->windows);
    assert_non_null(config->mounts);
    assert_int_equal(config->mounts_count, 0);
}

static void an_object_goes_on_in_another_case(void **state)
{
    _cleanup_oci_config_ struct oci_config *config =
        parse_config("{\"ociVersion\": \"1.0.2\", \"linux\": {\"resources\": {"
                     "\"cpu\": {\"shares\": 100, \"mems\": \"0\"},"
                     "\"CPU\": {\"Cpus\": \"1\", \"quota\": 6000}, \"cPU\": {\"Period\": 7000}}}}");
    const struct oci_cpu *cpu = config->linux->resources->cpu;

    assert_int_equal(cpu->shares, 100);
    assert_int_equal(cpu->quota, 6000);
    assert_int_equal(cpu->period, 7000);
    assert_string_equal(cpu->cpus, "1");
    assert_string_equal(cpu->mems, "0");
}

static void broken_configs_are_refused_with_their_place(void **state)
{
    static const char *const documents[][2] = {
        /* in another case: what would count is not the same for every reader */
        {"{\"ociVersion\":\"1\",\"linux\":{\"maskedPaths\":[],\n\"MaskedPaths\":[\"/a\"]}}",
         "config.json:2: linux.maskedPaths: duplicate key"},
        {"{\"ociVersion\":\"1\",\"linux\":{\"resources\":{\"pids\":{\"limit\":1,\"Limit\":2}}}}",
         "config.json:1: linux.resources.pids.limit: duplicate key"},
        {"{\"ociVersion\":\"1\",\"hostname\":\"a\",\n\"Hostname\":\"b\"}",
         "config.json:2: hostname: duplicate key"},
        {"{\"ociVersion\":\"1\",\"root\":{\"path\":\"a\",\"readonly\":true},\n"
         "\"Root\":{\"readonly\":false}}",
         "config.json:2: root.readonly: duplicate key"},
        {"{\"ociVersion\":\"1\",\"annotations\":{\"a\":\"1\"},\n\"Annotations\":{\"b\":\"2\"}}",
         "config.json:2: annotations: duplicate key"},
        {"{\"ociVersion\":\"1.0.2\",\n\"linux\":{\"resources\":{\n\"memory\":{\"limit\":\"64m\"}}}"
         "}",
         "config.json:3: linux.resources.memory.limit: expected an integer, got a string"},
        {"{\n}", "config.json:1: ociVersion: required, but missing"},
        {"{\"ociVersion\":null}", "config.json:1: ociVersion: expected a string, got null"},
        {"{\"ociVersion\":\"1\",\"process\":{\"args\":[]}}",
         "config.json:1: process.cwd: required, but missing"},
        {"{\"ociVersion\":\"1\",\"mounts\":[{\"destination\":\"/\"},\n{\"type\":\"tmpfs\"}]}",
         "config.json:2: mounts[1].destination: required, but missing"},
        {"{\"ociVersion\":\"1\",\"linux\":{\"namespaces\":[{\"type\":\"net\"}]}}",
         "config.json:1: linux.namespaces[0].type: expected one of \"pid\", \"network\", "
         "\"mount\", \"ipc\", \"uts\", \"user\", \"cgroup\", \"time\", got \"net\""},
        {"{\"ociVersion\":\"1\",\"linux\":{\"sysctl\":{\"net.ipv4.ip_forward\":1}}}",
         "config.json:1: linux.sysctl[\"net.ipv4.ip_forward\"]: expected a string, got a number"},
        {"{\"ociVersion\":\"1\",\"process\":{\"cwd\":\"/\",\"user\":{\"uid\":-1}}}",
         "config.json:1: process.user.uid: -1 is out of range (0 to 4294967295)"},
        {"{\"ociVersion\":\"1\",\"linux\":{\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\","
         "\"syscalls\":[{\"names\":[],\"action\":\"SCMP_ACT_ERRNO\"}]}}}",
         "config.json:1: linux.seccomp.syscalls[0].names: 0 elements, at least 1 are needed"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct oci_config *config = NULL;
        const char *text = documents[i][0];

        assert_int_equal(oci_config_parse(text, strlen(text), "config.json", &config, &err),
                         -EINVAL);
        assert_null(config);
        assert_string_equal(error_message(&err), documents[i][1]);
    }
}

static void a_state_document_is_written(void **state)
{
    _cleanup_oci_state_ struct oci_state *document = xnew(struct oci_state);
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    document->oci_version = xstrdup("1.3.0");
    document->id = xstrdup("shop");
    document->status = xstrdup("running");
    document->pid = 42;
    document->has_pid = true;
    document->bundle = xstrdup("/b");
    json_string_map_set(&document->annotations, "a", "b");
    oci_state_write(document, &out);
    assert_string_equal(out.data,
                        "{\"ociVersion\":\"1.3.0\",\"id\":\"shop\",\"status\":\"running\","
                        "\"pid\":42,\"bundle\":\"/b\",\"annotations\":{\"a\":\"b\"}}");
}

static void an_image_configuration_keeps_what_it_has(void **state)
{
    _cleanup_free_ char *text = read_document("image-config.json");
    _cleanup_oci_image_configuration_ struct oci_image_configuration *image = NULL;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    assert_int_equal(oci_image_configuration_parse(text, strlen(text), NULL, &image, NULL), 0);
    assert_true(image->null_created && !image->created);
    assert_true(image->config->null_cmd && !image->config->cmd);
    assert_true(!image->config->null_entrypoint && image->config->entrypoint_count == 0);
    assert_string_equal(image->config->exposed_ports->keys[0], "80/tcp");
    assert_string_equal(json_string_map_get(image->config->unknown_fields, "Other"),
                        "[1,{\"x\":\"\\u00e9\"}]");
    assert_string_equal(json_string_map_get(image->unknown_fields, "new"), "\"kept\"");

    strv_append(&image->config->env, "A=b");
    oci_image_configuration_write(image, &out);
    assert_non_null(strstr(out.data, "\"Env\":[\"PATH=/bin\",\"A=b\"]"));
    assert_non_null(strstr(out.data, "\"Cmd\":null"));
    assert_non_null(strstr(out.data, "\"Other\":[1,{\"x\":\"\\u00e9\"}]"));
    assert_non_null(strstr(out.data, "\"new\":\"kept\""));
    assert_non_null(strstr(out.data, "\"created\":null"));
}

static void the_manifest_of_an_archive_is_an_array(void **state)
{
    _cleanup_free_ char *text = read_document("archive.json");
    _cleanup_oci_image_docker_archive_ struct oci_image_docker_archive *archive = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    static const char bad[] = "[{\"Config\":\"a\"},{}]";

    assert_int_equal(
        oci_image_docker_archive_parse(text, strlen(text), "manifest.json", &archive, NULL), 0);
    assert_int_equal(archive->images_count, 2);
    assert_true(archive->images[0]->null_repo_tags);
    assert_string_equal(archive->images[1]->repo_tags[0], "shop:latest");
    struct oci_image_docker_archive *none = NULL;
    assert_int_equal(oci_image_docker_archive_parse(bad, strlen(bad), "manifest.json", &none, &err),
                     -EINVAL);
    assert_string_equal(error_message(&err), "manifest.json:1: [1].Config: required, but missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_a_config_survives),
        cmocka_unit_test(configs_of_other_tools_are_read),
        cmocka_unit_test(null_in_a_config_is_absence),
        cmocka_unit_test(an_object_goes_on_in_another_case),
        cmocka_unit_test(broken_configs_are_refused_with_their_place),
        cmocka_unit_test(a_state_document_is_written),
        cmocka_unit_test(an_image_configuration_keeps_what_it_has),
        cmocka_unit_test(the_manifest_of_an_archive_is_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
