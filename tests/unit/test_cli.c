#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <base/detach_keys.h>
#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "commands.h"
#include "human.h"
#include "listing.h"
#include "log_lines.h"
#include "options.h"
#include "ports.h"
#include "spec.h"
#include "stream.h"
#include "table.h"
#include "template.h"
#include "terminal.h"

/* Compares and releases. */
static void assert_text(char *text, const char *expected)
{
    assert_string_equal(text, expected);
    free(text);
}

/* ---- human.h */

static void durations_are_worded_as_docker_words_them(void **state)
{
    enum { HOUR = 3600, DAY = 24 * HOUR };
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {
        {0, "Less than a second"},
        {1, "1 second"},
        {59, "59 seconds"},
        {60, "About a minute"},
        {119, "About a minute"},
        {120, "2 minutes"},
        {HOUR - 1, "59 minutes"},
        {HOUR, "About an hour"},
        {HOUR + 1799, "About an hour"},
        {HOUR + 1800, "2 hours"},
        {2 * DAY - 1801, "47 hours"},
        {2 * DAY, "2 days"},
        {14 * DAY - HOUR, "13 days"},
        {14 * DAY, "2 weeks"},
        {60 * DAY - HOUR, "8 weeks"},
        {60 * DAY, "2 months"},
        {729 * DAY, "24 months"},
        {730 * DAY, "2 years"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_text(human_duration(cases[i].seconds), cases[i].text);
}

static const int64_t ten_o_clock = 1795168800; /* 2026-11-20T10:00:00Z */

static void age_is_told_from_a_time(void **state)
{
    assert_text(human_age("2026-11-20T10:00:00Z", ten_o_clock + 120), "2 minutes ago");
    assert_text(human_age("yesterday", 0), "N/A");
    assert_text(human_timestamp("2026-11-20T10:00:00.5+01:00"), "2026-11-20 09:00:00 +0000 UTC");
}

static void points_in_time_come_in_three_forms(void **state)
{
    static const struct {
        const char *typed, *point;
    } cases[] = {
        {"2026-11-20T10:00:00Z", "2026-11-20T10:00:00.000000000Z"},
        {"2026-11-20T10:00:00.25+01:00", "2026-11-20T09:00:00.250000000Z"},
        {"2026-11-20T10:00", "2026-11-20T10:00:00.000000000Z"},
        {"2026-11-20", "2026-11-20T00:00:00.000000000Z"},
        {"1795168800", "2026-11-20T10:00:00.000000000Z"},
        {"1795168800.000000001", "2026-11-20T10:00:00.000000001Z"},
        {"10m", "2026-11-20T09:50:00.000000000Z"},
        {"1h30m", "2026-11-20T08:30:00.000000000Z"},
        {"500ms", "2026-11-20T09:59:59.500000000Z"},
    };
    char *point;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(human_point_in_time(cases[i].typed, ten_o_clock, &point, NULL), 0);
        assert_text(point, cases[i].point);
    }
    assert_int_equal(human_point_in_time("soon", 0, &point, NULL), -EINVAL);
    assert_int_equal(human_point_in_time("10x", 0, &point, NULL), -EINVAL);
    assert_int_equal(human_point_in_time("", 0, &point, NULL), -EINVAL);
    assert_int_equal(human_point_in_time("99999999999999", 0, &point, NULL), -ERANGE);
}

static void texts_are_shortened_by_characters(void **state)
{
    assert_text(human_shorten("sh -c 'sleep 100000'", 20), "sh -c 'sleep 100000'");
    assert_text(human_shorten("sh -c 'sleep 1000000'", 20), "sh -c 'sleep 100000…");
    assert_text(human_shorten("ääääääääää", 10), "ääääääääää");
    assert_text(human_shorten("äääääääääää", 10), "äääääääää…");
    assert_text(human_quote("a \"b\"\n\\\x01"), "\"a \\\"b\\\"\\n\\\\\\x01\"");
    assert_text(human_id("sha256:0123456789abcdef", false), "0123456789ab");
    assert_text(human_id("sha256:0123456789abcdef", true), "sha256:0123456789abcdef");
    assert_text(human_id("abc", false), "abc");
}

static void names_are_split_behind_the_last_slash(void **state)
{
    static const struct {
        const char *name, *repository, *tag;
    } cases[] = {
        {"shop:1.2", "shop", "1.2"},
        {"host:5000/shop:1", "host:5000/shop", "1"},
        {"host:5000/shop", "host:5000/shop", "<none>"},
        {"", "<none>", "<none>"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *repository, *tag;
        human_split_name(cases[i].name, &repository, &tag);
        assert_text(repository, cases[i].repository);
        assert_text(tag, cases[i].tag);
    }
}

/* ---- table.h, ports.h, listing.h */

static void columns_are_as_wide_as_docker_makes_them(void **state)
{
    _cleanup_table_ struct table *table = table_create();
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    table_add(table, "CONTAINER ID\tIMAGE\tNAMES");
    table_add(table, "0123456789ab\tä\x1b[31m\tone");
    table_write(table, &out);
    assert_string_equal(buffer_text(&out), "CONTAINER ID   IMAGE     NAMES\n"
                                           "0123456789ab   ä?[31m    one\n");
}

static void ports_are_shown_as_docker_shows_them(void **state)
{
    struct api_port web = {.container_port = 80, .host_port = 9000, .has_host_port = true},
                    a = {.container_port = 8000, .host_port = 8000, .has_host_port = true},
                    b = {.container_port = 8001, .host_port = 8001, .has_host_port = true},
                    dns = {.container_port = 53, .protocol = (char *)"udp"},
                    local = {.container_port = 81,
                             .host_port = 9001,
                             .has_host_port = true,
                             .host_address = (char *)"127.0.0.1"};
    struct api_port *ports[] = {&b, &web, &a, &dns, &local};

    assert_text(ports_text(ports, ARRAY_SIZE(ports)),
                "53/udp, 0.0.0.0:9000->80/tcp, 127.0.0.1:9001->81/tcp, "
                "0.0.0.0:8000-8001->8000-8001/tcp");
    assert_text(ports_text(NULL, 0), "");
}

static char **row(const char *a, const char *b)
{
    char **values = NULL;

    strv_append(&values, a);
    strv_append(&values, b);
    return values;
}

static void lists_come_in_four_forms(void **state)
{
    static const struct listing_field fields[] = {{"ID", "CONTAINER ID"}, {"Names", "NAMES"}, {0}};
    static const struct {
        const char *format, *text;
    } cases[] = {
        {NULL, "CONTAINER ID   NAMES\n1              one\n2              two\n"},
        {"table {{.Names}}", "NAMES\none\ntwo\n"},
        {"table {{.Names}}\\t{{.ID}}", "NAMES     CONTAINER ID\none       1\ntwo       2\n"},
        {"{{.ID}}={{upper .Names}}", "1=ONE\n2=TWO\n"},
        {"json", "{\"ID\":\"1\",\"Names\":\"one\"}\n{\"ID\":\"2\",\"Names\":\"two\"}\n"},
    };
    _cleanup_listing_ struct listing *listing = listing_create(fields);

    listing_add(listing, row("1", "one"));
    listing_add(listing, row("2", "two"));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_buffer_ struct buffer out = BUFFER_INIT;
        assert_int_equal(listing_write(listing, cases[i].format, "{{.ID}}\t{{.Names}}", &out, NULL),
                         0);
        assert_string_equal(buffer_text(&out), cases[i].text);
    }
}

/* ---- template.h */

static const char document_text[] =
    "{\"Id\":\"c1\",\"Name\":\"/web\",\"State\":{\"Status\":\"running\",\"Pid\":42,"
    "\"Running\":true,\"Error\":\"\"},\"Args\":[\"a\",\"b\"],\"Config\":{\"Labels\":"
    "{\"x.y\":\"1\"},\"Cmd\":null},\"NetworkSettings\":{\"Ports\":{\"80/tcp\":"
    "[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"9000\"}]},\"Networks\":{\"bridge\":"
    "{\"IPAddress\":\"172.18.0.2\"}}}}";

static int render(const char *template, struct buffer *out, struct error *err)
{
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    yajl_val document;

    assert_int_equal(tree_parse(&arena, document_text, &document, NULL), 0);
    return template_render(template, document, &arena, out, err);
}

static void templates_do_what_people_ask_docker_for(void **state)
{
    static const struct {
        const char *template, *text;
    } cases[] = {
        {"plain", "plain"},
        {"{{.State.Status}}", "running"},
        {"{{ .State.Pid }} {{.ID}}", "42 c1"},
        {"{{json .State.Status}} {{json .Args}}", "\"running\" [\"a\",\"b\"]"},
        {"{{.Args}} {{len .Args}} {{index .Args 1}}", "[a b] 2 b"},
        {"{{index .Config.Labels \"x.y\"}} {{.Config.Labels.none}}", "1 <no value>"},
        {"[{{index .Config.Labels \"none\"}}] {{index .Config \"none\"}}", "[] <no value>"},
        {"{{range .Args}}<{{.}}>{{end}}", "<a><b>"},
        {"{{range $i, $a := .Args}}{{$i}}{{$a}}{{end}}", "0a1b"},
        {"{{range .Config.Cmd}}x{{else}}none{{end}}", "none"},
        {"{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.18.0.2"},
        {"{{range $p, $c := .NetworkSettings.Ports}}{{$p}}>{{(index $c 0).HostPort}}{{end}}",
         "80/tcp>9000"},
        {"{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "9000"},
        {"{{if .State.Running}}up{{else}}down{{end}}", "up"},
        {"{{if .State.Running}}a{{if .Name}}b{{end}} c{{end}}", "ab c"},
        {"{{if .State.Error}}bad{{else if eq .State.Pid 42}}good{{else}}?{{end}}", "good"},
        {"{{if .State.Error}}{{range .Nothing}}{{end}}{{else}}ok{{end}}", "ok"},
        {"{{with .State}}{{.Status}} {{$.Name}}{{end}}", "running /web"},
        {"{{.Args | json}} {{join .Args \",\"}} {{.Name | upper | printf \"%s!\"}}",
         "[\"a\",\"b\"] a,b /WEB!"},
        {"a {{- \" b \" -}} c", "a b c"},
        {"{{/* nothing */}}x{{$v := .Name}}{{$v}}", "x/web"},
        {"{{printf \"%q %d%%\" .Name .State.Pid}}", "\"/web\" 42%"},
        {"{{and .State.Running .Id}} {{or .State.Error \"none\"}} {{not .Args}}", "c1 none false"},
        {"{{\"}}\"}}", "}}"},
        {"{{printf \"%-6s|%5d|%05d|%.2s|%x|%.1f\" .Name .State.Pid .State.Pid .Name .State.Pid "
         ".State.Pid}}",
         "/web  |   42|00042|/w|2a|42.0"},
        {"{{lt .State.Pid 43}} {{ge .State.Pid 43}} {{gt .Id \"b\"}} {{le 1 1}}",
         "true false true true"},
        {"{{slice .Name 1}} {{slice .Name 1 3}} {{slice .Args 1}} {{pad .Id 1 2}}|",
         "web we [b]  c1  |"},
        {"{{with .Config}}{{.Label \"x.y\"}}{{.Label \"none\"}}{{end}}", "1"},
        {"{{json .}}", document_text},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_buffer_ struct buffer out = BUFFER_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (render(cases[i].template, &out, &err) < 0)
            fail_msg("%s: %s", cases[i].template, error_message(&err));
        assert_string_equal(buffer_text(&out), cases[i].text);
    }
}

static void broken_templates_are_refused(void **state)
{
    static const char *const cases[] = {
        "{{.Nothing}}",
        "{{",
        "{{.Id",
        "{{foo .Id}}",
        "{{range .Args}}",
        "{{end}}",
        "{{else}}",
        "{{.Id.Deep}}",
        "{{json}}",
        "{{json .Id .Id}}",
        "{{index .Args 7}}",
        "{{\"x}}",
        "{{(.Id}}",
        "{{$nothing}}",
        "{{range .State.Pid}}{{end}}",
        "{{if .Id}}{{else}}{{else}}{{end}}",
        "{{.Id | }}",
        "{{printf \"%y\" .Id}}",
        "{{printf \"%9999d\" .Id}}",
        "{{slice .Name 9}}",
        "{{lt .Id 1}}",
        "{{pad .Id -1 0}}",
        "{{.Label \"x}}",
        "{{/* }}",
        "{{((((((((((((((((((((((((((((((((((((((((.Id))))))))))))))))))))))))))))))))))))))))))))}"
        "}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_buffer_ struct buffer out = BUFFER_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(render(cases[i], &out, &err), -EINVAL);
        assert_true(text_starts_with(error_message(&err), "template parsing error: "));
    }
}

/* ---- options.h */

struct sample {
    bool tty, detach;
    const char *name;
    char **env;
    struct option_number tail;
};

static const struct option sample_options[] = {
    {.name = "tty", .short_name = 't', .kind = OPTION_FLAG, .offset = offsetof(struct sample, tty)},
    {.name = "detach",
     .short_name = 'd',
     .kind = OPTION_FLAG,
     .offset = offsetof(struct sample, detach)},
    {.name = "name", .kind = OPTION_TEXT, .offset = offsetof(struct sample, name)},
    {.name = "env", .short_name = 'e', .kind = OPTION_LIST, .offset = offsetof(struct sample, env)},
    {.name = "tail",
     .short_name = 'n',
     .kind = OPTION_NUMBER,
     .offset = offsetof(struct sample, tail),
     .minimum = 0,
     .maximum = 10},
    {0},
};
static const struct option_group sample_groups[] = {{.options = sample_options}, {0}};

/* words separated by blanks. The operands come back joined. */
static char *parse(const char *words, bool stop, struct sample *sample)
{
    _cleanup_strv_ char **arguments = strv_split(words, ' ');
    char *none[] = {NULL};
    _cleanup_free_ char **operands = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    memset(sample, 0, sizeof(*sample));
    int r =
        options_parse(sample_groups, arguments ? arguments : none, stop, sample, &operands, &err);
    sample->name = sample->name ? "set" : NULL; /* it points into arguments */
    if (r < 0)
        return xstrdup(r == -ECANCELED ? "help" : error_message(&err));
    return strv_join(operands, " ");
}

static void options_come_in_all_spellings(void **state)
{
    struct sample sample;

    assert_text(parse("-td -e A=1 --env B=2 --env=C=3 -eD -e=E --name x image", true, &sample),
                "image");
    assert_true(sample.tty && sample.detach && sample.name);
    _cleanup_free_ char *env = strv_join(sample.env, " ");
    assert_string_equal(env, "A=1 B=2 C=3 D E");
    options_finish(sample_groups, &sample);

    assert_text(parse("image -t --name", true, &sample), "image -t --name");
    assert_false(sample.tty);
    assert_text(parse("image -t", false, &sample), "image");
    assert_true(sample.tty);
    assert_text(parse("-t -- -d -", false, &sample), "-d -");
    assert_false(sample.detach);
    assert_text(parse("--tty=false -d=1", false, &sample), "");
    assert_true(!sample.tty && sample.detach);
    assert_text(parse("-tn5", false, &sample), "");
    assert_true(sample.tail.set && sample.tail.value == 5);
    assert_text(parse("", false, &sample), "");
    assert_text(parse("--help", false, &sample), "help");
    assert_text(parse("-h", false, &sample), "help");
}

static void wrong_options_are_named(void **state)
{
    struct sample sample;

    assert_text(parse("--nam x", false, &sample), "unknown flag: --nam (did you mean --name?)");
    assert_text(parse("--privileged", false, &sample), "unknown flag: --privileged");
    assert_text(parse("-tx", false, &sample), "unknown shorthand flag: 'x' in -tx");
    assert_text(parse("--name", false, &sample), "flag needs an argument: --name");
    assert_text(parse("-te", false, &sample), "flag needs an argument: 'e' in -te");
    assert_text(parse("--tty=maybe", false, &sample),
                "invalid argument \"maybe\" for \"-t, --tty\" flag: must be true or false");
    assert_text(parse("-n 11", false, &sample),
                "invalid argument \"11\" for \"-n, --tail\" flag: must be between 0 and 10");
    assert_text(parse("-n x", false, &sample),
                "invalid argument \"x\" for \"-n, --tail\" flag: must be a whole number");
}

static void near_words_are_suggested(void **state)
{
    assert_int_equal(word_distance("images", "image"), 1);
    assert_int_equal(word_distance("isnpect", "inspect"), 1);
    assert_int_equal(word_distance("", "abc"), 3);
    assert_string_equal(command_suggest(NULL, "comit"), "commit");
    assert_string_equal(command_suggest("container", "insepct"), "inspect");
    assert_null(command_suggest(NULL, "frobnicate"));
}

/* A table with a mistake would show only when somebody types the option. */
static void tables_are_sound(void **state)
{
    for (const struct spelling *spelling = spellings; spelling->command; spelling++) {
        const struct command *command = spelling->command;
        assert_non_null(command->run);
        assert_non_null(command->summary);
        for (const struct option_group *g = command->options; g && g->options; g++) {
            for (const struct option *option = g->options; option->name; option++) {
                assert_ptr_equal(
                    options_find(command->options, option->name, strlen(option->name), NULL),
                    option);
                if (option->short_name)
                    assert_ptr_equal(options_find_short(command->options, option->short_name, NULL),
                                     option);
                assert_true(g->offset + option->offset < command->values_size);
                assert_int_equal(option->kind == OPTION_FLAG, option->argument == NULL);
                assert_int_equal(option->kind == OPTION_PARSED, option->parse != NULL);
                assert_false(text_ends_with(option->help, "."));
            }
        }
    }
}

/* ---- spec.h */

static char *port_of(const char *typed)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = xnew(struct api_container_spec);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct buffer out = BUFFER_INIT;

    if (spec_add_port(spec, typed, &err) < 0)
        return xstrdup(error_message(&err));
    for (size_t i = 0; i < spec->ports_count; i++) {
        const struct api_port *port = spec->ports[i];
        buffer_printf(&out, "%s%s,%u,%u,%s", i ? " " : "",
                      port->host_address ? port->host_address : "", port->host_port,
                      port->container_port, port->protocol);
    }
    return buffer_steal(&out);
}

static void ports_are_read_in_docker_forms(void **state)
{
    assert_text(port_of("80"), ",0,80,tcp");
    assert_text(port_of("9000:80"), ",9000,80,tcp");
    assert_text(port_of("9000:80/udp"), ",9000,80,udp");
    assert_text(port_of("127.0.0.1:9000:80"), "127.0.0.1,9000,80,tcp");
    assert_text(port_of("127.0.0.1::80"), "127.0.0.1,0,80,tcp");
    assert_text(port_of("9000-9001:80-81"), ",9000,80,tcp ,9001,81,tcp");
    assert_text(port_of("80-81"), ",0,80,tcp ,0,81,tcp");
    assert_text(port_of("80:x"), "invalid containerPort: x");
    assert_text(port_of("80:"), "invalid containerPort: ");
    assert_text(port_of("80:0"), "invalid containerPort: 0");
    assert_text(port_of("99999:80"), "invalid hostPort: 99999");
    assert_text(port_of("80/sctp"), ",0,80,sctp");
    assert_text(port_of("80/dccp"), "invalid proto: dccp");
    assert_text(port_of("9000-9002:80-81"),
                "invalid ranges specified for container and host Ports: 80-81 and 9000-9002");
    assert_text(port_of("9001-9000:80-81"), "invalid hostPort: 9001-9000");
}

static char *bind_of(const char *typed)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = xnew(struct api_container_spec);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (spec_add_bind(spec, typed, &err) < 0)
        return xstrdup(error_message(&err));
    const struct api_bind *bind = spec->binds[0];
    _cleanup_free_ char *options = strv_join(bind->options, ",");
    return xasprintf("%s>%s %s %s", bind->source, bind->target, bind->read_only ? "ro" : "rw",
                     options);
}

