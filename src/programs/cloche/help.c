#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "cli.h"
#include "help.h"

enum { HELP_WIDTH = 80 };

/* Text behind column `indent`, wrapped at blanks; the first line starts where the cursor is. */
static void write_wrapped(const char *text, size_t indent, struct buffer *out)
{
    size_t column = indent;

    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > indent && column + 1 + word > HELP_WIDTH) {
            buffer_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buffer_append_char(out, ' ');
            column++;
        }
        buffer_append(out, text, word);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    buffer_append_char(out, '\n');
}

/* "  -e, --env list" */
static char *option_words(const struct option *option)
{
    struct buffer words = BUFFER_INIT;

    if (option->short_name)
        buffer_printf(&words, "  -%c, --%s", option->short_name, option->name);
    else
        buffer_printf(&words, "      --%s", option->name);
    if (option->argument)
        buffer_printf(&words, " %s", option->argument);
    return buffer_steal(&words);
}

static size_t options_column(const struct option_group *groups)
{
    size_t column = 0;

    for (; groups->options; groups++) {
        for (const struct option *option = groups->options; option->name; option++) {
            if (option->hidden)
                continue;
            _cleanup_free_ char *words = option_words(option);
            size_t length = strlen(words);
            column = length > column ? length : column;
        }
    }
    return column + 3;
}

/* All rows sorted by name: a command's tables are joined for the reader. */
static int by_name(const void *a, const void *b)
{
    const struct option *const *first = a, *const *second = b;

    return strcmp((*first)->name, (*second)->name);
}

static void write_options(const char *title, const struct option_group *groups, struct buffer *out)
{
    const struct option **sorted = NULL;
    size_t count = 0, column = options_column(groups);

    for (const struct option_group *group = groups; group->options; group++) {
        for (const struct option *option = group->options; option->name; option++) {
            if (option->hidden)
                continue;
            sorted = xrealloc(sorted, count + 1, sizeof(*sorted));
            sorted[count++] = option;
        }
    }
    qsort(sorted, count, sizeof(*sorted), by_name);
    buffer_printf(out, "\n%s:\n", title);
    for (size_t i = 0; i < count; i++) {
        _cleanup_free_ char *words = option_words(sorted[i]);
        buffer_printf(out, "%-*s", (int)column, words);
        write_wrapped(sorted[i]->help, column, out);
    }
    free(sorted);
}

static void write_aliases(const struct command *command, struct buffer *out)
{
    _cleanup_strv_ char **aliases = NULL;

    for (const struct spelling *spelling = spellings; spelling->command; spelling++) {
        if (spelling->command == command) {
            _cleanup_free_ char *words = cli_command_words(spelling);
            strv_take(&aliases, xasprintf("cloche %s", words));
        }
    }
    if (strv_length(aliases) > 1) {
        _cleanup_free_ char *joined = strv_join(aliases, ", ");
        buffer_printf(out, "\nAliases:\n  %s\n", joined);
    }
}

void help_command(const struct spelling *spelling, struct buffer *out)
{
    const struct command *command = spelling->command;
    _cleanup_free_ char *words = cli_command_words(spelling);

    buffer_printf(out, "Usage:  cloche %s%s%s\n\n", words, command->usage[0] ? " " : "",
                  command->usage);
    buffer_printf(out, "%s\n", command->summary);
    if (command->details)
        buffer_printf(out, "\n%s\n", command->details);
    write_aliases(command, out);
    if (command->options)
        write_options("Options", command->options, out);
}

/* One line of a list of commands. */
static void write_entry(const char *name, const char *summary, struct buffer *out)
{
    buffer_printf(out, "  %-11s %s\n", name, summary);
}

static void write_commands(const char *title, const char *group, int common, struct buffer *out)
{
    buffer_printf(out, "\n%s:\n", title);
    for (const struct spelling *spelling = spellings; spelling->command; spelling++) {
        const struct command *command = spelling->command;
        if (!text_equal(spelling->group, group) || command->hidden || spelling->synonym)
            continue;
        if (common < 0 || command->common == (common > 0))
            write_entry(spelling->name, command->summary, out);
    }
}

void help_command_group(const struct command_group *group, struct buffer *out)
{
    buffer_printf(out, "Usage:  cloche %s COMMAND\n\n%s\n", group->name, group->summary);
    write_commands("Commands", group->name, -1, out);
    buffer_printf(out, "\nRun 'cloche %s COMMAND --help' for more information on a command.\n",
                  group->name);
}

void help_overview(struct buffer *out)
{
    buffer_append_text(out, "Usage:  cloche [OPTIONS] COMMAND\n\n"
                            "A container engine for machines that face the public\n");
    write_commands("Common Commands", NULL, 1, out);
    buffer_append_text(out, "\nManagement Commands:\n");
    for (const struct command_group *group = command_groups; group->name; group++)
        write_entry(group->name, group->summary, out);
    write_commands("Commands", NULL, 0, out);
    write_options("Global Options", global_options, out);
    buffer_append_text(out, "\nRun 'cloche COMMAND --help' for more information on a command.\n");
}
