/*
 * usb policy: ls, add, rm.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "listing.h"
#include "usb.h"

struct policy_options {
    const char *format, *vendor, *product, *serial, *port;
    char **classes;
    bool storage_only, not_storage_only, last;
};

static const struct option policy_table[] = {
    {
        .name = "class",
        .kind = OPTION_LIST,
        .offset = offsetof(struct policy_options, classes),
        .argument = "list",
        .help = "add: it has no interface but of these: CC, CC:SS or CC:SS:PP in hex",
    },
    {
        .name = "format",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct policy_options, format),
        .argument = "string",
        .help = "ls: \"table\", \"table TEMPLATE\", \"json\", or a template for each line",
    },
    {
        .name = "last",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct policy_options, last),
        .help = "add: behind the rules that were added before, not in front of them",
    },
    {
        .name = "not-storage-only",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct policy_options, not_storage_only),
        .help = "add: it is something else than a stick, or more",
    },
    {
        .name = "port",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct policy_options, port),
        .argument = "pattern",
        .help = "add: where it is plugged in, as in \"1-4.*\"; \"usbip:*\" for remote ones",
        .complete = COMPLETE_USB_PORTS,
    },
    {
        .name = "product",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct policy_options, product),
        .argument = "hex",
        .help = "add: its product, in four digits",
        .complete = COMPLETE_USB_PRODUCTS,
    },
    {
        .name = "serial",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct policy_options, serial),
        .argument = "pattern",
        .help = "add: its serial number",
        .complete = COMPLETE_USB_SERIALS,
    },
    {
        .name = "storage-only",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct policy_options, storage_only),
        .help = "add: it is a stick and nothing else",
    },
    {
        .name = "vendor",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct policy_options, vendor),
        .argument = "hex",
        .help = "add: its vendor, in four digits",
        .complete = COMPLETE_USB_VENDORS,
    },
    {.name = NULL},
};

static const struct option_group policy_groups[] = {{.options = policy_table}, {.options = NULL}};

/* ---- ls */

static const struct listing_field fields[] = {
    {"ID", "ID"}, {"Action", "ACTION"}, {"Devices", "DEVICES"}, {"From", "FROM"}, {NULL, NULL},
};

static void add_word(struct buffer *text, const char *name, const char *value)
{
    if (value)
        buffer_printf(text, "%s%s=%s", text->length ? " " : "", name, value);
}

static char *devices_of(const struct api_usb_rule *rule)
{
    _cleanup_free_ char *classes = rule->classes ? strv_join(rule->classes, ",") : NULL;
    struct buffer text = BUFFER_INIT;

    add_word(&text, "vendor", rule->vendor);
    add_word(&text, "product", rule->product);
    add_word(&text, "serial", rule->serial);
    add_word(&text, "port", rule->port);
    add_word(&text, "classes", classes);
    if (rule->has_storage_only)
        add_word(&text, "storage-only", rule->storage_only ? "true" : "false");
    if (!text.length)
        buffer_append_text(&text, "all others");
    return buffer_steal(&text);
}

static char **row_of(const struct api_usb_numbered_rule *numbered)
{
    char **row = xnew_array(char *, ARRAY_SIZE(fields));

    row[0] = numbered->has_id ? xasprintf("%lld", (long long)numbered->id) : xstrdup("-");
    row[1] = xstrdup(numbered->rule->action);
    row[2] = devices_of(numbered->rule);
    row[3] = xstrdup(numbered->from);
    return row;
}

static int list_rules(struct cli *cli, const struct policy_options *options)
{
    _cleanup_api_usb_policy_ struct api_usb_policy *policy = NULL;
    _cleanup_listing_ struct listing *listing = listing_create(fields);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_empty params = {0};

    int r = cli_call(cli, "usb.policyList", &params, &policy, &err);
    for (size_t i = 0; r >= 0 && i < policy->rules_count; i++)
        listing_add(listing, row_of(policy->rules[i]));
    if (r >= 0)
        r = listing_write(listing, options->format, "{{.ID}}\t{{.Action}}\t{{.Devices}}\t{{.From}}",
                          &text, &err);
    return r < 0 ? cli_fail(&err) : cli_print(&text);
}

/* ---- add, rm */

static int add_rule(struct cli *cli, const struct policy_options *options, char *action)
{
    _cleanup_api_usb_policy_ref_ struct api_usb_policy_ref *made = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_usb_rule rule = {
        .action = action,
        .vendor = (char *)(uintptr_t)options->vendor,
        .product = (char *)(uintptr_t)options->product,
        .serial = (char *)(uintptr_t)options->serial,
        .port = (char *)(uintptr_t)options->port,
        .classes = options->classes,
        .classes_count = strv_length(options->classes),
        .storage_only = options->storage_only,
        .has_storage_only = options->storage_only || options->not_storage_only,
    };
    const struct api_usb_policy_add params = {
        .rule = &rule, .last = options->last, .has_last = true};

    if (options->storage_only && options->not_storage_only)
        return cli_fail_usage(cli, EXIT_FAILED, "--storage-only and --not-storage-only");
    if (cli_call(cli, "usb.policyAdd", &params, &made, &err) < 0)
        return cli_fail(&err);
    printf("%lld\n", (long long)made->id);
    return EXIT_DONE;
}

static int remove_rule(struct cli *cli, const char *id, const void *values, struct error *err)
{
    struct api_usb_policy_ref params = {0};

    if (text_to_i64(id, 1, INT64_MAX, &params.id) < 0)
        return error_set(err, -EINVAL, "'%s' is not the number of a rule", id);
    return cli_call(cli, "usb.policyRemove", &params, NULL, err);
}

static bool is_action(const char *word)
{
    return text_equal(word, "allow") || text_equal(word, "kernel") || text_equal(word, "deny");
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const char *verb = operands[0];

    if (text_equal(verb, "ls") && !operands[1])
        return list_rules(cli, values);
    if (text_equal(verb, "add") && operands[1] && !operands[2] && is_action(operands[1]))
        return add_rule(cli, values, operands[1]);
    if (text_equal(verb, "rm") && operands[1])
        return cli_for_each(cli, operands + 1, values, remove_rule, true);
    return cli_fail_usage(cli, EXIT_FAILED,
                          "'%s' wants: ls, add allow|kernel|deny, or rm ID [ID...]", "usb policy");
}

const struct command usb_policy_command = {
    .name = "policy",
    .usage = "[OPTIONS] ls|add ACTION|rm ID [ID...]",
    .summary = "Say who may have which USB devices",
    .details = "ls      list the rules; the first that fits a device counts\n"
               "add     add a rule: allow (cloche may serve it when it is a stick), kernel (the\n"
               "        kernel's drivers may have it), deny (nobody gets it)\n"
               "rm      remove rules that were added",
    .options = policy_groups,
    .values_size = sizeof(struct policy_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_USB_POLICY,
    .run = run,
};
