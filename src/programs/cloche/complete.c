/*
 * cloche __complete WORD...: what the shells ask. The words are those of the command line behind
 * "cloche", the last one as far as it was typed. Candidates come one a line, with a tab and a
 * description behind; the line ":files" means names of files.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "rpc_complete.h"

struct completion {
    struct cli *cli;
    const char *typed; /* the last word */
    struct buffer out;
};

static void offer(struct completion *completion, const char *word, const char *description)
{
    if (!text_starts_with(word, completion->typed))
        return;
    buffer_append_text(&completion->out, word);
    if (description)
        buffer_printf(&completion->out, "\t%s", description);
    buffer_append_char(&completion->out, '\n');
}

static void offer_volumes(struct completion *completion)
{
    _cleanup_api_volumes_ struct api_volumes *list = NULL;
    const struct api_volume_list params = {0};

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "volume.list", &params, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list->volumes_count; i++)
        offer(completion, list->volumes[i]->name, NULL);
}

static void offer_sticks(struct completion *completion)
{
    _cleanup_api_usb_sticks_ struct api_usb_sticks *list = NULL;
    const struct api_usb_list params = {0};

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "usb.list", &params, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list->sticks_count; i++)
        offer(completion, list->sticks[i]->id, list->sticks[i]->model);
}

/* What a rule, or a container, names a device by. */
static void offer_of_device(struct completion *completion, enum complete which,
                            const struct api_usb_stick *device)
{
    _cleanup_free_ char *both = device->vendor && device->product
                                    ? xasprintf("%s:%s", device->vendor, device->product)
                                    : NULL;
    const char *word = which == COMPLETE_USB_DEVICES    ? both
                       : which == COMPLETE_USB_VENDORS  ? device->vendor
                       : which == COMPLETE_USB_PRODUCTS ? device->product
                       : which == COMPLETE_USB_SERIALS  ? device->serial
                                                        : device->id;

    if (!text_empty(word))
        offer(completion, word, device->model);
}

static void offer_devices(struct completion *completion, enum complete which)
{
    _cleanup_api_usb_sticks_ struct api_usb_sticks *list = NULL;
    const struct api_usb_list params = {.all = true, .has_all = true};

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "usb.list", &params, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list->sticks_count; i++)
        offer_of_device(completion, which, list->sticks[i]);
}

static void offer_rules(struct completion *completion)
{
    _cleanup_api_usb_policy_ struct api_usb_policy *policy = NULL;
    const struct api_empty params = {0};

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "usb.policyList", &params, &policy, NULL) < 0)
        return;
    for (size_t i = 0; i < policy->rules_count; i++) {
        const struct api_usb_numbered_rule *rule = policy->rules[i];
        _cleanup_free_ char *id = rule->has_id ? xasprintf("%lld", (long long)rule->id) : NULL;
        if (id)
            offer(completion, id, rule->rule->action);
    }
}

/* usb policy ls|add ACTION|rm ID [ID...] */
static void offer_policy(struct completion *completion, const char *verb, int operands)
{
    if (operands == 0) {
        offer(completion, "ls", "List the rules");
        offer(completion, "add", "Add a rule");
        offer(completion, "rm", "Remove rules that were added");
    } else if (text_equal(verb, "add") && operands == 1) {
        offer(completion, "allow", "Cloche may serve it when it is a stick");
        offer(completion, "kernel", "The kernel's drivers may have it");
        offer(completion, "deny", "Nobody gets it");
    } else if (text_equal(verb, "rm")) {
        offer_rules(completion);
    }
}

/* Never starts a daemon: a key must not do that. */
static void offer_containers(struct completion *completion, enum complete which)
{
    _cleanup_api_container_summaries_ struct api_container_summaries *list = NULL;
    const struct api_container_list params = {
        .all = which != COMPLETE_CONTAINERS_RUNNING,
        .has_all = true,
    };

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "container.list", &params, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list->containers_count; i++) {
        const struct api_container_summary *container = list->containers[i];
        if (which == COMPLETE_CONTAINERS_STOPPED && text_equal(container->state, "running"))
            continue;
        for (size_t j = 0; j < container->names_count; j++)
            offer(completion, container->names[j], container->status);
    }
}

static void offer_images(struct completion *completion)
{
    _cleanup_api_image_summaries_ struct api_image_summaries *list = NULL;
    const struct api_image_list params = {0};

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "image.list", &params, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list->images_count; i++) {
        for (size_t j = 0; j < list->images[i]->names_count; j++)
            offer(completion, list->images[i]->names[j], NULL);
    }
}

