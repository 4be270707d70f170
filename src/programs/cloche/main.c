/*
 * cloche: the command line of the engine. Global options, the command's words, its options by
 * table, then the command itself.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "cli.h"
#include "help.h"

static int print_help(const struct spelling *spelling)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    help_command(spelling, &text);
    return cli_print(&text);
}

static int unknown_command(const char *group, const char *name)
{
    const char *near = command_suggest(group, name);

    fprintf(stderr, "cloche: unknown command: cloche %s%s%s\n", group ? group : "",
            group ? " " : "", name);
    if (near)
        fprintf(stderr, "Did you mean 'cloche %s%s%s'?\n", group ? group : "", group ? " " : "",
                near);
    fprintf(stderr, "See 'cloche%s%s --help'.\n", group ? " " : "", group ? group : "");
    return EXIT_FAILED;
}

/* "run", or "container run", or only "container": its list of commands. *arguments moves behind
 * the words. Returns NULL with an exit code when there is nothing to run. */
static const struct spelling *find_command(char *const **arguments, int *ret_code)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    const char *name = (*arguments)[0];
    const struct command_group *group = command_group_find(name);
    const struct spelling *spelling;

    if (group) {
        (*arguments)++;
        name = (*arguments)[0];
        if (!name || text_equal(name, "--help") || text_equal(name, "-h")) {
            help_command_group(group, &text);
            *ret_code = cli_print(&text);
            return NULL;
        }
    }
    spelling = command_find(group ? group->name : NULL, name);
    if (spelling)
        (*arguments)++;
    else
        *ret_code = unknown_command(group ? group->name : NULL, name);
    return spelling;
}

/* docker's wording, and its exit code 1 rather than 125. */
static int wrong_number(const struct spelling *spelling)
{
    const struct command *command = spelling->command;
    _cleanup_free_ char *words = cli_command_words(spelling);

    if (command->maximum_operands == 0)
        fprintf(stderr, "cloche: 'cloche %s' accepts no arguments\n", words);
    else if (command->minimum_operands == command->maximum_operands)
        fprintf(stderr, "cloche: 'cloche %s' requires %d argument%s\n", words,
                command->minimum_operands, command->minimum_operands == 1 ? "" : "s");
    else if (command->maximum_operands < 0)
        fprintf(stderr, "cloche: 'cloche %s' requires at least %d argument%s\n", words,
                command->minimum_operands, command->minimum_operands == 1 ? "" : "s");
    else
        fprintf(stderr, "cloche: 'cloche %s' requires between %d and %d arguments\n", words,
                command->minimum_operands, command->maximum_operands);
    fprintf(stderr, "\nUsage:  cloche %s %s\n\nSee 'cloche %s --help'.\n", words, command->usage,
            words);
    return EXIT_FAILED;
}

static int run_command_of(struct cli *cli, char *const *arguments)
{
    const struct command *command = cli->spelling->command;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ void *values = xcalloc(1, command->values_size + 1);
    _cleanup_free_ char **operands = NULL;
    int code;

    if (command->set_defaults)
        command->set_defaults(values);
    int r = options_parse(command->options, arguments, command->stop_at_operand, values, &operands,
                          &err);
    int count = r < 0 ? 0 : (int)strv_length(operands);
    if (r == -ECANCELED) {
        code = print_help(cli->spelling);
    } else if (r < 0) {
        _cleanup_free_ char *words = cli_command_words(cli->spelling);
        fprintf(stderr, "%s\nSee 'cloche %s --help'.\n", error_message(&err), words);
        code = EXIT_ENGINE;
    } else if (count < command->minimum_operands ||
               (command->maximum_operands >= 0 && count > command->maximum_operands)) {
        code = wrong_number(cli->spelling);
    } else {
        code = command->run(cli, values, operands);
    }
    options_finish(command->options, values);
    return code;
}

static int run_words(const struct global_values *global, char *const *arguments)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct cli cli = {.dial = global->dial};
    int code = EXIT_FAILED;

    cli.spelling = find_command(&arguments, &code);
    if (!cli.spelling)
        return code;
    if (instance_init(&cli.instance, global->instance, &err) < 0) {
        fprintf(stderr, "cloche: %s\n", error_message(&err));
        return EXIT_ENGINE;
    }
    code = run_command_of(&cli, arguments);
    cli_finish(&cli);
    return code;
}

/* A descriptor that is closed would be given to our first socket, and be taken for a standard
 * stream then. */
static void open_missing_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            abort();
    }
}

int main(int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_free_ char **words = NULL;
    struct global_values global = {0};

    open_missing_streams();
    if (argc < 1)
        return EXIT_ENGINE;
    int r = options_parse(global_options, argv + 1, true, &global, &words, &err);
    if (r < 0 && r != -ECANCELED) {
        fprintf(stderr, "%s\nSee 'cloche --help'.\n", error_message(&err));
        return EXIT_ENGINE;
    }
    if (r >= 0 && global.version) {
        printf("Cloche version %s\n", CLOCHE_VERSION);
        return EXIT_DONE;
    }
    if (r == -ECANCELED || !words[0]) {
        help_overview(&text);
        return cli_print(&text);
    }
    return run_words(&global, words);
}
