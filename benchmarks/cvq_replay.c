/*
 * Replays a batch of control virtqueue commands on a vhost-vdpa device, in C: what vdpad's Python
 * is held against. Build: cc -O2 -Wall -Wextra -Werror cvq_replay.c -o cvq_replay
 *
 *   cvq_replay NODE BATCH ROUNDS [--event-idx] [--ring N] [--one-by-one] [--features HEX] [--hold]
 *
 * BATCH is a file of encoded commands (batch.h). Each round opens the node, which resets the
 * device, brings it up, replays the batch and closes it. A line of JSON says what the round took:
 * from the first image copied to the last ack read.
 *
 * --event-idx negotiates RING_EVENT_IDX, which must be offered. --ring is the number of descriptors
 * of the control queue (64). --features is a mask of what else to negotiate of what is offered (all
 * below bit 24). --hold keeps the device up after each line until a line, or the end, comes in on
 * stdin, so that somebody can look at what it has become.
 *
 * The replay is vdpad's. A command takes two descriptors, one for its bytes and one for its ack;
 * slot s owns descriptors 2s and 2s+1. Slots are filled and published in banks. A bank is one copy
 * of its acks, pre-filled, and its commands behind them, all encoded ahead. Its descriptors are
 * copied only where those in place differ: equally long commands have the same every time.
 *
 *   with RING_EVENT_IDX  two banks of half a ring, one being filled while the device works on the
 *                        other, and a doorbell only when avail_event asks for it;
 *   without              one bank of a whole ring, a doorbell for each unless used.flags says no;
 *   --one-by-one         one bank of one command.
 *
 * Waiting is looking at the used index. A device that completes out of order is refused: none of
 * those measured does, and following it would cost the others time.
 */
#define _GNU_SOURCE
#include "batch.h"

#include <fcntl.h>
#include <getopt.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define BIT(number) (UINT64_C(1) << (number))
#define SHARED(field) ((_Atomic uint16_t *)&(field)) /* the device uses it at the same time */
#define ACK_NONE 0xff /* no device answers so, while a stale 0 would read as OK */
#define IOVA UINT64_C(0x100000)
#define PAGE 4096u
#define LOOKS_UNTIL_YIELD 4096
#define PATIENCE_NS 10000000000

enum { ACKNOWLEDGED = 1, DRIVER = 3, FEATURES_OK = 0xb, DRIVER_OK = 0xf };

struct bank {
    unsigned count, first_slot;
    uint8_t *image;                 /* acks, then commands */
    size_t size, at;                /* of the image, and where it goes in the device's memory */
    struct vring_desc *descriptors; /* NULL: those in place say the same */
};

struct program {
    struct bank *banks;
    size_t bank_count, banks_in_ring, buffers_size;
};

struct device {
    int node, kick;
    uint8_t *memory; /* the control ring, its buffers, the data rings */
    size_t memory_size;
    struct vring ring;
};

static struct {
    const char *node, *batch;
    unsigned rounds, ring;
    uint64_t features;
    int event_idx, one_by_one, hold;
} options = {.ring = 64, .features = BIT(24) - 1};