static void offer_networks(struct completion *completion)
{
    _cleanup_api_networks_ struct api_networks *list = NULL;
    const struct api_network_list params = {0};

    if (!cli_connect_running(completion->cli) ||
        cli_call(completion->cli, "network.list", &params, &list, NULL) < 0)
        return;
    for (size_t i = 0; i < list->networks_count; i++)
        offer(completion, list->networks[i]->name, list->networks[i]->driver);
}

static void offer_commands(struct completion *completion, const char *group)
{
    for (const struct spelling *spelling = spellings; spelling->command; spelling++) {
        if (text_equal(spelling->group, group) && !spelling->command->hidden && !spelling->synonym)
            offer(completion, spelling->name, spelling->command->summary);
    }
    for (const struct command_group *known = command_groups; !group && known->name; known++)
        offer(completion, known->name, known->summary);
}

static void offer_signals(struct completion *completion)
{
    static const int signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGKILL, SIGUSR1,
                                  SIGUSR2, SIGTERM, SIGCONT, SIGSTOP, SIGWINCH};

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        _cleanup_free_ char *name = xasprintf("SIG%s", sigabbrev_np(signals[i]));
        offer(completion, name, NULL);
    }
}

static void offer_values(struct completion *completion, enum complete what,
                         const char *const *choices)
{
    switch (what) {
    case COMPLETE_NOTHING:
        break;
    case COMPLETE_FILES:
        buffer_append_text(&completion->out, ":files\n");
        break;
    case COMPLETE_CONTAINERS:
    case COMPLETE_CONTAINERS_RUNNING:
    case COMPLETE_CONTAINERS_STOPPED:
        offer_containers(completion, what);
        break;
    case COMPLETE_VOLUMES:
        offer_volumes(completion);
        break;
    case COMPLETE_STICKS:
        offer_sticks(completion);
        break;
    case COMPLETE_USB_DEVICES:
    case COMPLETE_USB_VENDORS:
    case COMPLETE_USB_PRODUCTS:
    case COMPLETE_USB_SERIALS:
    case COMPLETE_USB_PORTS:
        offer_devices(completion, what);
        break;
    case COMPLETE_IMAGES:
        offer_images(completion);
        break;
    case COMPLETE_NETWORKS:
        offer_networks(completion);
        break;
    case COMPLETE_OBJECTS:
        offer_containers(completion, COMPLETE_CONTAINERS);
        offer_images(completion);
        break;
    case COMPLETE_COMMANDS:
        offer_commands(completion, NULL);
        break;
    case COMPLETE_SIGNALS:
        offer_signals(completion);
        break;
    case COMPLETE_METHODS:
    case COMPLETE_METHOD_CALL:
    case COMPLETE_SUBSCRIBE:
    case COMPLETE_USB_POLICY:
        break; /* depends on the words before: see complete_command_line() */
    case COMPLETE_CHOICES:
    case COMPLETE_EXAMPLES:
        for (; choices && *choices; choices++)
            offer(completion, *choices, NULL);
        break;
    }
}

static void offer_options(struct completion *completion, const struct option_group *groups)
{
    for (; groups && groups->options; groups++) {
        for (const struct option *option = groups->options; option->name; option++) {
            if (option->hidden)
                continue;
            _cleanup_free_ char *word = xasprintf("--%s", option->name);
            offer(completion, word, option->help);
        }
    }
    offer(completion, "--help", "Show how it is used");
}

/* The option that word is, when its value is the next word. */
static const struct option *awaits_value(const struct option_group *groups, const char *word)
{
    const struct option *option = NULL;

    if (text_starts_with(word, "--") && !strchr(word, '='))
        option = options_find(groups, word + 2, strlen(word + 2), NULL);
    else if (word[0] == '-' && word[1] && word[1] != '-')
        option = options_find_short(groups, word[strlen(word) - 1], NULL);
    return option && option->kind != OPTION_FLAG ? option : NULL;
}

/* Each with its description behind a tab already. */
static void offer_list(struct completion *completion, char *const *list)
{
    for (; list && *list; list++) {
        _cleanup_free_ char *word = xstrndup(*list, strcspn(*list, "\t"));
        offer(completion, word, (*list)[strlen(word)] ? *list + strlen(word) + 1 : NULL);
    }
}

