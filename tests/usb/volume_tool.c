/* Volumes in files: volume-tool --help. What the integration tests drive. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/crc32c.h>
#include <block/file.h>
#include <files/tools.h>

#include "slow.h"

static const char usage[] =
    "usage: volume-tool [OPTION...] IMAGE COMMAND [ARGUMENT...]\n"
    "       volume-tool [OPTION...] IMAGE -    (commands by lines of stdin, words parted by tabs)\n"
    "  --sector-size N   512 to 4096\n"
    "  --read-only       mounts and opens it so\n"
    "  --codepage NAME   of short names\n"
    "  --minutes-east N  of local times\n"
    "  --delay N         microseconds that every request takes\n"
    "  --abandon         ends without unmounting, as if the program was killed\n"
    "COMMAND:\n"
    "  format KIND [label=TEXT] [cluster=BYTES] [id=NUMBER] [hidden=SECTORS]\n"
    "  check, repair     findings, one a line; then how many are left\n"
    "  facts             of the volume\n"
    "  ls [FOLDER]       everything below it: type, size, CRC-32C, attributes, modified, path\n"
    "  names FOLDER      how many entries it has\n"
    "  cat PATH, get PATH FILE, put FILE PATH, append FILE PATH\n"
    "  fill PATH SIZE    content of zeros\n"
    "  read PATH SIZE    from its beginning on, in pieces of SIZE bytes: how many were read\n"
    "  seek PATH SIZE N  N pieces of SIZE bytes anywhere\n"
    "  mkdir PATH, rm PATH, rmdir PATH, mv FROM TO, replace FROM TO\n"
    "  truncate PATH SIZE\n"
    "  attributes PATH [r][h][s][a]\n"
    "  times PATH SECONDS\n"
    "  label TEXT\n"
    "  many FOLDER N [PREFIX], clear FOLDER\n"
    "  sync, tick MILLISECONDS\n";

enum { PIECE = 1 << 20, WORDS = 8, LINE = 8192 };

static struct {
    unsigned sector_size;
    bool read_only, abandon;
    struct volume_options volume;
    unsigned delay;
} options = {.sector_size = 512};

static struct block_device *device;
static struct medium *medium;
static struct volume *volume;

#define OPS (volume->ops)

/* Names. */

static int look(const char *path, size_t length, struct node **ret, struct error *err)
{
    struct node *node = OPS->root(volume);
    const char *end = path + length;
    while (path < end) {
        char name[VOLUME_NAME_MAX + 1];
        size_t part = strcspn(path, "/");
        if (part > (size_t)(end - path))
            part = (size_t)(end - path);
        if (part > VOLUME_NAME_MAX)
            part = VOLUME_NAME_MAX;
        memcpy(name, path, part);
        name[part] = '\0';
        path += part + (path[part] == '/');
        if (part == 0)
            continue;
        struct node *next;
        int r = OPS->lookup(volume, node, name, &next, err);
        OPS->node_drop(volume, node, 1);
        if (r != 0)
            return r;
        node = next;
    }
    *ret = node;
    return 0;
}

static int find(const char *path, struct node **ret, struct error *err)
{
    return look(path, strlen(path), ret, err);
}

/* The folder of a path, and the name in it. */
static int find_parent(const char *path, struct node **ret, const char **ret_name,
                       struct error *err)
{
    const char *slash = strrchr(path, '/');
    *ret_name = slash ? slash + 1 : path;
    return look(path, slash ? (size_t)(slash - path) : 0, ret, err);
}

static int create(const char *path, enum node_type type, struct node **ret, struct error *err)
{
    struct node *folder, *node;
    const char *name;
    int r = find_parent(path, &folder, &name, err);
    if (r != 0)
        return r;
    r = OPS->create(volume, folder, name, type, &node, err);
    OPS->node_drop(volume, folder, 1);
    if (r == 0 && ret)
        *ret = node;
    else if (r == 0)
        OPS->node_drop(volume, node, 1);
    return r;
}

/* Listing. */

struct listing {
    char **names;
    size_t count, room;
};

static bool take(const char *name, uint64_t number, enum node_type type, uint64_t cookie,
                 void *data)
{
    struct listing *listing = data;
    (void)number, (void)type, (void)cookie;
    if (listing->count == listing->room) {
        listing->room = listing->room ? listing->room * 2 : 64;
        listing->names = xrealloc(listing->names, listing->room, sizeof(char *));
    }
    listing->names[listing->count++] = xstrdup(name);
    return true;
}

