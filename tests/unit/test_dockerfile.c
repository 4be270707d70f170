/* The language of Dockerfiles and the patterns of .dockerignore. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <base/alloc.h>
#include <base/text.h>
#include <dockerfile/change.h>
#include <dockerfile/ignore.h>
#include <dockerfile/limits.h>
#include <dockerfile/plan.h>
#include <dockerfile/words.h>

/* --- words ------------------------------------------------------------------------------------ */

static char *const environment[] = {"A=hello", "EMPTY=", "P=/a/b/c.tar.gz", "TWO=one two", NULL};

static void check_word(const char *text, const char *expected)
{
    const struct words_rules rules = {.env = environment, .escape = '\\'};
    _cleanup_free_ char *word = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = words_expand(text, &rules, &word, &err);
    if (r < 0)
        print_error("%s: %s\n", text, error_message(&err));
    assert_int_equal(r, 0);
    assert_string_equal(word, expected);
}

static void variables_are_replaced_as_docker_does(void **state)
{
    check_word("$A", "hello");
    check_word("${A}x$A", "helloxhello");
    check_word("$NONE", "");
    check_word("a $ b", "a $ b");
    check_word("\\$A", "$A");
    check_word("'$A'", "$A");
    check_word("\"$A \\$A \\\" \\n\"", "hello $A \" \\n");
    check_word("${NONE:-x$A}", "xhello");
    check_word("${EMPTY:-x}", "x");
    check_word("${EMPTY-x}", "");
    check_word("${A:+set}${NONE:+set}", "set");
    check_word("${EMPTY+set}", "set");
    check_word("${P#*/}", "a/b/c.tar.gz");
    check_word("${P##*/}", "c.tar.gz");
    check_word("${P%.*}", "/a/b/c.tar");
    check_word("${P%%.*}", "/a/b/c");
    check_word("${P/a/X}", "/X/b/c.tar.gz");
    check_word("${P//a/X}", "/X/b/c.tXr.gz");
    check_word("${NONE:-${ALSO:-deep}}", "deep");
    check_word("$1$@", "");
    check_word("C:\\\\x", "C:\\x");
    check_word("a\\", "a");
}

static void what_is_no_variable_is_refused(void **state)
{
    static const char *const wrong[] = {"${A",    "${}",    "${A:x}",
                                        "'a",     "\"a",    "${A~x}",
                                        "${A:-x", "${:-x}", "${NONE:?must be there}"};
    const struct words_rules rules = {.env = environment, .escape = '\\'};

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        char *word = NULL;
        assert_int_equal(words_expand(wrong[i], &rules, &word, &err), -EINVAL);
        assert_non_null(strstr(error_message(&err), "failed to process"));
    }
}

static void variables_cannot_grow_for_ever(void **state)
{
    _cleanup_free_ char *half = xcalloc(DOCKERFILE_WORD_MAX / 2 + 16, 1);
    memset(half, 'x', DOCKERFILE_WORD_MAX / 2 + 10);
    memcpy(half, "B=", 2);
    char *const large[] = {half, NULL};
    const struct words_rules rules = {.env = large, .escape = '\\'};
    char *word = NULL;

    assert_int_equal(words_expand("$B$B$B", &rules, &word, NULL), -EFBIG);
    size_t total = 0;
    const struct words_rules counted = {.env = large, .escape = '\\', .total = &total};
    assert_int_equal(words_expand("$B", &counted, &word, NULL), 0);
    free(word);
    assert_int_equal(words_expand("$B", &counted, &word, NULL), -EFBIG);
    _cleanup_buffer_ struct buffer nested = BUFFER_INIT;
    for (int i = 0; i < DOCKERFILE_NESTING_MAX + 1; i++)
        buffer_append_text(&nested, "${N:-");
    assert_int_equal(words_expand(buffer_text(&nested), &rules, &word, NULL), -EFBIG);
}

static void splitting_follows_blanks_of_variables_too(void **state)
{
    const struct words_rules rules = {.env = environment, .escape = '\\'};
    _cleanup_strv_ char **words = NULL;

    assert_int_equal(words_split("a $TWO \"$TWO\" b\\ c", &rules, &words, NULL), 0);
    assert_int_equal(strv_length(words), 5);
    assert_string_equal(words[2], "two");
    assert_string_equal(words[3], "one two");
    assert_string_equal(words[4], "b c");
}

/* --- patterns --------------------------------------------------------------------------------- */