static void binds_are_read_in_docker_forms(void **state)
{
    _cleanup_free_ char *here = getcwd(NULL, 0);
    _cleanup_free_ char *missing = xasprintf("%s/./nothing-here>/x rw ", here);

    assert_text(bind_of("/a:/b"), "/a>/b rw ");
    assert_text(bind_of("/a:/b:ro,rslave"), "/a>/b ro rslave");
    assert_text(bind_of("./nothing-here:/x"), missing);
    assert_true(text_starts_with(missing, "/"));
    assert_text(bind_of("/a:b"),
                "invalid volume specification: '/a:b': mount path must be absolute");
    assert_text(bind_of("/a:/b:ro:x"), "invalid volume specification: '/a:/b:ro:x'");
    assert_text(bind_of(":/b"), "invalid volume specification: ':/b'");
    assert_text(bind_of("data:/b:nocopy"), "data>/b rw nocopy");
}

static char *mount_of(const char *typed)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = xnew(struct api_container_spec);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (spec_add_mount(spec, typed, &err) < 0)
        return xstrdup(error_message(&err));
    struct buffer text = BUFFER_INIT;
    api_mount_write(spec->mounts[0], &text);
    return buffer_steal(&text);
}

static void mounts_are_read_in_docker_forms(void **state)
{
    assert_text(mount_of("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave"),
                "{\"type\":\"bind\",\"source\":\"/a\",\"target\":\"/b\",\"readOnly\":true,"
                "\"bindOptions\":{\"propagation\":\"rslave\"}}");
    assert_text(mount_of("source=data,target=/b,volume-label=a=b,volume-nocopy"),
                "{\"type\":\"volume\",\"source\":\"data\",\"target\":\"/b\",\"volumeOptions\":"
                "{\"noCopy\":true,\"labels\":{\"a\":\"b\"}}}");
    assert_text(mount_of("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770"),
                "{\"type\":\"tmpfs\",\"target\":\"/t\",\"tmpfsOptions\":"
                "{\"sizeBytes\":1048576,\"mode\":1016}}");
    assert_text(mount_of("type=bind,\"source=/a,b\",target=/b"),
                "{\"type\":\"bind\",\"source\":\"/a,b\",\"target\":\"/b\"}");
    assert_text(mount_of("type=bind,source=/a"), "target is required");
    assert_text(mount_of("type=fly,target=/a"), "mounts of type 'fly' are not supported");
    assert_text(mount_of("type=bind,target=/a,fly=1"), "unexpected key 'fly' in 'fly=1'");
    assert_text(mount_of("type=tmpfs,target=/a,tmpfs-mode=9"), "invalid value for tmpfs-mode: 9");
    assert_text(mount_of("\"type=bind"), "a quote is not closed");
}