static size_t pages(size_t bytes) {
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* --- ahead of time: the batch becomes a program --- */

/* Fills in what the bank needs beside count, first_slot and at. */
static void encode_bank(struct bank *bank, const struct iovec *commands) {
    bank->size = bank->count;
    for (unsigned i = 0; i < bank->count; i++)
        bank->size += commands[i].iov_len;
    bank->image = memset(allocate(bank->size, 1), ACK_NONE, bank->count);
    bank->descriptors = allocate(2 * bank->count, sizeof(*bank->descriptors));
    for (size_t i = 0, at = bank->count; i < bank->count; at += commands[i++].iov_len) {
        struct vring_desc *pair = &bank->descriptors[2 * i];
        uint64_t iova = IOVA + bank->at;
        unsigned next = 2 * (bank->first_slot + i) + 1;
        memcpy(bank->image + at, commands[i].iov_base, commands[i].iov_len);
        pair[0] = (struct vring_desc){iova + at, commands[i].iov_len, VRING_DESC_F_NEXT, next};
        pair[1] = (struct vring_desc){iova + i, 1, VRING_DESC_F_WRITE, 0};
    }
}

static struct program encode(void) {
    size_t count, longest, in_ring = options.event_idx && !options.one_by_one ? 2 : 1;
    unsigned slots = options.one_by_one ? 1 : options.ring / 2 / in_ring;
    struct iovec *commands = read_batch(options.batch, &count, &longest);
    struct program program = {.bank_count = (count + slots - 1) / slots, .banks_in_ring = in_ring};
    const struct bank *in_place[2] = {NULL, NULL};

    program.buffers_size = pages(in_ring * slots * (1 + longest));
    program.banks = allocate(program.bank_count, sizeof(*program.banks));
    for (size_t number = 0; number < program.bank_count; number++) {
        struct bank *bank = &program.banks[number];
        size_t first = number * slots, place = number % in_ring;
        const struct bank *before = in_place[place];
        bank->count = count - first < slots ? count - first : slots;
        bank->first_slot = place * slots;
        bank->at = pages(vring_size(options.ring, PAGE)) + bank->first_slot * (1 + longest);
        encode_bank(bank, commands + first);
        in_place[place] = bank;
        if (before && before->count == bank->count &&
            !memcmp(before->descriptors, bank->descriptors,
                    2 * bank->count * sizeof(*bank->descriptors))) {
            bank->descriptors = NULL;
            in_place[place] = before;
        }
    }
    return program;
}

/* --- the device --- */

#define ASK(node, request, argument) (ioctl(node, request, argument) ? err(1, #request) : (void)0)

static void set_status(int node, uint8_t status) {
    uint8_t is;
    ASK(node, VHOST_VDPA_SET_STATUS, &status);
    ASK(node, VHOST_VDPA_GET_STATUS, &is);
    /* The only place where a device says that it has failed. */
    if (is != status)
        errx(1, "the status was set to %#x and is %#x", status, is);
}

/* Returns the control queue's index. It stands behind all data queues. */
static unsigned negotiate(int node) {
    const uint64_t event_idx = BIT(VIRTIO_RING_F_EVENT_IDX);
    uint64_t offered, features, needed =
        BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_ACCESS_PLATFORM) | BIT(VIRTIO_NET_F_CTRL_VQ);
    /* A vhost_vdpa_config: offset, length, and room for the bytes. */
    uint32_t pairs[3] = {offsetof(struct virtio_net_config, max_virtqueue_pairs), sizeof(uint16_t)};

    needed |= options.event_idx ? event_idx : 0;
    set_status(node, 0);
    set_status(node, ACKNOWLEDGED);
    set_status(node, DRIVER);
    ASK(node, VHOST_GET_FEATURES, &offered);
    if (needed & ~offered)
        errx(1, "the device lacks the features %#" PRIx64, needed & ~offered);
    features = (options.features & offered & ~event_idx) | needed;
    ASK(node, VHOST_SET_FEATURES, &features);
    set_status(node, FEATURES_OK);
    if (!(features & (BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_RSS))))
        return 2;
    ASK(node, VHOST_VDPA_GET_CONFIG, pairs);
    return 2 * pairs[2];
}

static uint8_t *map_memory(int node, size_t size) {
    struct vhost_msg_v2 message = {.type = VHOST_IOTLB_MSG_V2};
    int fd = memfd_create("cvq_replay", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)size))
        err(1, "a memfd of %zu bytes", size);
    /* Shared: vdpa_sim, which uses virtual addresses, skips any other memory in silence. */
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap of %zu bytes", size);
    close(fd);
    message.iotlb = (struct vhost_iotlb_msg){.iova = IOVA, .size = size, .uaddr = (uintptr_t)memory,
                                             .perm = VHOST_ACCESS_RW, .type = VHOST_IOTLB_UPDATE};
    if (write(node, &message, sizeof(message)) != sizeof(message))
        err(1, "mapping %zu bytes for the device (is RLIMIT_MEMLOCK too low?)", size);
    return memory;
}

