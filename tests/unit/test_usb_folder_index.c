/* src/usb/files: the index of a folder, beside models of what it holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "folder_index.h"
#include "name_hash.h"

enum { MANY = 100000, BITS = 5000 };

struct name {
    uint16_t units[FOLDER_INDEX_UNITS];
    unsigned length;
};

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Different numbers, different names; of all lengths up to 40. */
static struct name name_of(uint32_t number)
{
    struct name name = {.length = 2 + number % 39};
    for (unsigned i = 0; i < name.length; i++)
        name.units[i] = (uint16_t)('A' + i);
    name.units[0] = (uint16_t)number;
    name.units[name.length - 1] = (uint16_t)(number >> 16);
    return name;
}

static void add(struct folder_index *index, const struct name *name, uint32_t position)
{
    folder_index_add(index, name->units, name->length, position);
}

static void take_out(struct folder_index *index, const struct name *name, uint32_t position)
{
    folder_index_remove(index, name->units, name->length, position);
}

/* How many positions a name leads to, and whether this one is among them. */
static unsigned look(const struct folder_index *index, const struct name *name, uint32_t position,
                     bool *ret_found)
{
    struct folder_index_search search;
    unsigned count = 0;
    *ret_found = false;
    for (uint32_t at = folder_index_first(index, name->units, name->length, &search);
         at != FOLDER_INDEX_NONE; at = folder_index_next(&search), count++)
        *ret_found = *ret_found || at == position;
    return count;
}

static bool leads_to(const struct folder_index *index, uint32_t number, uint32_t position)
{
    struct name name = name_of(number);
    bool found;
    look(index, &name, position, &found);
    return found;
}

static void names_are_found_until_they_are_removed(void **state)
{
    struct folder_index *index = folder_index_create();
    bool *there = xnew_array(bool, MANY), found;
    uint32_t random = 1;
    unsigned others = 0;
    for (uint32_t i = 0; i < 4 * MANY; i++) {
        uint32_t number = next_random(&random) % MANY;
        struct name name = name_of(number);
        assert_int_equal(leads_to(index, number, number * 3), there[number]);
        if (there[number])
            take_out(index, &name, number * 3);
        else
            add(index, &name, number * 3);
        there[number] = !there[number];
    }
    for (uint32_t number = 0; number < MANY; number++) {
        struct name name = name_of(number);
        others += look(index, &name, number * 3, &found) - found;
        assert_int_equal(found, there[number]);
        take_out(index, &name, number * 3);
        take_out(index, &name, number * 3);
        assert_false(leads_to(index, number, number * 3));
    }
    assert_in_range(others, 0, 50); /* by chance: 1 or so */
    free(there);
    folder_index_free(index);
}

static void an_entry_of_two_names_is_found_by_both(void **state)
{
    struct folder_index *index = folder_index_create();
    struct name one = name_of(1), two = name_of(2), empty = {.length = 0};
    add(index, &one, 7);
    add(index, &two, 7);
    add(index, &empty, 7);
    take_out(index, &one, 7);
    assert_false(leads_to(index, 1, 7));
    assert_true(leads_to(index, 2, 7));
    take_out(index, &two, 8);
    assert_true(leads_to(index, 2, 7));
    folder_index_free(index);
}

/* A name's units by bytes that are not all of one length: what ends is not what goes on by zeros.
 */
static void names_of_other_lengths_are_others(void **state)
{
    struct folder_index *index = folder_index_create();
    struct name name = {.length = 0};
    bool found;
    for (unsigned length = 0; length <= FOLDER_INDEX_UNITS; length++) {
        name.length = length;
        add(index, &name, length);
    }
    for (unsigned length = 0; length <= FOLDER_INDEX_UNITS; length++) {
        name.length = length;
        assert_int_equal(look(index, &name, length, &found), 1);
        assert_true(found);
    }
    folder_index_free(index);
}