static char *policy_of(const char *typed)
{
    _cleanup_api_restart_policy_ struct api_restart_policy *policy = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (restart_policy_parse(typed, &policy, &err) < 0)
        return xstrdup(error_message(&err));
    return xasprintf("%s %d", policy->name, policy->maximum_retry_count);
}

static void restart_policies_are_read(void **state)
{
    assert_text(policy_of("always"), "always 0");
    assert_text(policy_of("on-failure:3"), "on-failure 3");
    assert_text(policy_of("fly"), "invalid restart policy: unknown policy 'fly'");
    assert_text(policy_of("always:3"),
                "invalid restart policy: maximum retry count can only be used "
                "with 'on-failure'");
    assert_text(policy_of("on-failure:x"),
                "invalid restart policy format: maximum retry count must "
                "be an integer");
}

static void cpus_are_exact(void **state)
{
    uint64_t nanoseconds;

    assert_int_equal(spec_parse_cpus("1.5", &nanoseconds, NULL), 0);
    assert_int_equal(nanoseconds, 1500000000);
    assert_int_equal(spec_parse_cpus(".000000001", &nanoseconds, NULL), 0);
    assert_int_equal(nanoseconds, 1);
    assert_int_equal(spec_parse_cpus("0.1234567891", &nanoseconds, NULL), -ERANGE);
    assert_int_equal(spec_parse_cpus("x", &nanoseconds, NULL), -EINVAL);
    assert_int_equal(spec_parse_cpus(".", &nanoseconds, NULL), -EINVAL);
    assert_int_equal(spec_parse_cpus("-1", &nanoseconds, NULL), -EINVAL);
}