static void listing_finish(struct listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->names[i]);
    free(listing->names);
}

static int sum(struct node *file, uint32_t *ret_sum, struct error *err)
{
    uint8_t *data = medium_buffer(medium, PIECE);
    int64_t got = 0;
    *ret_sum = 0;
    for (uint64_t at = 0; (got = volume_read(volume, file, at, data, PIECE, err)) > 0;
         at += (uint64_t)got)
        *ret_sum = crc32c(*ret_sum, data, (size_t)got);
    medium_buffer_free(medium, data, PIECE);
    return (int)got;
}

static int list(const char *path, struct node *folder, struct error *err);

static int list_one(const char *path, struct node *node, struct error *err)
{
    struct node_facts facts;
    uint32_t of_content = 0;
    int r = OPS->node_facts(volume, node, &facts, err);
    bool file = r == 0 && facts.type == NODE_FILE;
    if (file)
        r = sum(node, &of_content, err);
    if (r != 0)
        return r;
    printf("%c %llu %08x %c%c%c%c %lld %s\n", file ? 'f' : 'd',
           file ? (unsigned long long)facts.size : 0, of_content, facts.read_only ? 'r' : '-',
           facts.hidden ? 'h' : '-', facts.system ? 's' : '-', facts.archive ? 'a' : '-',
           (long long)(facts.modified / CLOCK_SECOND), path);
    return file ? 0 : list(path, node, err);
}

static int list(const char *path, struct node *folder, struct error *err)
{
    struct listing listing = {0};
    int r = OPS->read_folder(volume, folder, 0, take, &listing, err);
    for (size_t i = 0; r == 0 && i < listing.count; i++) {
        struct node *node;
        _cleanup_free_ char *child = xasprintf("%s/%s", path, listing.names[i]);
        r = OPS->lookup(volume, folder, listing.names[i], &node, err);
        if (r == 0) {
            r = list_one(child, node, err);
            OPS->node_drop(volume, node, 1);
        }
    }
    listing_finish(&listing);
    return r;
}

/* Commands: words[0] is its name. */

static int do_ls(char **words, struct error *err)
{
    struct node *node;
    const char *path = words[1] ? words[1] : "";
    int r = find(path, &node, err);
    if (r == 0) {
        r = list(path, node, err);
        OPS->node_drop(volume, node, 1);
    }
    return r;
}

static int do_names(char **words, struct error *err)
{
    struct node *node;
    struct listing listing = {0};
    int r = find(words[1], &node, err);
    if (r == 0) {
        r = OPS->read_folder(volume, node, 0, take, &listing, err);
        printf("%zu\n", listing.count);
        listing_finish(&listing);
        OPS->node_drop(volume, node, 1);
    }
    return r;
}

static int do_facts(char **words, struct error *err)
{
    struct volume_facts facts;
    (void)words;
    int r = OPS->facts(volume, &facts, err);
    if (r == 0)
        printf("kind %s\nlabel %s\nid %08llx\ncluster %u\nclusters %llu\nfree %llu\ndirty %d\n",
               volume_kind_name(facts.kind), facts.label, (unsigned long long)facts.id,
               facts.cluster_size, (unsigned long long)facts.clusters,
               (unsigned long long)facts.clusters_free, facts.dirty);
    return r;
}

static int copy_out(const char *path, FILE *to, struct error *err)
{
    struct node *node;
    int64_t got = 0;
    int r = find(path, &node, err);
    if (r != 0)
        return r;
    uint8_t *data = medium_buffer(medium, PIECE);
    for (uint64_t at = 0; (got = volume_read(volume, node, at, data, PIECE, err)) > 0;
         at += (uint64_t)got)
        fwrite(data, 1, (size_t)got, to);
    medium_buffer_free(medium, data, PIECE);
    OPS->node_drop(volume, node, 1);
    return (int)got;
}

static int do_cat(char **words, struct error *err)
{
    return copy_out(words[1], stdout, err);
}

static int do_get(char **words, struct error *err)
{
    FILE *to = fopen(words[2], "wb");
    if (!to)
        return error_errno(err, errno, "open %s", words[2]);
    int r = copy_out(words[1], to, err);
    fclose(to);
    return r;
}