static void wildcards_stay_within_a_component(void **state)
{
    assert_true(glob_match("*.c", "a.c"));
    assert_false(glob_match("*.c", "d/a.c"));
    assert_true(glob_match("d/?.[a-c]", "d/x.b"));
    assert_false(glob_match("d/?.[^a-c]", "d/x.b"));
    assert_true(glob_match("a\\*", "a*"));
    assert_false(glob_match("a\\*", "ab"));
    assert_false(glob_match("[", "["));
    assert_true(glob_match("*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
    assert_true(glob_has_wildcard("a[b]"));
    assert_false(glob_has_wildcard("a\\*"));
}

static bool left_out(const char *patterns, const char *path)
{
    _cleanup_ignore_ struct ignore *ignore = NULL;

    assert_int_equal(ignore_parse(patterns, strlen(patterns), &ignore, NULL), 0);
    return ignore_matches(ignore, path);
}

static void dockerignore_means_what_docker_says(void **state)
{
    assert_true(left_out("a\n", "a/b/c"));
    assert_false(left_out("a\n", "b/a"));
    assert_true(left_out("/a/\n", "a"));
    assert_true(left_out("**/a\n", "x/y/a"));
    assert_true(left_out("**/a\n", "a"));
    assert_false(left_out("**/a\n", "xa"));
    assert_true(left_out("a/**\n", "a/b/c"));
    assert_false(left_out("a/**\n", "a"));
    assert_true(left_out("a/**/z\n", "a/b/c/z"));
    assert_true(left_out("a/**/z\n", "a/z"));
    assert_true(left_out("*\n!keep\n", "other"));
    assert_false(left_out("*\n!keep\n", "keep"));
    assert_false(left_out("*\n!keep\n", "keep/inside"));
    assert_true(left_out("*\n!keep\nkeep/not\n", "keep/not"));
    assert_false(left_out("# a\n\n  \n", "a"));
    assert_true(left_out("  b/../a  \n", "a"));
    assert_true(left_out("*.md\n!README*.md\nREADME-secret.md\n", "README-secret.md"));
    assert_false(left_out("*.md\n!README*.md\nREADME-secret.md\n", "README.md"));
    struct ignore *ignore = NULL;
    assert_int_equal(ignore_parse("[\n", 2, &ignore, NULL), -EINVAL);
    assert_int_equal(ignore_parse("!\n", 2, &ignore, NULL), -EINVAL);
}

/* --- plans ------------------------------------------------------------------------------------ */

static struct build_base plain_base = {.name = (char *)"busybox"};
static struct build_base *bases[] = {&plain_base};

static int make(const char *text, char **arguments, struct build_plan **ret, struct error *err)
{
    const struct build_options options = {
        .dockerfile = (char *)"Dockerfile",
        .arguments = arguments,
        .arguments_count = strv_length(arguments),
        .platform = (char *)"linux/amd64",
        .bases = bases,
        .bases_count = 1,
    };

    return plan_make(text, strlen(text), &options, ret, err);
}

static struct build_plan *plan_of(const char *text)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct build_plan *plan = NULL;

    if (make(text, NULL, &plan, &err) < 0)
        fail_msg("%s: %s", text, error_message(&err));
    return plan;
}

/* The last step of the last stage. */
static const struct build_step *last_of(const struct build_plan *plan)
{
    const struct build_stage *stage = plan->stages[plan->stages_count - 1];

    return stage->steps[stage->steps_count - 1];
}

static void check_failure(const char *text, const char *expected)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct build_plan *plan = NULL;

    assert_true(make(text, NULL, &plan, &err) < 0);
    if (!strstr(error_message(&err), expected))
        fail_msg("%s: '%s' instead of '%s'", text, error_message(&err), expected);
}

static void lines_are_joined_and_comments_dropped(void **state)
{
    _cleanup_build_plan_ struct build_plan *plan = plan_of(
        "\xef\xbb\xbf# syntax=x\r\n# a comment\nFROM busybox\r\nRUN a \\\n  # in between\n\n  b "
        "\\  \n && c\n  # last\n");

    assert_int_equal(plan->total, 2);
    assert_string_equal(last_of(plan)->text, "RUN a   b  && c");
    assert_string_equal(last_of(plan)->created_by, "/bin/sh -c a   b  && c");
    _cleanup_build_plan_ struct build_plan *windows =
        plan_of("# escape=`\nFROM busybox\nRUN a `\n b \\\nENV A=`$B\n");
    assert_int_equal(windows->total, 3);
    assert_string_equal(last_of(windows)->config->env[1], "A=$B");
}