static void environment_comes_from_us_or_from_a_file(void **state)
{
    static const char text[] = "# comment\n\nA=1 2\n  CLOCHE_TEST_ENV\nNOT_SET_ANYWHERE\r\nB=\r\n";
    char path[] = "/tmp/cloche-test-cli.XXXXXX";
    _cleanup_strv_ char **env = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    setenv("CLOCHE_TEST_ENV", "ours", 1);
    assert_int_equal(spec_add_env_file(&env, path, &err), 0);
    _cleanup_free_ char *joined = strv_join(env, "|");
    assert_string_equal(joined, "A=1 2|CLOCHE_TEST_ENV=ours|B=");
    assert_int_equal(write(fd, "A B=1\n", 6), 6);
    assert_int_equal(spec_add_env_file(&env, path, &err), -EINVAL);
    assert_non_null(strstr(error_message(&err), ":7: "));
    close(fd);
    unlink(path);
    assert_int_equal(spec_add_env_file(&env, path, &err), -ENOENT);
}

/* ---- terminal.h, stream.h, log_lines.h */

static char *typed_through(struct detach_keys *keys, const char *typed, bool *ret_detached)
{
    unsigned char out[64];
    size_t length;

    *ret_detached =
        detach_keys_filter(keys, (const unsigned char *)typed, strlen(typed), out, &length);
    return xstrndup((char *)out, length);
}

