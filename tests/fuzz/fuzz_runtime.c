/*
 * libFuzzer target: what cloche-runtime does with foreign input behind the JSON reader. The first
 * byte says what the rest is:
 *
 *   s  linux.seccomp: checked and compiled; the kernel would accept the program
 *   m  the options of a mount, one a line
 *   t  a state file: written back it is the same, and hooks get a valid document of it
 *   p  the file of exec --process
 *   c  a config.json
 *   r  two schemata of resctrl groups, with a "|" in between
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <schema/oci_config.h>
#include <schema/oci_state.h>
#include <schema/runtime_state.h>

#include <base/alloc.h>
#include <base/text.h>

#include "config_check.h"
#include "environment.h"
#include "filter.h"
#include "intel_rdt.h"
#include "mount_options.h"
#include "state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

/* As seccomp_check_filter() and bpf_check_classic() of the kernel: forward jumps within the
 * program, which ends by returning. */
static void check_program(const struct filter *filter, size_t size)
{
    expect(size == sizeof(*filter) + filter->length * sizeof(uint64_t));
    expect(filter->length > 0 && filter->length <= FILTER_MAX);
    for (uint32_t at = 0; at < filter->length; at++) {
        struct sock_filter step;
        uint64_t left = filter->length - at - 1;
        memcpy(&step, &filter->code[at], sizeof(step));
        switch (BPF_CLASS(step.code)) {
        case BPF_JMP:
            if (BPF_OP(step.code) == BPF_JA)
                expect(step.k < left);
            else
                expect(step.jt < left && step.jf < left);
            break;
        case BPF_LD:
            if (BPF_MODE(step.code) == BPF_ABS)
                expect(step.k < sizeof(struct seccomp_data) && step.k % 4 == 0);
            break;
        case BPF_RET:
            break;
        default:
            expect(left > 0);
        }
        expect(left > 0 || BPF_CLASS(step.code) == BPF_RET);
    }
}

static void try_seccomp(const char *text, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct oci_seccomp *config;
    struct filter *filter = NULL;
    size_t size;

    if (oci_seccomp_parse(text, length, "seccomp", &config, &err) < 0)
        return;
    if (filter_check(config, &err) == 0 && filter_compile(config, &filter, &size, &err) == 0) {
        check_program(filter, size);
        expect(filter_has_listener(filter) == filter_wants_listener(config));
        free(filter);
    }
    oci_seccomp_free(config);
}

static void try_mount_options(const char *text)
{
    _cleanup_strv_ char **options = strv_split(text, '\n');
    _cleanup_error_ struct error err = ERROR_INIT;
    struct mount_options parsed;

    if (mount_options_parse(options, &parsed, &err) == 0)
        mount_options_finish(&parsed);
}

static void try_state(const char *text, size_t length)
{
    _cleanup_buffer_ struct buffer again = BUFFER_INIT, hooks = BUFFER_INIT;
    struct runtime_state *state, *second;
    struct oci_state *document;

    if (runtime_state_parse(text, length, "state.json", &state, NULL) < 0)
        return;
    runtime_state_write(state, &again);
    expect(runtime_state_parse(again.data, again.length, "again", &second, NULL) == 0);
    expect(text_equal(state->id, second->id) && state->pid == second->pid);
    state_for_hooks(state, "running", state->pid, &hooks);
    if (state->pid > 0) {
        expect(oci_state_parse(hooks.data, hooks.length, "hooks", &document, NULL) == 0);
        expect(text_equal(document->id, state->id));
        oci_state_free(document);
    }
    runtime_state_free(second);
    runtime_state_free(state);
}

static void try_process(const char *text, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct oci_process *process;

    if (oci_process_parse(text, length, "process.json", &process, &err) < 0)
        return;
    if (config_check_process(process, &err) == 0) {
        /* HOME is given: what it would make of its own lives as long as the process. */
        char *home[] = {(char[]){"HOME=/"}, NULL};
        _cleanup_free_ char **environment = environment_build(process->env, home, 0);
        expect(process->args_count > 0 && process->cwd[0] == '/');
        expect(strv_length(environment) > 0);
    }
    oci_process_free(process);
}

static void try_config(const char *text, size_t length)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct oci_config *config;

    if (oci_config_parse(text, length, "config.json", &config, &err) < 0)
        return;
    if (!config->linux) /* as create.c does */
        config->linux = xnew(struct oci_linux);
    if (config_check(config, &err) == 0)
        expect(config->process && config->root && config->process->args_count > 0);
    oci_config_free(config);
}

static void try_schemata(char *text)
{
    char *existing = strchr(text, '|');

    if (!existing)
        return;
    *existing++ = '\0';
    intel_rdt_matches(text, existing);
    const struct oci_intel_rdt config = {.l3_cache_schema = text, .mem_bw_schema = existing};
    _cleanup_buffer_ struct buffer lines = BUFFER_INIT;
    intel_rdt_schemata(&config, &lines);
    expect(lines.length <= strlen(text) + strlen(existing) + 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    _cleanup_free_ char *text = xmalloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0]) {
    case 's':
        try_seccomp(text, size - 1);
        break;
    case 'm':
        try_mount_options(text);
        break;
    case 't':
        try_state(text, size - 1);
        break;
    case 'p':
        try_process(text, size - 1);
        break;
    case 'c':
        try_config(text, size - 1);
        break;
    case 'r':
        try_schemata(text);
        break;
    default:
        break;
    }
    return 0;
}
