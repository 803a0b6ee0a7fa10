/*
 * Replays a batch of control virtqueue commands on a lent ring, in C: what a commit of vdpad's is
 * held against on a host. Build: cc -O2 -Wall -Wextra -Werror lent_replay.c -o lent_replay
 *
 *   lent_replay [--packed] [--event-idx] BATCH MEMORY KICK BASE RING DESCRIPTORS DRIVER DEVICE
 *               BUFFERS START
 *
 * BATCH is a file of encoded commands (batch.h). MEMORY and KICK are the numbers of the lender's
 * memfd and kick eventfd, which whoever starts this leaves open; BASE is the device's address of
 * the memory's first byte. RING is the number of descriptors. Where they are, the areas of driver
 * and device (of a split ring the available and the used ring) and the buffers, are addresses of
 * the device's, in hexadecimal digits. START is where a packed ring stands: descriptors from where
 * its wrap counters are 1. A split ring says so itself. The ring is idle.
 *
 * A line of JSON says what it took, from the first image copied to the last ack read, and where the
 * ring stands then.
 *
 * The replay is vdpad's, as in cvq_replay.c: with RING_EVENT_IDX two banks of half a ring, else one
 * of a whole ring; slots own two descriptors each; one look at the device's wishes for each bank;
 * waiting is looking. In a packed ring every bank's descriptors are written anew, and the flags of
 * its first one last.
 */
#define _GNU_SOURCE
#include "batch.h"

#include <getopt.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SHARED(field) ((_Atomic uint16_t *)&(field)) /* the device uses it at the same time */
#define ACK_NONE 0xff /* no device answers so, while a stale 0 would read as OK */
#define LOOKS_UNTIL_YIELD 4096
#define PATIENCE_NS 10000000000

/* virtio 1.4, 2.8.1: what the driver writes by the lap's wrap counter, and what the device does. */
#define F_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED (1u << VRING_PACKED_DESC_F_USED)
static const uint16_t AVAILABLE[] = {F_USED, F_AVAIL}, RETURNED[] = {0, F_AVAIL | F_USED};

struct bank {
    unsigned count, first_slot;
    uint8_t *image; /* acks, then commands */
    size_t size, at; /* of the image, and where it goes among the buffers */
    const struct iovec *commands;
    bool in_place; /* a split ring's descriptors say the same already */
};

static struct {
    int packed, event_idx, kick;
    const char *batch;
    uint64_t base, buffers;
    unsigned ring;
    uint8_t *memory;
} options;

/* Where the parts are here. */
static struct vring split;
static struct vring_packed_desc *descriptors;
static struct vring_packed_desc_event *driver, *device;
static uint32_t start; /* of a packed ring a position, of a split one both indices */

/* --- ahead of time --- */

/* Fills in what the bank needs beside count and commands. */
static void encode_bank(struct bank *bank) {
    bank->size = bank->count;
    for (unsigned i = 0; i < bank->count; i++)
        bank->size += bank->commands[i].iov_len;
    bank->image = memset(allocate(bank->size, 1), ACK_NONE, bank->count);
    uint8_t *to = bank->image + bank->count;
    for (unsigned i = 0; i < bank->count; to += bank->commands[i++].iov_len)
        memcpy(to, bank->commands[i].iov_base, bank->commands[i].iov_len);
}

/* Whether both have the same descriptors, in the same place. */
static bool is_alike(const struct bank *one, const struct bank *other) {
    bool alike = one->count == other->count;
    for (unsigned i = 0; alike && i < one->count; i++)
        alike = one->commands[i].iov_len == other->commands[i].iov_len;
    return alike;
}

static struct bank *encode(size_t *count, unsigned *in_ring) {
    size_t there, longest;
    struct iovec *commands = read_batch(options.batch, &there, &longest);
    *in_ring = options.event_idx ? 2 : 1;
    unsigned slots = options.ring / 2 / *in_ring;
    *count = (there + slots - 1) / slots;
    struct bank *banks = allocate(*count, sizeof(*banks));
    for (size_t number = 0; number < *count; number++) {
        struct bank *bank = &banks[number];
        size_t first = number * slots;
        bank->count = there - first < slots ? there - first : slots;
        bank->commands = commands + first;
        bank->first_slot = number % *in_ring * slots;
        bank->at = bank->first_slot * (1 + longest);
        encode_bank(bank);
        bank->in_place = number >= *in_ring && is_alike(bank, bank - *in_ring);
    }
    return banks;
}

/* --- the two layouts --- */