static void detach_keys_are_held_back_until_it_is_clear(void **state)
{
    struct detach_keys keys;
    bool detached;

    assert_int_equal(detach_keys_parse(DETACH_KEYS_DEFAULT, &keys, NULL), 0);
    assert_text(typed_through(&keys, "a\x10", &detached), "a");
    assert_text(typed_through(&keys, "b", &detached), "\x10"
                                                      "b");
    assert_text(typed_through(&keys, "\x10\x10", &detached), "\x10");
    assert_false(detached);
    assert_text(typed_through(&keys, "\x11", &detached), "");
    assert_true(detached);
    assert_int_equal(detach_keys_parse("a,ctrl-[", &keys, NULL), 0);
    assert_text(typed_through(&keys, "xa\x1by", &detached), "x");
    assert_true(detached);
    assert_int_equal(detach_keys_parse("", &keys, NULL), 0);
    assert_text(typed_through(&keys, "\x10\x11", &detached), "\x10\x11");
    assert_false(detached);
    assert_int_equal(detach_keys_parse("ctrl-1", &keys, NULL), -EINVAL);
    assert_int_equal(detach_keys_parse("ctrl-A", &keys, NULL), -EINVAL);
    assert_int_equal(detach_keys_parse("xx", &keys, NULL), -EINVAL);
}