static void set_up_ring(int node, unsigned index, uint64_t iova) {
    struct vhost_vring_state size = {index, options.ring}, base = {index, 0};
    struct vhost_vring_addr address = {.index = index, .desc_user_addr = iova};
    struct vring parts;
    vring_init(&parts, options.ring, NULL, PAGE);
    address.avail_user_addr = iova + (uintptr_t)parts.avail;
    address.used_user_addr = iova + (uintptr_t)parts.used;
    ASK(node, VHOST_SET_VRING_NUM, &size);
    ASK(node, VHOST_SET_VRING_BASE, &base);
    ASK(node, VHOST_SET_VRING_ADDR, &address);
}

static struct device bring_up(const struct program *program) {
    struct device device = {.node = open(options.node, O_RDWR | O_CLOEXEC)};
    size_t ring_size = pages(vring_size(options.ring, PAGE));
    size_t data_rings = ring_size + program->buffers_size;
    uint64_t backend = BIT(VHOST_BACKEND_F_IOTLB_MSG_V2); /* and so one address space for all */

    if (device.node < 0)
        err(1, "%s", options.node);
    ASK(device.node, VHOST_SET_OWNER, NULL);
    ASK(device.node, VHOST_SET_BACKEND_FEATURES, &backend);
    unsigned queue = negotiate(device.node);
    device.memory_size = data_rings + queue * ring_size;
    device.memory = map_memory(device.node, device.memory_size);
    vring_init(&device.ring, options.ring, device.memory, PAGE);
    /* mlx5 may start data queues at DRIVER_OK, so they need rings even if nobody uses them. */
    for (unsigned i = 0; i < queue; i++)
        set_up_ring(device.node, i, IOVA + data_rings + i * ring_size);
    set_up_ring(device.node, queue, IOVA);
    device.kick = eventfd(0, EFD_CLOEXEC);
    ASK(device.node, VHOST_SET_VRING_KICK, (&(struct vhost_vring_file){queue, device.kick}));
    ASK(device.node, VHOST_VDPA_SET_VRING_ENABLE, (&(struct vhost_vring_state){queue, 1}));
    set_status(device.node, DRIVER_OK);
    return device;
}

/* --- the replay --- */

static void copy(const struct device *device, const struct bank *bank, uint16_t published) {
    memcpy(device->memory + bank->at, bank->image, bank->size);
    if (bank->descriptors)
        memcpy(device->ring.desc + 2 * bank->first_slot, bank->descriptors,
               2 * bank->count * sizeof(*bank->descriptors));
    for (unsigned i = 0; i < bank->count; i++)
        device->ring.avail->ring[(published + i) % options.ring] = 2 * (bank->first_slot + i);
}

static bool wants_doorbell(struct vring *ring, uint16_t new, uint16_t old) {
    /* The device says when to ring, and then looks once more; so publish first, and then read. */
    atomic_thread_fence(memory_order_seq_cst);
    if (options.event_idx)
        return vring_need_event(atomic_load(SHARED(vring_avail_event(ring))), new, old);
    return !(atomic_load(SHARED(ring->used->flags)) & VRING_USED_F_NO_NOTIFY);
}

static void wait_for(struct vring *ring, uint16_t returned, unsigned count) {
    int64_t began = now_ns();
    unsigned looks = 0;
    while ((uint16_t)(atomic_load(SHARED(ring->used->idx)) - returned) < count) {
        if (++looks % LOOKS_UNTIL_YIELD)
            continue;
        sched_yield(); /* to a device that is a thread on our own processor */
        if (now_ns() - began > PATIENCE_NS)
            errx(1, "no answer within 10 s, the used index being %u", ring->used->idx);
    }
}