static uint16_t wrap_at(uint32_t position) {
    return !(position / options.ring % 2);
}

/* The device's address of a bank's buffers. */
static uint64_t address_of(const struct bank *bank) {
    return options.buffers + bank->at;
}

static void place_split(const struct bank *bank, uint32_t published) {
    uint64_t ack = address_of(bank), address = ack + bank->count;
    for (unsigned i = 0; !bank->in_place && i < bank->count; i++) {
        unsigned head = 2 * (bank->first_slot + i), length = bank->commands[i].iov_len;
        split.desc[head] = (struct vring_desc){address, length, VRING_DESC_F_NEXT, head + 1};
        split.desc[head + 1] = (struct vring_desc){ack + i, 1, VRING_DESC_F_WRITE, 0};
        address += length;
    }
    for (unsigned i = 0; i < bank->count; i++)
        split.avail->ring[(start + published + i) % options.ring] = 2 * (bank->first_slot + i);
}

/* Returns the first descriptor's flags, which are still to be stored. */
static uint16_t place_packed(const struct bank *bank, uint32_t published) {
    uint64_t ack = address_of(bank), address = ack + bank->count;
    uint32_t position = start + 2 * published;
    uint16_t first = VRING_DESC_F_NEXT | AVAILABLE[wrap_at(position)];
    for (unsigned i = 0; i < bank->count; i++, position += 2) {
        unsigned head = 2 * (bank->first_slot + i), length = bank->commands[i].iov_len;
        struct vring_packed_desc *of = &descriptors[position % options.ring];
        uint16_t flags = i ? VRING_DESC_F_NEXT | AVAILABLE[wrap_at(position)] : of->flags;
        *of = (struct vring_packed_desc){address, length, head, flags};
        descriptors[(position + 1) % options.ring] = (struct vring_packed_desc){
            ack + i, 1, head, VRING_DESC_F_WRITE | AVAILABLE[wrap_at(position + 1)]};
        address += length;
    }
    return first;
}

static void place(const struct bank *bank, uint32_t published, uint32_t old, uint16_t *first) {
    memcpy(options.memory + (address_of(bank) - options.base), bank->image, bank->size);
    if (!options.packed) {
        place_split(bank, published);
        return;
    }
    uint16_t flags = place_packed(bank, published);
    /* Of those that are published together the device finds none before the first. */
    if (published == old)
        *first = flags;
    else
        descriptors[(start + 2 * published) % options.ring].flags = flags;
}

static void publish(uint32_t published, uint32_t old, uint16_t first) {
    _Atomic uint16_t *last = SHARED(split.avail->idx);
    if (options.packed)
        last = SHARED(descriptors[(start + 2 * old) % options.ring].flags);
    atomic_store_explicit(last, options.packed ? first : (uint16_t)(start + published),
                          memory_order_release);
}

static bool wants_doorbell(uint32_t published, uint32_t old) {
    /* The device says when to ring, and then looks once more; so publish first, and then read. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!options.packed && options.event_idx)
        return vring_need_event(atomic_load(SHARED(vring_avail_event(&split))),
                                (uint16_t)(start + published), (uint16_t)(start + old));
    if (!options.packed)
        return !(atomic_load(SHARED(split.used->flags)) & VRING_USED_F_NO_NOTIFY);
    uint16_t flags = atomic_load(SHARED(device->flags));
    if (flags != VRING_PACKED_EVENT_FLAG_DESC)
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    uint16_t event = atomic_load(SHARED(device->off_wrap));
    uint32_t new = start + 2 * published, offset = event & 0x7fff;
    if (event >> VRING_PACKED_EVENT_F_WRAP_CTR != wrap_at(new))
        offset -= options.ring;
    return vring_need_event((uint16_t)offset, (uint16_t)(new % options.ring),
                            (uint16_t)(new % options.ring - 2 * (published - old)));
}

static bool is_back(uint32_t returned, unsigned count) {
    if (!options.packed)
        return (uint16_t)(atomic_load(SHARED(split.used->idx)) - start - returned) >= count;
    /* All of them: of those that a device returns together it tells of the first one last. */
    while (count--) {
        uint32_t position = start + 2 * (returned + count);
        uint16_t flags = atomic_load(SHARED(descriptors[position % options.ring].flags));
        if ((flags & RETURNED[1]) != RETURNED[wrap_at(position)])
            return false;
    }
    return true;
}

/* --- the replay --- */