/* The first of the vectors that are published for SipHash-1-3: of nothing. */
static void the_hash_is_the_one_it_is_meant_to_be(void **state)
{
    struct name_key key = {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};
    assert_int_equal(name_hash(&key, NULL, 0), UINT64_C(0xabac0158050fc4dc));
}

/* Steps of a hash that is known, FNV-1a: what can be found for any that is. */
static uint32_t known_hash(uint32_t hash, uint16_t unit)
{
    return (hash ^ unit) * 16777619;
}

/* Two pairs of units that lead from this state to the same one. */
static uint32_t find_pairs(uint32_t hash, uint16_t ret[2][2])
{
    static uint16_t seen[1 << 16];
    memset(seen, 0, sizeof(seen));
    for (uint16_t unit = 1;; unit++) {
        uint32_t next = known_hash(hash, unit);
        uint16_t other = seen[next >> 16];
        seen[next >> 16] = unit;
        if (!other)
            continue;
        ret[0][0] = unit;
        ret[0][1] = 'A';
        ret[1][0] = other;
        ret[1][1] = (uint16_t)('A' ^ next ^ known_hash(hash, other));
        return known_hash(next, 'A');
    }
}

static void names_that_share_a_known_hash_are_found_at_once(void **state)
{
    enum { PAIRS = 13, NAMES = 1 << PAIRS };
    struct folder_index *index = folder_index_create();
    uint16_t pairs[PAIRS][2][2];
    uint32_t hash = 2166136261, same = 0;
    unsigned positions = 0;
    bool found;
    for (unsigned i = 0; i < PAIRS; i++)
        hash = find_pairs(hash, pairs[i]);
    for (int looks = 0; looks < 2; looks++) {
        for (uint32_t i = 0; i < NAMES; i++) {
            struct name name = {.length = PAIRS * 2};
            uint32_t known = 2166136261;
            for (unsigned pair = 0; pair < PAIRS; pair++)
                memcpy(name.units + (size_t)pair * 2, pairs[pair][i >> pair & 1], 4);
            for (unsigned at = 0; at < name.length; at++)
                known = known_hash(known, name.units[at]);
            same += known == hash;
            if (looks)
                positions += look(index, &name, i, &found);
            else
                add(index, &name, i);
        }
    }
    assert_int_equal(same, 2 * NAMES); /* the names are what they are meant to be */
    assert_in_range(positions, NAMES, NAMES + 50);
    folder_index_free(index);
}

/* What shares a hash in one index does not in another. */
static void each_index_has_a_hash_of_its_own(void **state)
{
    enum { NAMES = 400000 };
    struct folder_index *index = folder_index_create(), *other = folder_index_create();
    unsigned shared = 0, again = 0;
    bool found;
    for (uint32_t i = 0; i < NAMES; i++) {
        struct name name = name_of(i);
        add(index, &name, i);
        add(other, &name, i);
    }
    for (uint32_t i = 0; i < NAMES; i++) {
        struct name name = name_of(i);
        if (look(index, &name, i, &found) == 1)
            continue;
        shared++;
        again += look(other, &name, i, &found) > 1;
    }
    assert_in_range(shared, 2, 200); /* 37 are to be expected */
    assert_in_range(again, 0, 1);
    folder_index_free(index);
    folder_index_free(other);
}

static void those_of_one_name_come_in_their_order(void **state)
{
    struct folder_index *index = folder_index_create();
    struct name name = name_of(1);
    struct folder_index_search search;
    bool found;
    for (uint32_t i = 0; i < MANY; i++) {
        struct name between = name_of(i + 2);
        add(index, &name, i);
        add(index, &between, i);
    }
    for (uint32_t i = 0; i < MANY / 2; i++) {
        assert_int_equal(folder_index_first(index, name.units, name.length, &search), i);
        take_out(index, &name, i);
    }
    for (uint32_t i = MANY / 2; i < MANY / 2 + 10; i++)
        take_out(index, &name, MANY - 1 - (i - MANY / 2)); /* the last ones */
    take_out(index, &name, MANY / 2 + 5);
    assert_in_range(look(index, &name, MANY / 2 + 5, &found), MANY / 2 - 11, MANY / 2 - 10);
    assert_false(found);
    add(index, &name, MANY);
    uint32_t at = folder_index_first(index, name.units, name.length, &search), last = at;
    assert_int_equal(at, MANY / 2);
    for (; at != FOLDER_INDEX_NONE; at = folder_index_next(&search)) {
        assert_true(at >= last);
        last = at;
    }
    assert_int_equal(last, MANY);
    for (uint32_t i = 0; i < MANY; i++)
        assert_true(leads_to(index, i + 2, i));
    folder_index_free(index);
}