static int copy_in(const char *from, struct node *node, uint64_t at, struct error *err)
{
    FILE *file = fopen(from, "rb");
    uint8_t *data = medium_buffer(medium, PIECE);
    size_t size;
    int64_t wrote = file ? 0 : error_errno(err, errno, "open %s", from);
    while (wrote >= 0 && (size = fread(data, 1, PIECE, file)) > 0) {
        wrote = volume_write(volume, node, at, data, size, err);
        at += size;
    }
    medium_buffer_free(medium, data, PIECE);
    if (file)
        fclose(file);
    return wrote < 0 ? (int)wrote : 0;
}

static int do_put(char **words, struct error *err)
{
    struct node *node;
    int r = create(words[2], NODE_FILE, &node, err);
    if (r == 0) {
        r = copy_in(words[1], node, 0, err);
        OPS->node_drop(volume, node, 1);
    }
    return r;
}

static int do_append(char **words, struct error *err)
{
    struct node *node;
    struct node_facts facts;
    int r = find(words[2], &node, err);
    if (r != 0)
        return r;
    r = OPS->node_facts(volume, node, &facts, err);
    if (r == 0)
        r = copy_in(words[1], node, facts.size, err);
    OPS->node_drop(volume, node, 1);
    return r;
}

static int set(const char *path, unsigned changes, const struct node_facts *facts,
               struct error *err)
{
    struct node *node;
    int r = find(path, &node, err);
    if (r == 0) {
        r = OPS->node_set(volume, node, changes, facts, err);
        OPS->node_drop(volume, node, 1);
    }
    return r;
}

static int do_truncate(char **words, struct error *err)
{
    struct node_facts facts = {.size = strtoull(words[2], NULL, 0)};
    return set(words[1], NODE_SIZE, &facts, err);
}

static int do_fill(char **words, struct error *err)
{
    int r = create(words[1], NODE_FILE, NULL, err);
    return r == 0 ? do_truncate(words, err) : r;
}

static int do_attributes(char **words, struct error *err)
{
    const char *letters = words[2] ? words[2] : "";
    struct node_facts facts = {
        .read_only = strchr(letters, 'r'),
        .hidden = strchr(letters, 'h'),
        .system = strchr(letters, 's'),
        .archive = strchr(letters, 'a'),
    };
    return set(words[1], NODE_ATTRIBUTES, &facts, err);
}

static int do_times(char **words, struct error *err)
{
    struct node_facts facts = {.modified = strtoll(words[2], NULL, 0) * CLOCK_SECOND};
    return set(words[1], NODE_MODIFIED, &facts, err);
}

/* Pieces one after the other, or anywhere. */
static int read_pieces(const char *path, size_t size, unsigned anywhere, struct error *err)
{
    struct node *node;
    struct node_facts facts;
    int64_t got = 1;
    uint64_t at = 0, all = 0;
    int r = find(path, &node, err);
    if (r != 0)
        return r;
    r = OPS->node_facts(volume, node, &facts, err);
    uint8_t *data = medium_buffer(medium, size);
    int64_t started = clock_milliseconds();
    for (unsigned i = 0; r == 0 && got > 0 && (!anywhere || i < anywhere); i++) {
        if (anywhere)
            at = (uint64_t)rand() * 4096 % facts.size;
        got = volume_read(volume, node, at, data, size, err);
        at += got > 0 ? (uint64_t)got : 0;
        all += got > 0 ? (uint64_t)got : 0;
    }
    printf("%llu bytes, %lld ms\n", (unsigned long long)all,
           (long long)(clock_milliseconds() - started));
    medium_buffer_free(medium, data, size);
    OPS->node_drop(volume, node, 1);
    return got < 0 ? (int)got : r;
}

static int do_read(char **words, struct error *err)
{
    return read_pieces(words[1], strtoull(words[2], NULL, 0), 0, err);
}

static int do_seek(char **words, struct error *err)
{
    return read_pieces(words[1], strtoull(words[2], NULL, 0), (unsigned)atoi(words[3]), err);
}

static int do_mkdir(char **words, struct error *err)
{
    return create(words[1], NODE_FOLDER, NULL, err);
}

static int take_away(const char *path, enum node_type type, struct error *err)
{
    struct node *folder;
    const char *name;
    int r = find_parent(path, &folder, &name, err);
    if (r == 0) {
        r = OPS->remove(volume, folder, name, type, err);
        OPS->node_drop(volume, folder, 1);
    }
    return r;
}

