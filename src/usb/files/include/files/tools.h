/* Making, checking and repairing volumes. */
#ifndef FILES_TOOLS_H
#define FILES_TOOLS_H

#include <files/volume.h>

/* Told now and then how much of all is done; whether it is to go on. Where it is not, the end comes
 * between two updates, with -ECANCELED. */
typedef bool (*volume_progress)(uint64_t done, uint64_t total, void *data);

struct format_options {
    enum volume_kind kind;
    const char *label;        /* NULL: none */
    uint32_t cluster_size;    /* bytes; 0: by the volume's size */
    uint32_t id;              /* 0: by chance */
    uint64_t hidden;          /* sectors before the volume on its disk */
    volume_progress progress; /* NULL: nobody looks */
    void *data;               /* of progress */
};

/* Writes an empty volume over whatever there is; durable when it returns 0. -EINVAL: the medium is
 * too small or too large for the kind, or the label or cluster size cannot be. -ECANCELED: there is
 * no volume any more. */
int volume_format(struct medium *medium, const struct format_options *options, struct error *err);

/* A kind by the name that users say: "fat12", "fat16", "fat32", "exfat". Negative: there is none.
 */
int volume_kind_parse(const char *name);
const char *volume_kind_name(enum volume_kind kind);

/* Something that is not as the format says. */
struct finding {
    const char *what; /* one line: "lost chain", "cross-linked cluster", ... and where */
    bool repaired;
};
typedef void (*volume_finding)(const struct finding *finding, void *data);

struct check_options {
    bool repair; /* each repair is one update; what cannot be kept whole becomes a file in /LOST.DIR
                  */
    volume_progress progress; /* NULL: nobody looks */
    void *data;               /* of progress */
};

/* Returns how many findings are left. Errors of the medium, or damage that leaves nothing to look
 * at, are errors; -ECANCELED: what was repaired by then is. The medium is not mounted. */
int volume_check(struct medium *medium, const struct check_options *options, volume_finding found,
                 void *data, struct error *err);

#endif