static void frames_are_sorted_whatever_their_pieces(void **state)
{
    static const unsigned char data[] = "\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\3err\1\0\0\0\0\0\0\0"
                                        "\1\0\0\0\0\0\0\1!";

    for (size_t piece = 1; piece < sizeof(data); piece++) {
        _cleanup_buffer_ struct buffer out = BUFFER_INIT, err_out = BUFFER_INIT;
        struct frames frames = {.left = 0};
        for (size_t at = 0; at < sizeof(data) - 1; at += piece) {
            size_t left = sizeof(data) - 1 - at;
            assert_int_equal(
                frames_parse(&frames, data + at, left < piece ? left : piece, &out, &err_out), 0);
        }
        assert_string_equal(buffer_text(&out), "out!");
        assert_string_equal(buffer_text(&err_out), "err");
    }
    struct frames frames = {.left = 0};
    assert_int_equal(
        frames_parse(&frames, (const unsigned char *)"\7\0\0\0\0\0\0\1x", 9, NULL, NULL), -EPROTO);
}

static const char log_text[] = "2026-11-20T10:00:00.000000001Z stdout F one\n"
                               "2026-11-20T10:00:01.000000000Z stderr F bad\n"
                               "2026-11-20T10:00:02.000000000Z stdout P tw\n"
                               "2026-11-20T10:00:02.000000001Z stderr F worse\n"
                               "2026-11-20T10:00:03.000000000Z stdout F o\n"
                               "2026-11-20T10:00:04.000000000Z stdout F \n"
                               "damaged\n";

