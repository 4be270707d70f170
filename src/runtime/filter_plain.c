/*
 * libseccomp takes 15 ms for the hundreds of system calls in Docker's profile, and makes a list of
 * them that is searched from its beginning. Nearly all of them are let pass whatever their
 * arguments are: these become a search tree over ranges of numbers.
 *
 * To take a system call out of libseccomp's part changes nothing for the others, since it decides
 * each by its own rules. Left to it is what is more than a number: rules with arguments or with
 * several actions, actions that the kernel may not have, calls that 32-bit architectures also have
 * as parts of socketcall(2) and ipc(2), and all of them where two names have the same number.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "filter_plain.h"

/* socketcall(2), ipc(2), and what they are made of. */
static const char *const multiplexed[] = {
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "ipc",
    "listen",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "recv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "semctl",
    "semget",
    "semop",
    "send",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "semtimedop",
    "setsockopt",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
    "shutdown",
    "socket",
    "socketcall",
    "socketpair",
    "semtimedop_time64",
    "recvmmsg_time64",
};

static bool is_multiplexed(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(multiplexed); i++) {
        if (text_equal(multiplexed[i], name))
            return true;
    }
    return false;
}

/* libseccomp finds a call's numbers on other architectures by the name that its number here has. */
static bool is_own_number(const struct filter_call *call)
{
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call->number);
    bool is_own = text_equal(name, call->name);

    free(name);
    return is_own;
}

static bool is_plain(const struct filter_call *call)
{
    return !call->conditional &&
           (call->action == SCMP_ACT_ALLOW ||
            (call->action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO) &&
           !is_multiplexed(call->name) && is_own_number(call);
}

static int compare_numbers(const void *left, const void *right)
{
    const struct filter_call *const *a = left, *const *b = right;

    return ((*a)->number > (*b)->number) - ((*a)->number < (*b)->number);
}

/* Each rule that names it has to say the same. */
static void mark_group(struct filter_call **group, size_t count)
{
    bool plain = is_plain(group[0]);

    for (size_t i = 1; plain && i < count; i++)
        plain = group[i]->action == group[0]->action && !group[i]->conditional &&
                text_equal(group[i]->name, group[0]->name);
    for (size_t i = 0; i < count; i++)
        group[i]->plain = plain;
}

static void mark_groups(struct filter_calls *calls)
{
    _cleanup_free_ struct filter_call **sorted = xnew_array(struct filter_call *, calls->count + 1);

    for (size_t i = 0; i < calls->count; i++)
        sorted[i] = &calls->list[i];
    qsort(sorted, calls->count, sizeof(*sorted), compare_numbers);
    for (size_t first = 0, end; first < calls->count; first = end) {
        for (end = first + 1; end < calls->count && sorted[end]->number == sorted[first]->number;)
            end++;
        mark_group(sorted + first, end - first);
    }
}

/* A system call on one architecture. */
struct place {
    uint32_t number;
    uint32_t action;
    int call; /* its number on this machine */
};

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left, *b = right;

    return (a->number > b->number) - (a->number < b->number);
}

static size_t list_places(const struct filter_calls *calls, size_t token, bool only_plain,
                          struct place *ret)
{
    size_t count = 0;

    for (size_t i = 0; i < calls->count; i++) {
        const struct filter_call *call = &calls->list[i];
        int number = filter_plain_number(calls, token, i);
        if (number >= 0 && (call->plain || !only_plain))
            ret[count++] = (struct place){(uint32_t)number, call->action, call->number};
    }
    return count;
}

static bool has_shared_number(const struct filter_calls *calls, size_t token, struct place *places)
{
    size_t count = list_places(calls, token, false, places);

    qsort(places, count, sizeof(*places), compare_places);
    for (size_t i = 1; i < count; i++) {
        if (places[i].number == places[i - 1].number && places[i].call != places[i - 1].call)
            return true;
    }
    return false;
}

/* libseccomp (2.5.4) loads the number only for the first call that it looks for, and not when that
 * one is none on the architecture: all others are then decided by the default. Unconditional calls
 * with the lowest numbers come first, so one such stays with it. */
static void keep_anchors(struct filter_calls *calls)
{
    for (size_t token = 0; token < calls->token_count; token++) {
        struct filter_call *anchor = NULL;
        int lowest = INT_MAX;
        for (size_t i = 0; i < calls->count; i++) {
            int number = filter_plain_number(calls, token, i);
            if (!calls->list[i].plain || number < 0 || number >= lowest)
                continue;
            anchor = &calls->list[i];
            lowest = number;
        }
        if (anchor)
            anchor->anchor = true;
    }
}

void filter_plain_mark(struct filter_calls *calls)
{
    _cleanup_free_ struct place *places = xnew_array(struct place, calls->count + 1);
    bool shared = false;

    calls->numbers = xnew_array(int, calls->token_count * calls->count + 1);
    for (size_t token = 0; token < calls->token_count; token++) {
        for (size_t i = 0; i < calls->count; i++)
            calls->numbers[token * calls->count + i] =
                seccomp_syscall_resolve_name_arch(calls->tokens[token], calls->list[i].name);
        shared = shared || has_shared_number(calls, token, places);
    }
    if (shared)
        return;
    mark_groups(calls);
    keep_anchors(calls);
}