static void memory_is_that_of_the_most_there_were(void **state)
{
    struct folder_index *index = folder_index_create();
    size_t empty = folder_index_size(index), full = 0;
    assert_int_equal(folder_index_size(NULL), 0);
    assert_in_range(empty, 64, 1024);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < MANY; i++) {
            struct name name = name_of(round * MANY + i);
            add(index, &name, i * 3);
            folder_index_use(index, i * 3, 3, true);
        }
        if (round == 0)
            full = folder_index_size(index);
        assert_in_range(full, 20 * MANY, empty + 40 * MANY + 2 * 3 * MANY / 8);
        assert_int_equal(folder_index_size(index), full);
        for (uint32_t i = 0; i < MANY; i++) {
            struct name name = name_of(round * MANY + i);
            take_out(index, &name, i * 3);
            folder_index_use(index, i * 3, 3, false);
        }
    }
    folder_index_free(index);
}

/* Room. */

static uint32_t room_of(const bool *used, uint32_t count)
{
    uint32_t run = 0, at = 0;
    for (; run < count; at++)
        run = used[at] ? 0 : run + 1;
    return at - run;
}

static void room_is_the_first_there_is(void **state)
{
    struct folder_index *index = folder_index_create();
    static bool used[2 * BITS], beside[2 * BITS];
    uint32_t random = 5, end = 0;
    assert_int_equal(folder_index_room(index, 3, 0, 0), 0);
    assert_int_equal(folder_index_room(index, 3, 0, 2), 2);
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t count = 1 + next_random(&random) % 40, at = next_random(&random) % BITS;
        uint32_t taken = next_random(&random) % BITS, of_taken = next_random(&random) % 20;
        if (next_random(&random) % 3 > 0) {
            at = folder_index_room(index, count, 0, 0);
            assert_int_equal(at, room_of(used, count));
        }
        for (uint32_t free = 0; free < of_taken; free++)
            if (used[taken + free])
                of_taken = free;
        memcpy(beside, used, sizeof(used));
        memset(beside + taken, true, of_taken);
        assert_int_equal(folder_index_room(index, count, taken, of_taken), room_of(beside, count));
        assert_int_equal(folder_index_end(index), end);
        bool use = next_random(&random) % 100 < 60 && at + count < BITS;
        if (!use)
            at = next_random(&random) % BITS;
        for (uint32_t entry = at; entry < at + count; entry++)
            if (use != used[entry] || !use)
                folder_index_use(index, entry, 1, use);
        memset(used + at, use, count);
        end = at + count > end ? at + count : end;
        assert_int_equal(folder_index_end(index), end);
    }
    folder_index_free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_until_they_are_removed),
        cmocka_unit_test(an_entry_of_two_names_is_found_by_both),
        cmocka_unit_test(names_of_other_lengths_are_others),
        cmocka_unit_test(the_hash_is_the_one_it_is_meant_to_be),
        cmocka_unit_test(names_that_share_a_known_hash_are_found_at_once),
        cmocka_unit_test(each_index_has_a_hash_of_its_own),
        cmocka_unit_test(those_of_one_name_come_in_their_order),
        cmocka_unit_test(memory_is_that_of_the_most_there_were),
        cmocka_unit_test(room_is_the_first_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