/* "container=" is followed by what a container is called. */
static void offer_named(struct completion *completion)
{
    static const char prefix[] = "container=";

    if (!text_starts_with(completion->typed, prefix))
        return;
    struct completion names = {
        .cli = completion->cli, .typed = completion->typed + strlen(prefix), .out = BUFFER_INIT};
    offer_containers(&names, COMPLETE_CONTAINERS);
    _cleanup_strv_ char **lines = strv_split(buffer_text(&names.out), '\n');
    for (char **line = lines; line && *line; line++) {
        if (**line)
            buffer_printf(&completion->out, "%s%s\n", prefix, *line);
    }
    buffer_finish(&names.out);
}

/* A method, then its parameters. */
static void offer_call(struct completion *completion, enum complete what, const char *socket,
                       const char *first)
{
    _cleanup_strv_ char **list = NULL;

    if (what == COMPLETE_SUBSCRIBE)
        first = "events.subscribe";
    if (first && what != COMPLETE_METHODS)
        list = rpc_complete_params(completion->cli, socket, first, completion->typed);
    else if (!first)
        list = rpc_complete_methods(completion->cli, socket);
    offer_list(completion, list);
    if (first)
        offer_named(completion);
}

/* words: behind the command's own, up to and without the last one. */
static void complete_command_line(struct completion *completion, const struct command *command,
                                  char *const *words)
{
    const struct option *value_of = NULL;
    const char *first = NULL, *socket = NULL;
    int operands = 0;

    for (; words[1]; words++) {
        if (value_of) {
            socket = text_equal(value_of->name, "socket") ? *words : socket;
            value_of = NULL;
        } else if (words[0][0] == '-' && !(command->stop_at_operand && operands))
            value_of = awaits_value(command->options, *words);
        else if (operands++ == 0)
            first = *words;
    }
    bool many = command->maximum_operands < 0 || operands < command->maximum_operands;
    if (value_of)
        offer_values(completion, value_of->complete, value_of->choices);
    else if (command->stop_at_operand && operands)
        buffer_append_text(&completion->out, ":files\n");
    else if (completion->typed[0] == '-')
        offer_options(completion, command->options);
    else if (many && command->complete >= COMPLETE_METHODS &&
             command->complete <= COMPLETE_SUBSCRIBE)
        offer_call(completion, command->complete, socket, first);
    else if (command->complete == COMPLETE_USB_POLICY)
        offer_policy(completion, first, operands);
    else if (many)
        offer_values(completion, command->complete, NULL);
}

/* The engine that is asked for names is the one the command line will speak to. */
static void choose_instance(struct cli *cli, const char *name)
{
    struct instance instance = {0};

    if (instance_init(&instance, name, NULL) < 0)
        return;
    instance_finish(&cli->instance);
    cli->instance = instance;
}

/* Global options, then the words of the command. */
static void complete_words(struct completion *completion, char *const *words)
{
    const struct option *value_of = NULL;

    while (words[1] && words[0][0] == '-') {
        value_of = awaits_value(global_options, words[0]);
        if (value_of && words[2])
            choose_instance(completion->cli, words[1]);
        else if (text_starts_with(words[0], "--instance="))
            choose_instance(completion->cli, words[0] + strlen("--instance="));
        words += value_of && words[1] ? 2 : 1;
        if (!words[0])
            return; /* the value of a global option is being typed */
    }
    const struct command_group *group = words[1] ? command_group_find(words[0]) : NULL;
    words += group ? 1 : 0;
    if (!words[1]) {
        if (completion->typed[0] == '-' && !group)
            offer_options(completion, global_options);
        else
            offer_commands(completion, group ? group->name : NULL);
        return;
    }
    const struct spelling *spelling = command_find(group ? group->name : NULL, words[0]);
    if (spelling)
        complete_command_line(completion, spelling->command, words + 1);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    struct completion completion = {
        .cli = cli,
        .typed = operands[strv_length(operands) - 1],
        .out = BUFFER_INIT,
    };

    complete_words(&completion, operands);
    int code = completion.out.length ? cli_print(&completion.out) : EXIT_DONE;
    buffer_finish(&completion.out);
    return code;
}

const struct command complete_command = {
    .name = "__complete",
    .usage = "WORD...",
    .summary = "Tell a shell how a command line can go on",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .stop_at_operand = true,
    .hidden = true,
    .run = run,
};
