#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include <base/alloc.h>
#include <base/text.h>

#include "names.h"

static const char *const adjectives[] = {
    "able",     "amber",  "ample",  "airy",   "azure",   "bold",    "brave",  "bright",  "brisk",
    "calm",     "candid", "clear",  "clever", "copper",  "cordial", "crisp",  "curious", "dapper",
    "daring",   "deft",   "dewy",   "eager",  "early",   "earnest", "easy",   "fair",    "fleet",
    "fluent",   "frank",  "fresh",  "gentle", "gilded",  "glad",    "golden", "grand",   "green",
    "hale",     "handy",  "hardy",  "hearty", "honest",  "humble",  "ivory",  "jolly",   "jovial",
    "keen",     "kind",   "lively", "lucid",  "lunar",   "mellow",  "merry",  "mild",    "misty",
    "modest",   "neat",   "nimble", "noble",  "opal",    "patient", "placid", "plucky",  "polite",
    "proud",    "quick",  "quiet",  "rapid",  "ready",   "robust",  "rosy",   "round",   "rustic",
    "sandy",    "serene", "sharp",  "silent", "silver",  "sincere", "sleek",  "smooth",  "snug",
    "solar",    "sound",  "spry",   "steady", "stout",   "sunny",   "supple", "swift",   "tidy",
    "tranquil", "trim",   "trusty", "upbeat", "verdant", "vivid",   "warm",   "wise",    "witty",
    "zesty",
};

static const char *const nouns[] = {
    "acorn",    "alder",   "aspen",    "badger",     "basil",    "beech",    "birch",    "bluebell",
    "bramble",  "briar",   "cedar",    "cherry",     "clover",   "condor",   "crane",    "crocus",
    "cypress",  "dahlia",  "daisy",    "dove",       "elder",    "elm",      "falcon",   "fennel",
    "fern",     "finch",   "foxglove", "gannet",     "gecko",    "ginkgo",   "hazel",    "heather",
    "hedgehog", "heron",   "holly",    "hornbeam",   "ibis",     "iris",     "ivy",      "jackdaw",
    "jasmine",  "juniper", "kestrel",  "kingfisher", "larch",    "lark",     "laurel",   "lavender",
    "lilac",    "linden",  "linnet",   "lotus",      "lynx",     "magnolia", "magpie",   "maple",
    "marigold", "marten",  "mimosa",   "mint",       "moss",     "myrtle",   "nettle",   "newt",
    "oak",      "olive",   "orchid",   "oriole",     "osprey",   "otter",    "owl",      "pansy",
    "peony",    "petrel",  "pine",     "plover",     "poplar",   "poppy",    "primrose", "quail",
    "quince",   "raven",   "reed",     "robin",      "rosemary", "rowan",    "saffron",  "sage",
    "sparrow",  "spruce",  "starling", "swallow",    "tansy",    "teal",     "thistle",  "thyme",
    "tulip",    "violet",  "willow",   "wren",
};

int name_check(const char *name, struct error *err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    static const char all[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t length = strlen(name);

    if (length < 2 || length > CONTAINER_NAME_MAX || !strchr(letters, name[0]) ||
        strspn(name, all) != length)
        return error_set(err, -EINVAL,
                         "invalid container name (%.*s): a letter or digit, then letters, digits, "
                         "'_', '.' and '-', 2 to %d characters",
                         CONTAINER_NAME_MAX, name, CONTAINER_NAME_MAX);
    return 0;
}

static uint32_t random_below(uint32_t limit)
{
    uint32_t value = 0;

    /* The bias of the remainder does not matter for a name. */
    if (getrandom(&value, sizeof(value), 0) != (ssize_t)sizeof(value))
        value = 0;
    return value % limit;
}

char *name_invent(unsigned attempt)
{
    const char *adjective = adjectives[random_below(ARRAY_SIZE(adjectives))];
    const char *noun = nouns[random_below(ARRAY_SIZE(nouns))];
    uint32_t range = 10;

    if (attempt == 0)
        return xasprintf("%s_%s", adjective, noun);
    for (unsigned i = 1; i < attempt && i < 8; i++)
        range *= 10;
    return xasprintf("%s_%s%u", adjective, noun, random_below(range));
}

int hostname_check(const char *name, struct error *err)
{
    static const char all[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    size_t length = strlen(name);

    if (length < 1 || length > 63 || strspn(name, all) != length || strchr(".-", name[0]))
        return error_set(err, -EINVAL,
                         "invalid hostname (%.64s): 1 to 63 letters, digits, '.', "
                         "'_' and '-'",
                         name);
    return 0;
}
