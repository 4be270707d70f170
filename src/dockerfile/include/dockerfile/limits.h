/* What a Dockerfile may ask of us. Whatever is over a limit is refused by its name. */
#ifndef DOCKERFILE_LIMITS_H
#define DOCKERFILE_LIMITS_H

enum {
    DOCKERFILE_MAX = 4 * 1024 * 1024,      /* bytes of the file */
    DOCKERFILE_INSTRUCTIONS_MAX = 4096,    /* also with those of ONBUILD */
    DOCKERFILE_STAGES_MAX = 256,           /* FROMs */
    DOCKERFILE_WORD_MAX = 1024 * 1024,     /* bytes of a word after its variables are replaced */
    DOCKERFILE_NESTING_MAX = 32,           /* ${a:-${b:-...}} */
    DOCKERFILE_CONFIG_MAX = 1024 * 1024,   /* bytes of all values of a configuration */
    DOCKERFILE_PLAN_MAX = 8 * 1024 * 1024, /* bytes of all configurations of a plan */
    DOCKERFILE_PATTERNS_MAX = 65536,       /* lines of .dockerignore */
    DOCKERFILE_PATTERN_MAX = 4096,         /* bytes of one */
    DOCKERFILE_PORTS_MAX = 65536,          /* of a range of EXPOSE */
};

#endif
