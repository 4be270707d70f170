/* What is not needed any more, as a unit is told: by which command, its bytes, in pieces of what
 * the unit takes (page B0), and units that refuse. */
#include "../usb/rig.h"

#include <errno.h>
#include <string.h>

enum { AT = 0x123, COUNT = 0x45 };

static struct rig *start(enum stick_provisioning provisioning, uint32_t most, const char *faults)
{
    struct stick_options options = {
        .sectors = SECTORS,
        .provisioning = provisioning,
        .unmap_most = most,
        .same_most = most,
    };
    struct rig *rig = rig_start_ready(&options, faults);
    rig_disk(rig, 0);
    memset(stick_disk(rig->model), 0xA5, SECTORS * 512);
    return rig;
}

static void unmap_says_it_in_a_list(void **state)
{
    static const uint8_t cdb[16] = {0x42, 0, 0, 0, 0, 0, 0, 0, 24};
    static const uint8_t list[24] = {0, 22, 0, 16, 0, 0,    0, 0, 0, 0,
                                     0, 0,  0, 0,  1, 0x23, 0, 0, 0, 0x45};
    static const enum stick_provisioning kinds[] = {STICK_UNMAP, STICK_UNMAP_AND_WS16};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = start(kinds[i], 0, "");
        assert_true(rig_disk(rig, 0)->discards);
        assert_int_equal(block_discard(rig_disk(rig, 0), AT, COUNT, NULL), 0);
        assert_int_equal(stick_counts(rig->model).discards, 1);
        assert_memory_equal(stick_discards(rig->model)->cdb, cdb, sizeof(cdb));
        assert_memory_equal(stick_discards(rig->model)->list, list, sizeof(list));
        const uint8_t *disk = stick_disk(rig->model);
        assert_true(disk[AT * 512 - 1] == 0xA5 && disk[AT * 512] == 0);
        assert_true(disk[(AT + COUNT) * 512 - 1] == 0 && disk[(AT + COUNT) * 512] == 0xA5);
        rig_finish(rig);
    }
}

static void write_same_says_it_in_its_command(void **state)
{
    static const uint8_t cdb[16] = {0x93, 8, 0, 0, 0, 0, 0, 0, 1, 0x23, 0, 0, 0, 0x45};
    static const uint8_t zeros[24] = {0};
    struct rig *rig = start(STICK_WS16, 0, "");
    assert_true(rig_disk(rig, 0)->discards);
    assert_int_equal(block_discard(rig_disk(rig, 0), AT, COUNT, NULL), 0);
    assert_int_equal(stick_counts(rig->model).discards, 1);
    assert_memory_equal(stick_discards(rig->model)->cdb, cdb, sizeof(cdb));
    assert_memory_equal(stick_discards(rig->model)->list, zeros, sizeof(zeros));
    assert_int_equal(stick_disk(rig->model)[AT * 512], 0);
    rig_finish(rig);
}

/* The model refuses what is more than it said. */
static void no_command_is_about_more_than_the_unit_takes(void **state)
{
    enum { MOST = 128, MANY = 500 };
    static const enum stick_provisioning kinds[] = {STICK_UNMAP, STICK_WS16};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = start(kinds[i], MOST, "");
        assert_int_equal(block_discard(rig_disk(rig, 0), AT, MANY, NULL), 0);
        assert_int_equal(stick_counts(rig->model).discards, (MANY + MOST - 1) / MOST);
        const struct stick_discard *said = stick_discards(rig->model);
        unsigned place = kinds[i] == STICK_UNMAP ? 19 : 13;
        const uint8_t *last = kinds[i] == STICK_UNMAP ? said[3].list : said[3].cdb;
        assert_int_equal(last[place], MANY % MOST);
        const uint8_t *disk = stick_disk(rig->model);
        for (unsigned at = AT; at < AT + MANY; at++)
            assert_int_equal(disk[at * 512], 0);
        assert_true(disk[AT * 512 - 1] == 0xA5 && disk[(AT + MANY) * 512] == 0xA5);
        rig_finish(rig);
    }
}

/* Discarding by such would take for ever. */
static void who_takes_next_to_nothing_is_asked_for_none(void **state)
{
    static const enum stick_provisioning kinds[] = {STICK_UNMAP, STICK_WS16};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = start(kinds[i], 127, "");
        assert_int_equal(block_discard(rig_disk(rig, 0), AT, COUNT, NULL), -EOPNOTSUPP);
        assert_int_equal(stick_counts(rig->model).discards, 0);
        rig_finish(rig);
    }
}

static void who_takes_none_is_asked_for_none(void **state)
{
    struct rig *rig = start(STICK_UNPROVISIONED, 0, "");
    assert_false(rig_disk(rig, 0)->discards);
    assert_int_equal(block_discard(rig_disk(rig, 0), AT, COUNT, NULL), -EOPNOTSUPP);
    assert_int_equal(stick_counts(rig->model).discards, 0);
    rig_finish(rig);
}

static void a_refusal_is_no_error_of_the_unit(void **state)
{
    uint8_t data[512];
    struct rig *rig = start(STICK_UNMAP, 0, "discard-refused");
    assert_true(rig_disk(rig, 0)->discards);
    assert_int_equal(block_discard(rig_disk(rig, 0), AT, COUNT, NULL), -EOPNOTSUPP);
    assert_int_equal(block_read(rig_disk(rig, 0), AT, 1, data, NULL), 0);
    assert_int_equal(data[0], 0xA5);
    assert_int_equal(block_write(rig_disk(rig, 0), AT, 1, data, NULL), 0);
    assert_int_equal(block_flush(rig_disk(rig, 0), NULL), 0);
    assert_int_equal(stick_counts(rig->model).port_resets, 0);
    rig_finish(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unmap_says_it_in_a_list),
        cmocka_unit_test(write_same_says_it_in_its_command),
        cmocka_unit_test(no_command_is_about_more_than_the_unit_takes),
        cmocka_unit_test(who_takes_next_to_nothing_is_asked_for_none),
        cmocka_unit_test(who_takes_none_is_asked_for_none),
        cmocka_unit_test(a_refusal_is_no_error_of_the_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