static void read_log(struct log_reader *reader, size_t piece, const char *out_text,
                     const char *err_text)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT, err_out = BUFFER_INIT;

    for (size_t at = 0; at < strlen(log_text); at += piece) {
        size_t left = strlen(log_text) - at;
        log_reader_feed(reader, log_text + at, left < piece ? left : piece, &out, &err_out);
    }
    log_reader_finish(reader);
    assert_string_equal(buffer_text(&out), out_text);
    assert_string_equal(buffer_text(&err_out), err_text);
}

static void log_entries_become_what_was_written(void **state)
{
    for (size_t piece = 1; piece < sizeof(log_text); piece += 3) {
        struct log_reader reader = {.timestamps = false};
        read_log(&reader, piece, "one\ntwo\n\ndamaged\n", "bad\nworse\n");
    }
    struct log_reader stamped = {.timestamps = true};
    read_log(&stamped, 7,
             "2026-11-20T10:00:00.000000001Z one\n2026-11-20T10:00:02.000000000Z two\n"
             "2026-11-20T10:00:04.000000000Z \ndamaged\n",
             "2026-11-20T10:00:01.000000000Z bad\n2026-11-20T10:00:02.000000001Z worse\n");
}

static void log_entries_outside_the_time_are_left_out(void **state)
{
    struct log_reader reader = {.since = "2026-11-20T10:00:01.000000000Z",
                                .until = "2026-11-20T10:00:02.500000000Z"};

    read_log(&reader, 64, "tw", "bad\nworse\n");
    assert_true(reader.ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_worded_as_docker_words_them),
        cmocka_unit_test(age_is_told_from_a_time),
        cmocka_unit_test(points_in_time_come_in_three_forms),
        cmocka_unit_test(texts_are_shortened_by_characters),
        cmocka_unit_test(names_are_split_behind_the_last_slash),
        cmocka_unit_test(columns_are_as_wide_as_docker_makes_them),
        cmocka_unit_test(ports_are_shown_as_docker_shows_them),
        cmocka_unit_test(lists_come_in_four_forms),
        cmocka_unit_test(templates_do_what_people_ask_docker_for),
        cmocka_unit_test(broken_templates_are_refused),
        cmocka_unit_test(options_come_in_all_spellings),
        cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(near_words_are_suggested),
        cmocka_unit_test(tables_are_sound),
        cmocka_unit_test(ports_are_read_in_docker_forms),
        cmocka_unit_test(binds_are_read_in_docker_forms),
        cmocka_unit_test(mounts_are_read_in_docker_forms),
        cmocka_unit_test(restart_policies_are_read),
        cmocka_unit_test(cpus_are_exact),
        cmocka_unit_test(environment_comes_from_us_or_from_a_file),
        cmocka_unit_test(detach_keys_are_held_back_until_it_is_clear),
        cmocka_unit_test(frames_are_sorted_whatever_their_pieces),
        cmocka_unit_test(log_entries_become_what_was_written),
        cmocka_unit_test(log_entries_outside_the_time_are_left_out),
    };

    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