/* Returns how many were rejected. */
static unsigned check(const struct device *device, const struct bank *bank, uint16_t returned) {
    const uint8_t *acks = device->memory + bank->at;
    unsigned rejected = 0;

    for (unsigned i = 0; i < bank->count; i++) {
        struct vring_used_elem got = device->ring.used->ring[(returned + i) % options.ring];
        unsigned head = 2 * (bank->first_slot + i);
        if (got.id != head || got.len != 1)
            errx(1, "descriptor %u came back with %u bytes, not %u with 1", got.id, got.len, head);
        if (acks[i] != VIRTIO_NET_OK && acks[i] != VIRTIO_NET_ERR)
            errx(1, "an ack is %#x, neither OK nor ERR", acks[i]);
        rejected += acks[i];
    }
    return rejected;
}

static void replay(const struct program *program, struct device *device) {
    struct vring *ring = &device->ring;
    unsigned doorbells = 0, rejected = 0;
    uint16_t published = 0, returned = 0;
    const int64_t began = now_ns();

    ring->avail->flags = options.event_idx ? 0 : VRING_AVAIL_F_NO_INTERRUPT;
    vring_used_event(ring) = UINT16_MAX;
    for (size_t oldest = 0, next = 0; oldest < program->bank_count; oldest++) {
        const struct bank *bank = &program->banks[oldest];
        uint16_t old = published;
        for (; next < program->bank_count && next - oldest < program->banks_in_ring; next++) {
            copy(device, &program->banks[next], published);
            published += program->banks[next].count;
        }
        atomic_store_explicit(SHARED(ring->avail->idx), published, memory_order_release);
        /* Before the device has run, its wishes in the ring are nobody's word. */
        if (published != old && (wants_doorbell(ring, published, old) || !oldest)) {
            if (eventfd_write(device->kick, 1))
                err(1, "the doorbell's eventfd");
            doorbells++;
        }
        wait_for(ring, returned, bank->count);
        rejected += check(device, bank, returned);
        returned += bank->count;
    }
    printf("{\"us\": %.1f, \"doorbells\": %u, \"rejected\": %u}\n",
           (double)(now_ns() - began) / 1000, doorbells, rejected);
    fflush(stdout);
}

/* --- the command line --- */

static void parse(int count, char **arguments) {
    const struct option known[] = {{"event-idx", no_argument, &options.event_idx, 1},
                                   {"one-by-one", no_argument, &options.one_by_one, 1},
                                   {"hold", no_argument, &options.hold, 1},
                                   {"ring", required_argument, NULL, 'r'},
                                   {"features", required_argument, NULL, 'f'},
                                   {NULL, 0, NULL, 0}};

    for (int found; (found = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        if (found == 'r')
            options.ring = (unsigned)number(optarg, 10);
        else if (found == 'f')
            options.features = number(optarg, 16);
        else if (found)
            exit(2);
    }
    if (count - optind != 3)
        errx(2, "expected NODE BATCH ROUNDS");
    options.node = arguments[optind];
    options.batch = arguments[optind + 1];
    options.rounds = (unsigned)number(arguments[optind + 2], 10);
    if (options.ring < 4 || options.ring > 32768 || options.ring & (options.ring - 1))
        errx(2, "--ring: expected a power of two from 4 to 32768, got %u", options.ring);
}

int main(int count, char **arguments) {
    parse(count, arguments);
    struct program program = encode();

    for (unsigned round = 0; round < options.rounds; round++) {
        struct device device = bring_up(&program);
        replay(&program, &device);
        for (int key = 0; options.hold && key != EOF && key != '\n';)
            key = getchar();
        close(device.node);
        close(device.kick);
        munmap(device.memory, device.memory_size);
    }
    return 0;
}