void filter_calls_finish(struct filter_calls *calls)
{
    free(calls->list);
    free(calls->numbers);
    *calls = (struct filter_calls){0};
}

/* From `start` to the start of the next one. */
struct range {
    uint32_t start;
    uint32_t action;
    bool decided; /* else it falls through */
};

/* Returns how many; ret has room for two per place and one. */
static size_t make_ranges(const struct place *places, size_t count, struct range *ret)
{
    size_t n = 0;

    ret[n++] = (struct range){0};
    for (size_t i = 0; i < count; i++) {
        const struct place *place = &places[i];
        struct range *last = &ret[n - 1];
        if (i && place->number == places[i - 1].number)
            continue;
        if (last->start == place->number) /* which follows the one before, or is 0 */
            *last = (struct range){place->number, place->action, true};
        else
            ret[n++] = (struct range){place->number, place->action, true};
        last = &ret[n - 1];
        if (n > 1 && last[-1].decided && last[-1].action == last->action)
            n--;
        ret[n++] = (struct range){.start = place->number + 1};
    }
    return n;
}

/* A jump goes forward, by 255 at most if it has a condition: the program is written from its end to
 * its beginning. A position is the number of instructions from there to the end. */
struct writer {
    struct buffer code; /* the last instruction first */
    uint32_t count;
    uint32_t fall; /* the end, or a jump there */
    struct {
        uint32_t action, position; /* 0: none */
    } returns[4];                  /* the latest of some actions */
    unsigned next_return;
};

enum { NEAR = 200 }; /* where a jump of 255 gets to, after what else may come in between */

static uint32_t put(struct writer *writer, struct sock_filter instruction)
{
    buffer_append(&writer->code, &instruction, sizeof(instruction));
    return ++writer->count;
}

static uint32_t put_jump(struct writer *writer, uint32_t target)
{
    return put(writer, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, writer->count - target));
}

static uint32_t bring_near(struct writer *writer, uint32_t target)
{
    return writer->count - target > NEAR ? put_jump(writer, target) : target;
}

static uint32_t put_return(struct writer *writer, uint32_t action)
{
    size_t i = 0;

    while (i < ARRAY_SIZE(writer->returns) &&
           !(writer->returns[i].position && writer->returns[i].action == action))
        i++;
    if (i < ARRAY_SIZE(writer->returns) && writer->count - writer->returns[i].position < NEAR)
        return writer->returns[i].position;
    if (i == ARRAY_SIZE(writer->returns))
        i = writer->next_return++ % ARRAY_SIZE(writer->returns);
    writer->returns[i].action = action;
    writer->returns[i].position =
        put(writer, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
    return writer->returns[i].position;
}

static uint32_t put_leaf(struct writer *writer, const struct range *range)
{
    if (range->decided)
        return put_return(writer, range->action);
    return writer->fall = bring_near(writer, writer->fall);
}

/* Returns its position. */
static uint32_t put_tree(struct writer *writer, const struct range *ranges, size_t count)
{
    size_t middle = count / 2;

    if (count == 1)
        return put_leaf(writer, ranges);
    uint32_t above = put_tree(writer, ranges + middle, count - middle);
    uint32_t below = put_tree(writer, ranges, middle);
    above = bring_near(writer, above);
    below = bring_near(writer, below);
    return put(writer, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[middle].start,
                                                    (uint8_t)(writer->count - above),
                                                    (uint8_t)(writer->count - below)));
}

/* To the kernel x32 is x86-64 with a bit in the number. */
static uint32_t kernel_architecture(uint32_t token)
{
    return token == SCMP_ARCH_X32 ? SCMP_ARCH_X86_64 : token;
}

static void append_architecture(uint32_t architecture, const struct range *ranges, size_t count,
                                struct buffer *out)
{
    struct writer writer = {.code = BUFFER_INIT};
    uint32_t root = put_tree(&writer, ranges, count);

    if (root != writer.count)
        put_jump(&writer, root);
    put(&writer, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                              (uint32_t)offsetof(struct seccomp_data, nr)));
    put_jump(&writer, 0);
    put(&writer, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 1, 0));
    put(&writer, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                              (uint32_t)offsetof(struct seccomp_data, arch)));
    const struct sock_filter *code = (const void *)writer.code.data;
    for (uint32_t i = writer.count; i-- > 0;)
        buffer_append(out, &code[i], sizeof(code[i]));
    buffer_finish(&writer.code);
}

void filter_plain_append(const struct filter_calls *calls, struct buffer *out)
{
    size_t room = calls->numbers ? calls->token_count * calls->count : 0;
    _cleanup_free_ struct place *places = xnew_array(struct place, room + 1);
    _cleanup_free_ struct range *ranges = xnew_array(struct range, 2 * room + 1);

    for (size_t token = 0; room && token < calls->token_count; token++) {
        uint32_t architecture = kernel_architecture(calls->tokens[token]);
        bool done = false;
        size_t count = 0;
        for (size_t k = 0; k < calls->token_count; k++) {
            if (kernel_architecture(calls->tokens[k]) != architecture)
                continue;
            done = done || k < token;
            count += list_places(calls, k, true, places + count);
        }
        if (done || !count)
            continue;
        qsort(places, count, sizeof(*places), compare_places);
        append_architecture(architecture, ranges, make_ranges(places, count, ranges), out);
    }
}