static void the_configuration_follows_the_instructions(void **state)
{
    _cleanup_build_plan_ struct build_plan *plan =
        plan_of("FROM busybox\n"
                "ENV A=1 B=\"two words\" C=$A\n"
                "ENV OLD form of it\n"
                "ENV A=3 C=$A\n"
                "WORKDIR /x\nWORKDIR y/../z\n"
                "CMD [\"a\", \"b\"]\n"
                "EXPOSE 80 90-91/udp\n"
                "LABEL k='v w' \"q r\"=s\n"
                "VOLUME /v $A\n"
                "USER ${A}:4\n"
                "STOPSIGNAL SIGINT\n"
                "HEALTHCHECK --interval=1m30s --retries=2 CMD test -f /ok\n"
                "SHELL [\"/bin/ash\", \"-ec\"]\n"
                "ENTRYPOINT run it\n");
    const struct build_step *last = last_of(plan);
    const struct oci_image_execution *config = last->config;

    assert_string_equal(config->env[0],
                        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_string_equal(config->env[1], "A=3");
    assert_string_equal(config->env[2], "B=two words");
    assert_string_equal(config->env[3], "C=1");
    assert_string_equal(config->env[4], "OLD=form of it");
    assert_string_equal(config->working_dir, "/x/z");
    assert_string_equal(config->cmd[1], "b");
    assert_int_equal(config->exposed_ports->count, 3);
    assert_string_equal(config->exposed_ports->keys[2], "91/udp");
    assert_string_equal(json_string_map_get(config->labels, "k"), "v w");
    assert_string_equal(json_string_map_get(config->labels, "q r"), "s");
    assert_string_equal(config->volumes->keys[1], "3");
    assert_string_equal(config->user, "3:4");
    assert_string_equal(config->stop_signal, "SIGINT");
    assert_string_equal(config->healthcheck->test[0], "CMD-SHELL");
    assert_string_equal(config->healthcheck->test[1], "test -f /ok");
    assert_true(config->healthcheck->interval == 90000000000);
    assert_string_equal(config->entrypoint[2], "run it");
    assert_string_equal(last->created_by,
                        "/bin/ash -ec #(nop)  ENTRYPOINT [\"/bin/ash\" \"-ec\" \"run it\"]");
}

static void an_entrypoint_drops_the_command_of_the_base(void **state)
{
    char *command[] = {(char *)"sh", NULL};
    struct oci_image_execution config = {.cmd = command, .cmd_count = 1};

    plain_base.config = &config;
    _cleanup_build_plan_ struct build_plan *plan = plan_of("FROM busybox\nENTRYPOINT [\"a\"]\n");
    _cleanup_build_plan_ struct build_plan *kept =
        plan_of("FROM busybox\nCMD [\"b\"]\nENTRYPOINT [\"a\"]\n");
    plain_base.config = NULL;
    assert_null(last_of(plan)->config->cmd);
    assert_string_equal(last_of(kept)->config->cmd[0], "b");
}

static void arguments_have_their_scope(void **state)
{
    static const char text[] =
        "ARG TAG=box\nARG G=global\nFROM busy$TAG AS one\nARG G\nARG D=$G-d\n"
        "ENV E=$D$TAG\nRUN x\nFROM one\nENV F=$D\nARG HTTP_PROXY\n";
    char *given[] = {(char *)"D=given", (char *)"NOBODY=1", (char *)"HTTP_PROXY=p", NULL};
    struct build_plan *plan = NULL;

    assert_int_equal(make(text, given, &plan, NULL), 0);
    assert_int_equal(plan->total, 10);
    assert_string_equal(plan->heading[0], "ARG TAG=box");
    assert_string_equal(plan->stages[0]->image, "busybox");
    const struct build_step *run = plan->stages[0]->steps[3];
    assert_string_equal(run->config->env[1], "E=given");
    assert_string_equal(run->created_by, "|2 D=given G=global /bin/sh -c x");
    assert_int_equal(run->run->hidden_count, 1);
    assert_int_equal(plan->stages[1]->stage, 0);
    assert_string_equal(plan->stages[1]->steps[0]->config->env[2], "F=");
    assert_int_equal(plan->unused_arguments_count, 1);
    assert_string_equal(plan->unused_arguments[0], "NOBODY");
    build_plan_free(plan);
    _cleanup_build_plan_ struct build_plan *own = plan_of(text);
    assert_string_equal(own->stages[0]->steps[3]->created_by,
                        "|2 D=global-d G=global /bin/sh -c x");
}

static void copies_name_their_source_and_destination(void **state)
{
    _cleanup_build_plan_ struct build_plan *plan =
        plan_of("FROM busybox AS first\nFROM scratch\nWORKDIR /w\nENV D=d\n"
                "COPY --from=FIRST --chown=$D:1 --chmod=750 a b $D/\n");
    const struct build_copy *copy = last_of(plan)->copy;

    assert_true(copy->has_from_stage && copy->from_stage == 0);
    assert_string_equal(copy->chown, "d:1");
    assert_int_equal(copy->chmod, 0750);
    assert_string_equal(copy->destination, "/w/d/");
    assert_int_equal(copy->sources_count, 2);
    _cleanup_build_plan_ struct build_plan *add =
        plan_of("FROM busybox\nCOPY --from=other/image:1 x /\nADD [\"a b\", \"/c d/\"]\n");
    assert_string_equal(add->stages[0]->steps[0]->copy->from_image, "other/image:1");
    assert_true(last_of(add)->copy->extract);
    assert_string_equal(last_of(add)->copy->sources[0], "a b");
}

static void heredocs_are_scripts_and_files(void **state)
{
    _cleanup_build_plan_ struct build_plan *plan =
        plan_of("FROM busybox\nENV A=1\nRUN <<EOF\necho $A\nFROM x\nEOF\n"
                "RUN <<-'X' cat <<Y\n\t\tone\n\tX\ntwo\nY\n"
                "COPY <<a <<\"b\" /d/\n$A \\$A\na\n$A\nb\n"
                "RUN <<EOF\n#!/bin/sh\nx\nEOF\n");
    struct build_step *const *steps = plan->stages[0]->steps;

    assert_int_equal(plan->total, 6);
    assert_string_equal(steps[1]->run->arguments[2], "echo $A\nFROM x\n");
    assert_string_equal(steps[2]->run->arguments[2], "<<-'X' cat <<Y\none\nX\ntwo\nY");
    assert_int_equal(steps[3]->copy->files_count, 2);
    assert_string_equal(steps[3]->copy->files[0]->content, "1 $A\n");
    assert_string_equal(steps[3]->copy->files[1]->content, "$A\n");
    assert_string_equal(steps[4]->run->script->content, "#!/bin/sh\nx\n");
    assert_string_equal(steps[4]->run->arguments[0], "/dev/pipes/EOF");
    check_failure("FROM busybox\nRUN <<EOF\nx\n", "unterminated heredoc");
}

static void triggers_run_first_and_once(void **state)
{
    char *triggers[] = {(char *)"ENV T=1", (char *)"RUN x", NULL};
    struct oci_image_execution config = {.on_build = triggers, .on_build_count = 2};

    plain_base.config = &config;
    _cleanup_build_plan_ struct build_plan *plan =
        plan_of("FROM busybox\nENV U=$T\nONBUILD RUN again\n");
    plain_base.config = NULL;
    const struct build_stage *stage = plan->stages[0];
    assert_int_equal(stage->triggers, 2);
    assert_int_equal(stage->steps[0]->number, 0);
    assert_int_equal(stage->steps[2]->number, 2);
    assert_string_equal(stage->steps[2]->config->env[2], "U=1");
    assert_null(stage->steps[1]->config->on_build);
    assert_string_equal(last_of(plan)->config->on_build[0], "RUN again");
}

static void a_target_ends_the_plan(void **state)
{
    static const char text[] = "FROM busybox AS a\nRUN x\nFROM other AS b\nRUN y\n";
    struct build_options options = {.dockerfile = (char *)"Dockerfile", .target = (char *)"A"};
    struct build_plan *plan = NULL;

    assert_int_equal(plan_make(text, strlen(text), &options, &plan, NULL), 0);
    assert_int_equal(plan->stages_count, 1);
    assert_int_equal(plan->total, 2);
    assert_int_equal(plan->stages[0]->steps_count, 0); /* no base is known yet */
    build_plan_free(plan);
    options.target = (char *)"c";
    assert_int_equal(plan_make(text, strlen(text), &options, &plan, NULL), -EINVAL);
}

static void what_is_wrong_is_told_with_its_line(void **state)
{
    check_failure("", "file with no instructions");
    check_failure("# only\n", "file with no instructions");
    check_failure("RUN x\n", "no build stage in current context");
    check_failure("FROM busybox\n\nFOO x\n", "line 3: unknown instruction: FOO");
    check_failure("FROM busybox\nRUN\n", "line 2: RUN requires at least one argument");
    check_failure("FROM a b\n", "FROM requires either one or three arguments");
    check_failure("FROM busybox AS 1x\n", "invalid name for build stage");
    check_failure("FROM $NONE\n", "base name should not be blank");
    check_failure("FROM busybox\nCOPY a\n", "requires at least two arguments");
    check_failure("FROM busybox\nCOPY a b c\n", "must be a directory and end with a /");
    check_failure("FROM busybox\nCOPY --from=7 a b\n", "invalid from flag value 7");
    check_failure("FROM busybox\nCOPY --what=7 a b\n", "Unknown flag: what");
    check_failure("FROM busybox\nCOPY --chown=1 --chown=2 a b\n",
                  "Duplicate flag specified: chown");
    check_failure("FROM busybox\nCOPY --chmod=a a b\n", "invalid chmod parameter");
    check_failure("FROM busybox\nRUN [\"a\", 1]\n", "comprised of strings only");
    check_failure("FROM busybox\nSHELL a\n", "JSON form");
    check_failure("FROM busybox\nENV a\n", "ENV must have two arguments");
    check_failure("FROM busybox\nENV a=b c\n", "can't find = in \"c\"");
    check_failure("FROM busybox\nEXPOSE x\n", "invalid containerPort: x");
    check_failure("FROM busybox\nONBUILD ONBUILD RUN x\n", "Chaining ONBUILD");
    check_failure("FROM busybox\nONBUILD FROM x\n", "FROM isn't allowed as an ONBUILD trigger");
    check_failure("FROM busybox\nHEALTHCHECK FOO\n", "Unknown type \"FOO\" in HEALTHCHECK");
    check_failure("FROM busybox\nHEALTHCHECK --retries=0 CMD x\n", "at least 1 (not 0)");
    check_failure("FROM busybox\nSTOPSIGNAL NOPE\n", "Invalid signal: NOPE");
    check_failure("FROM busybox\nRUN --mount=type=cache,target=/x y\n", "requires BuildKit");
    check_failure("# escape=x\nFROM busybox\n", "invalid ESCAPE");
    check_failure("FROM busybox\nENV A=${B\n", "line 2: failed to process");
}

/* --- commit --change -------------------------------------------------------------------------- */

static void changes_are_instructions_without_a_stage(void **state)
{
    struct oci_image_execution *config = xnew(struct oci_image_execution);
    char *const changes[] = {(char *)"SHELL [\"/bin/ash\", \"-c\"]",
                             (char *)"entrypoint echo hi",
                             (char *)"ENV A=1 B=\"two words\"",
                             (char *)"ENV C $A \\\n three",
                             (char *)"EXPOSE 80 53/udp",
                             (char *)"WORKDIR /srv\nWORKDIR www",
                             (char *)"HEALTHCHECK --retries=2 CMD [\"true\"]",
                             (char *)"ONBUILD RUN x",
                             NULL};

    assert_int_equal(dockerfile_change(changes, config, NULL), 0);
    assert_string_equal(config->entrypoint[0], "/bin/ash");
    assert_string_equal(config->entrypoint[2], "echo hi");
    assert_string_equal(config->env[1], "B=two words");
    assert_string_equal(config->env[2], "C=1  three");
    assert_string_equal(config->exposed_ports->keys[1], "53/udp");
    assert_string_equal(config->working_dir, "/srv/www");
    assert_int_equal(config->healthcheck->retries, 2);
    assert_string_equal(config->on_build[0], "RUN x");
    const char *const wrong[] = {"RUN reboot", "COPY a b", "FROM x", "ARG A", "CMDX", "EXPOSE x"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        char *const one[] = {(char *)wrong[i], NULL};
        assert_int_equal(dockerfile_change(one, config, NULL), -EINVAL);
    }
    oci_image_execution_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variables_are_replaced_as_docker_does),
        cmocka_unit_test(what_is_no_variable_is_refused),
        cmocka_unit_test(variables_cannot_grow_for_ever),
        cmocka_unit_test(splitting_follows_blanks_of_variables_too),
        cmocka_unit_test(wildcards_stay_within_a_component),
        cmocka_unit_test(dockerignore_means_what_docker_says),
        cmocka_unit_test(lines_are_joined_and_comments_dropped),
        cmocka_unit_test(the_configuration_follows_the_instructions),
        cmocka_unit_test(an_entrypoint_drops_the_command_of_the_base),
        cmocka_unit_test(arguments_have_their_scope),
        cmocka_unit_test(copies_name_their_source_and_destination),
        cmocka_unit_test(heredocs_are_scripts_and_files),
        cmocka_unit_test(triggers_run_first_and_once),
        cmocka_unit_test(changes_are_instructions_without_a_stage),
        cmocka_unit_test(a_target_ends_the_plan),
        cmocka_unit_test(what_is_wrong_is_told_with_its_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
