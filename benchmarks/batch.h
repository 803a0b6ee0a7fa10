/*
 * What the drivers in C have in common: numbers on the command line, the clock, memory, and the file
 * of encoded commands, each a little-endian u32 length and that many bytes.
 */
#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings and batches are little-endian");

#define LONGEST_COMMAND (1u << 20)

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        err(1, "%zu times %zu bytes of memory", count, size);
    return memory;
}

static uint64_t number(const char *text, int base) {
    char *end;
    uint64_t value = strtoull(text, &end, base);
    if (end == text || *end)
        errx(2, "expected a number, got %s", text);
    return value;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct iovec *read_batch(const char *name, size_t *count, size_t *longest) {
    FILE *file = fopen(name, "rb");
    struct iovec *commands = NULL;
    uint32_t length;
    if (!file)
        err(1, "%s", name);
    for (*count = *longest = 0; fread(&length, sizeof(length), 1, file) == 1; ++*count) {
        /* vdpa_sim_net never completes a command shorter than its two header bytes. */
        if (length < 2 || length > LONGEST_COMMAND)
            errx(1, "%s: command %zu has %" PRIu32 " bytes", name, *count, length);
        commands = realloc(commands, (*count + 1) * sizeof(*commands));
        if (!commands)
            err(1, "no memory for %zu commands", *count + 1);
        commands[*count] = (struct iovec){allocate(length, 1), length};
        if (fread(commands[*count].iov_base, length, 1, file) != 1)
            errx(1, "%s: it ends inside command %zu", name, *count);
        *longest = length > *longest ? length : *longest;
    }
    if (!*count)
        errx(1, "%s: no command to be read", name);
    fclose(file);
    return commands;
}