static int do_rm(char **words, struct error *err)
{
    return take_away(words[1], NODE_FILE, err);
}

static int do_rmdir(char **words, struct error *err)
{
    return take_away(words[1], NODE_FOLDER, err);
}

static int move(const char *from, const char *to, bool replace, struct error *err)
{
    struct node *folder, *new_folder;
    const char *name, *new_name;
    int r = find_parent(from, &folder, &name, err);
    if (r != 0)
        return r;
    r = find_parent(to, &new_folder, &new_name, err);
    if (r == 0) {
        r = OPS->rename(volume, folder, name, new_folder, new_name, replace, err);
        OPS->node_drop(volume, new_folder, 1);
    }
    OPS->node_drop(volume, folder, 1);
    return r;
}

static int do_mv(char **words, struct error *err)
{
    return move(words[1], words[2], false, err);
}

static int do_replace(char **words, struct error *err)
{
    return move(words[1], words[2], true, err);
}

static int do_label(char **words, struct error *err)
{
    return OPS->set_label(volume, words[1] ? words[1] : "", err);
}

static int do_many(char **words, struct error *err)
{
    struct node *folder, *node;
    const char *prefix = words[3] ? words[3] : "a file of many ";
    int r = find(words[1], &folder, err);
    if (r != 0)
        return r;
    for (int i = 0, count = atoi(words[2]); r == 0 && i < count; i++) {
        char name[VOLUME_NAME_MAX + 1];
        snprintf(name, sizeof(name), "%s%d", prefix, i);
        r = OPS->create(volume, folder, name, NODE_FILE, &node, err);
        if (r == 0)
            OPS->node_drop(volume, node, 1);
    }
    OPS->node_drop(volume, folder, 1);
    return r;
}

static int do_clear(char **words, struct error *err)
{
    struct node *folder;
    struct listing listing = {0};
    int r = find(words[1], &folder, err);
    if (r != 0)
        return r;
    r = OPS->read_folder(volume, folder, 0, take, &listing, err);
    for (size_t i = 0; r == 0 && i < listing.count; i++)
        r = OPS->remove(volume, folder, listing.names[i], NODE_FILE, err);
    listing_finish(&listing);
    OPS->node_drop(volume, folder, 1);
    return r;
}

static int do_sync(char **words, struct error *err)
{
    (void)words;
    return medium_sync(medium, err);
}

static int do_tick(char **words, struct error *err)
{
    return volume_tick(volume, strtoull(words[1], NULL, 0), err);
}

/* Commands of a volume that is not mounted. */

static void tell(const struct finding *finding, void *data)
{
    (void)data;
    printf("%s: %s\n", finding->repaired ? "repaired" : "found", finding->what);
}

static int check(bool repair, struct error *err)
{
    struct check_options check_options = {.repair = repair};
    int r = volume_check(medium, &check_options, tell, NULL, err);
    if (r >= 0)
        printf("left %d\n", r);
    return r < 0 ? r : 0;
}

static int do_check(char **words, struct error *err)
{
    (void)words;
    return check(false, err);
}

static int do_repair(char **words, struct error *err)
{
    (void)words;
    return check(true, err);
}

static int do_format(char **words, struct error *err)
{
    struct format_options format = {0};
    int kind = volume_kind_parse(words[1]);
    if (kind < 0)
        return error_set(err, -EINVAL, "no kind: %s", words[1]);
    format.kind = (enum volume_kind)kind;
    for (char **word = words + 2; *word; word++) {
        const char *value = strchr(*word, '=') ? strchr(*word, '=') + 1 : "";
        if (strncmp(*word, "label=", 6) == 0)
            format.label = value;
        else if (strncmp(*word, "cluster=", 8) == 0)
            format.cluster_size = (uint32_t)strtoul(value, NULL, 0);
        else if (strncmp(*word, "id=", 3) == 0)
            format.id = (uint32_t)strtoul(value, NULL, 0);
        else if (strncmp(*word, "hidden=", 7) == 0)
            format.hidden = strtoull(value, NULL, 0);
        else
            return error_set(err, -EINVAL, "no option: %s", *word);
    }
    return volume_format(medium, &format, err);
}