static void wait_for(uint32_t returned, unsigned count) {
    int64_t began = now_ns();
    unsigned looks = 0;
    while (!is_back(returned, count)) {
        if (++looks % LOOKS_UNTIL_YIELD)
            continue;
        sched_yield(); /* to a device that is a thread on our own processor */
        if (now_ns() - began > PATIENCE_NS)
            errx(1, "no answer within 10 s to commands %u and on", returned);
    }
}

/* Returns how many were rejected. */
static unsigned check(const struct bank *bank, uint32_t returned) {
    const uint8_t *acks = options.memory + (address_of(bank) - options.base);
    unsigned rejected = 0;
    for (unsigned i = 0; i < bank->count; i++) {
        unsigned head = 2 * (bank->first_slot + i), id, length;
        if (options.packed) {
            const struct vring_packed_desc *got =
                &descriptors[(start + 2 * (returned + i)) % options.ring];
            id = got->id, length = got->len;
        } else {
            const struct vring_used_elem *got =
                &split.used->ring[(start + returned + i) % options.ring];
            id = got->id, length = got->len;
        }
        if (id != head || length != 1)
            errx(1, "descriptor %u came back with %u bytes, not %u with 1", id, length, head);
        if (acks[i] != VIRTIO_NET_OK && acks[i] != VIRTIO_NET_ERR)
            errx(1, "an ack is %#x, neither OK nor ERR", acks[i]);
        rejected += acks[i];
    }
    return rejected;
}

static void ask_for_no_interrupt(void) {
    if (options.packed) {
        driver->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
        return;
    }
    split.avail->flags = options.event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT;
    vring_used_event(&split) = start - 1;
}

static void replay(const struct bank *banks, size_t count, unsigned in_ring) {
    unsigned doorbells = 0, rejected = 0;
    uint32_t published = 0, returned = 0;
    const int64_t began = now_ns();

    ask_for_no_interrupt();
    for (size_t oldest = 0, next = 0; oldest < count; oldest++) {
        uint32_t old = published;
        uint16_t first = 0;
        for (; next < count && next - oldest < in_ring; published += banks[next++].count)
            place(&banks[next], published, old, &first);
        if (published != old) {
            publish(published, old, first);
            /* Before the device has run, its wishes in the ring are nobody's word. */
            if (wants_doorbell(published, old) || !oldest) {
                if (eventfd_write(options.kick, 1))
                    err(1, "the doorbell's eventfd");
                doorbells++;
            }
        }
        wait_for(returned, banks[oldest].count);
        rejected += check(&banks[oldest], returned);
        returned += banks[oldest].count;
    }
    printf("{\"us\": %.1f, \"doorbells\": %u, \"rejected\": %u, \"next\": %u}\n",
           (double)(now_ns() - began) / 1000, doorbells, rejected,
           options.packed ? (start + 2 * returned) % (2 * options.ring)
                          : (uint16_t)(start + returned));
}

/* --- the command line --- */

static void *at(const char *address) {
    return options.memory + (number(address, 16) - options.base);
}

static void parse(int count, char **arguments) {
    const struct option known[] = {{"packed", no_argument, &options.packed, 1},
                                   {"event-idx", no_argument, &options.event_idx, 1},
                                   {NULL, 0, NULL, 0}};
    while (getopt_long(count, arguments, "", known, NULL) != -1)
        ;
    char **given = arguments + optind;
    if (count - optind != 10)
        errx(2, "expected BATCH MEMORY KICK BASE RING DESCRIPTORS DRIVER DEVICE BUFFERS START");
    int memory = (int)number(given[1], 10);
    struct stat status;
    if (fstat(memory, &status))
        err(1, "the memory");
    options.memory =
        mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (options.memory == MAP_FAILED)
        err(1, "mapping the memory");
    options.batch = given[0];
    options.kick = (int)number(given[2], 10);
    options.base = number(given[3], 16);
    options.ring = (unsigned)number(given[4], 10);
    options.buffers = number(given[8], 16);
    split = (struct vring){options.ring, at(given[5]), at(given[6]), at(given[7])};
    descriptors = at(given[5]), driver = at(given[6]), device = at(given[7]);
    start = options.packed ? (uint32_t)number(given[9], 10) : split.avail->idx;
    if (!options.packed && split.used->idx != split.avail->idx)
        errx(1, "expected an idle ring, got %u available, %u used", start, split.used->idx);
}

int main(int count, char **arguments) {
    size_t banks;
    unsigned in_ring;
    parse(count, arguments);
    const struct bank *program = encode(&banks, &in_ring);
    replay(program, banks, in_ring);
    return 0;
}
