/*
 * usb attach, usb detach, usb eject.
 */
#include <stdio.h>

#include <schema/management.h>

#include "cli.h"
#include "progress.h"
#include "usb.h"

static int attach_one(struct cli *cli, const char *reference, const void *values, struct error *err)
{
    _cleanup_api_usb_stick_ struct api_usb_stick *stick = NULL;
    const struct api_usb_attach params = {.stick = (char *)(uintptr_t)reference};
    struct progress progress;

    int r = cli_connect(cli, err);
    if (r < 0)
        return r;
    progress_start(&progress, "Attaching", -1, false);
    r = cli_call_with_fd(cli, "usb.attach", &params, &stick, -1, progress_tick, &progress, err);
    progress_end(&progress);
    if (r >= 0)
        printf("%s\n", stick->id);
    return r;
}

static int run_attach(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, attach_one, false);
}

const struct command usb_attach_command = {
    .name = "attach",
    .usage = "STICK|usbip://HOST[:PORT]/BUSID [...]",
    .summary = "Serve a stick, also one of another machine",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_STICKS,
    .run = run_attach,
};

static int let_go(struct cli *cli, const char *method, const char *reference, struct error *err)
{
    const struct api_usb_ref params = {.stick = (char *)(uintptr_t)reference};
    struct progress progress;

    int r = cli_connect(cli, err);
    if (r < 0)
        return r;
    progress_start(&progress, "Writing what is left", -1, false);
    r = cli_call_with_fd(cli, method, &params, NULL, -1, progress_tick, &progress, err);
    progress_end(&progress);
    return r;
}

static int detach_one(struct cli *cli, const char *reference, const void *values, struct error *err)
{
    return let_go(cli, "usb.detach", reference, err);
}

static int run_detach(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, detach_one, true);
}

const struct command usb_detach_command = {
    .name = "detach",
    .usage = "STICK [STICK...]",
    .summary = "Unmount sticks everywhere and let go of them",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_STICKS,
    .run = run_detach,
};

static int eject_one(struct cli *cli, const char *reference, const void *values, struct error *err)
{
    return let_go(cli, "usb.eject", reference, err);
}

static int run_eject(struct cli *cli, const void *values, char *const *operands)
{
    return cli_for_each(cli, operands, values, eject_one, true);
}

const struct command usb_eject_command = {
    .name = "eject",
    .usage = "STICK [STICK...]",
    .summary = "Unmount sticks everywhere, so that they can be pulled out",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_STICKS,
    .run = run_eject,
};