struct command {
    const char *name;
    int words; /* at least */
    bool mounted;
    int (*run)(char **words, struct error *err);
};
static const struct command commands[] = {
    {"format", 2, false, do_format},
    {"check", 1, false, do_check},
    {"repair", 1, false, do_repair},
    {"facts", 1, true, do_facts},
    {"ls", 1, true, do_ls},
    {"names", 2, true, do_names},
    {"cat", 2, true, do_cat},
    {"get", 3, true, do_get},
    {"put", 3, true, do_put},
    {"append", 3, true, do_append},
    {"fill", 3, true, do_fill},
    {"read", 3, true, do_read},
    {"seek", 4, true, do_seek},
    {"mkdir", 2, true, do_mkdir},
    {"rm", 2, true, do_rm},
    {"rmdir", 2, true, do_rmdir},
    {"mv", 3, true, do_mv},
    {"replace", 3, true, do_replace},
    {"truncate", 3, true, do_truncate},
    {"attributes", 2, true, do_attributes},
    {"times", 3, true, do_times},
    {"label", 1, true, do_label},
    {"many", 3, true, do_many},
    {"clear", 2, true, do_clear},
    {"sync", 1, true, do_sync},
    {"tick", 2, true, do_tick},
};

static int mount(bool wanted, struct error *err)
{
    int r = 0;
    if (wanted && !volume)
        return volume_mount(medium, &options.volume, &volume, err);
    if (!wanted && volume)
        r = OPS->unmount(volume, err);
    if (!wanted)
        volume = NULL;
    return r;
}

static int run(char **words, int count, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, words[0]) == 0 && count >= commands[i].words) {
            int r = mount(commands[i].mounted, err);
            return r == 0 ? commands[i].run(words, err) : r;
        }
    return error_set(err, -EINVAL, "no command: %s", words[0]);
}

/* Goes on after errors, which are told as the answer. */
static void run_lines(void)
{
    char line[LINE];
    while (fgets(line, sizeof(line), stdin)) {
        char *words[WORDS + 1] = {0}, *rest = line;
        int count = 0;
        line[strcspn(line, "\n")] = '\0';
        while (count < WORDS && (words[count] = strsep(&rest, "\t")))
            count++;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = run(words, count, &err);
        if (r == 0)
            puts("ok");
        else
            printf("error %d %s\n", -r, error_message(&err));
        fflush(stdout);
    }
}

static int open_all(const char *path, struct error *err)
{
    int fd = open(path, (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    struct medium_options medium_options = {.read_only = options.read_only};
    options.volume.read_only = options.read_only;
    int r = block_file_open(fd, options.sector_size, options.read_only, &device, err);
    if (r == 0 && options.delay > 0)
        device = slow_create(device, options.delay);
    return r == 0 ? medium_open(device, &medium_options, &medium, err) : r;
}

static int parse(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"sector-size", required_argument, NULL, 's'},
        {"read-only", no_argument, NULL, 'r'},
        {"codepage", required_argument, NULL, 'c'},
        {"minutes-east", required_argument, NULL, 'e'},
        {"delay", required_argument, NULL, 'd'},
        {"abandon", no_argument, NULL, 'a'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "+", long_options, NULL)) != -1;) {
        switch (option) {
        case 's':
            options.sector_size = (unsigned)atoi(optarg);
            break;
        case 'r':
            options.read_only = true;
            break;
        case 'c':
            options.volume.codepage = optarg;
            break;
        case 'e':
            options.volume.minutes_east = atoi(optarg);
            break;
        case 'd':
            options.delay = (unsigned)atoi(optarg);
            break;
        case 'a':
            options.abandon = true;
            break;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    return optind;
}

int main(int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int first = parse(argc, argv), r;
    if (argc - first < 2) {
        fputs(usage, stderr);
        return 2;
    }
    r = open_all(argv[first], &err);
    if (r == 0 && strcmp(argv[first + 1], "-") == 0)
        run_lines();
    else if (r == 0)
        r = run(argv + first + 1, argc - first - 1, &err);
    fflush(stdout);
    if (options.abandon)
        _exit(r == 0 ? 0 : 1);
    if (volume && r == 0)
        r = mount(false, &err);
    else if (volume)
        mount(false, NULL);
    if (medium && medium_close(medium, r == 0 ? &err : NULL) != 0 && r == 0)
        r = -EIO;
    block_device_destroy(device);
    if (r != 0)
        fprintf(stderr, "volume-tool: %s\n", err.message ? err.message : strerror(-r));
    return r == 0 ? 0 : 1;
}
