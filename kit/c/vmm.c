/*
 * A small VMM: has vdpad restore its device, takes the ring back, and goes on recording.
 *
 *   vmm [-r CLASS.COMMAND] [-s] [-b] [-x] SOCKET STATE LOG
 *
 * STATE is JSON; of the features in it this VMM knows those of docs/examples/state.json. LOG is
 * made anew. The options have things go wrong: a device that refuses a command, or is silent; the
 * memory lent in place of the call; kick and call swapped. It ends with 0 where the device was
 * restored.
 */
#define _GNU_SOURCE
#include "device.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>

#define IOVA 0x100000
#define RING_SIZE 64
/* In milliseconds. */
#define DEADLINE 500
#define PATIENCE 30000

/* docs/examples/state.json's; RING_EVENT_IDX is not negotiated with this device. */
#define GUEST_FEATURES (UINT64_C(0x1230000120df99a7))
#define RING_EVENT_IDX 29

/* struct virtio_net_config: 4 queue pairs, keys of 40 bytes, 128 entries, hash types 0 … 5. */
static const unsigned char config_space[24] = {[8] = 4, [17] = 40, [18] = 128, [20] = 0x3f};

struct vmm {
    struct vdpad_client client;
    struct vdpad_ring ring;
    struct device device;
    char *state;
    char migration[32];
    int log;
    int swapped, bad_lend;
};

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, VDPAD_MAX_DATAGRAM);

    if (!file || !text || !fread(text, 1, VDPAD_MAX_DATAGRAM - 1, file)) {
        free(text);
        text = NULL;
    }
    if (file)
        fclose(file);
    return text;
}

/* While the guest still runs on its source. */
static int prepare(struct vmm *vmm)
{
    const uint64_t features[2] = {GUEST_FEATURES & ~(UINT64_C(1) << RING_EVENT_IDX), 0};
    struct vdpad_report report;
    char target[4096];

    if (vdpad_target(target, sizeof target, &vmm->ring, features, config_space,
                     sizeof config_space)
        || vdpad_prepare(&vmm->client, vmm->migration, vmm->state, target, &report))
        return fail("prepare");
    if (report.kind[0]) {
        printf("%s: %s\n", report.kind, report.message);
        return 1;
    }
    printf("prepared: %" PRIu32 " commands\n", report.commands);
    return 0;
}

/* The guest is stopped, the device is up. */
static int commit(struct vmm *vmm, struct vdpad_report *report)
{
    const int kick = vmm->swapped ? vmm->device.call : vmm->device.kick;
    int call = vmm->swapped ? vmm->device.kick : vmm->device.call;

    if (vmm->bad_lend)
        call = vmm->ring.memory;
    if (vdpad_commit(&vmm->client, vmm->migration, &vmm->ring, kick, call, DEADLINE, report))
        return fail("commit");
    if (report->kind[0]) {
        printf("%s: %s\n", report->kind, report->message);
        if (report->command[0])
            printf("first: %s %s\n", report->command, report->arguments);
        if (report->commands)
            printf("applied: %" PRIu32 " of %" PRIu32 "\n", report->applied,
                   report->commands);
        printf("the device must be reset: %s\n", report->device_must_reset ? "yes" : "no");
        return 1;
    }
    printf("restored: %" PRIu32 " of %" PRIu32 " commands\n", report->applied, report->commands);
    return 0;
}

/* Sends the guest's command through the ring that came back, as a shadow does; gives the ack. */
static int send_command(struct vmm *vmm, uint16_t at, const unsigned char *bytes, size_t length)
{
    const struct vdpad_ring *ring = &vmm->ring;
    const uint64_t buffer = ring->iova + ring->buffers;
    const struct descriptor chain[2] = {{buffer, (uint32_t)length, 1, 1},
                                        {buffer + length, 1, 2, 0}};
    struct pollfd call = {.fd = vmm->device.call, .events = POLLIN};
    eventfd_t calls;
    const uint16_t head = 0, next = (uint16_t)(at + 1);

    memcpy(ring->base + ring->descriptors, chain, sizeof chain);
    memcpy(ring->base + ring->buffers, bytes, length);
    ring->base[ring->buffers + length] = 0xff;
    memcpy(ring->base + ring->available + 4 + 2 * (size_t)(at % ring->size), &head, sizeof head);
    atomic_store(index_at(ring, ring->available + 2), next);
    eventfd_write(vmm->device.kick, 1);
    while (atomic_load(index_at(ring, ring->used + 2)) != next) {
        if (poll(&call, 1, 1000) < 0)
            return -1;
        eventfd_read(vmm->device.call, &calls);
    }
    return ring->base[ring->buffers + length];
}

/* The guest runs here: what it sets now is what the next migration needs. */
static int go_on(struct vmm *vmm, uint16_t at)
{
    static const unsigned char vlan_add[] = {2, 0, 0x99, 0x09}; /* 2457 */
    const uint64_t features[2] = {GUEST_FEATURES, 0};
    int ack;

    if (vdpad_log_begin(vmm->log, features) || vdpad_log_state(vmm->log, vmm->state))
        return fail("log");
    ack = send_command(vmm, at, vlan_add, sizeof vlan_add);
    if (ack < 0 || vdpad_log_command(vmm->log, vlan_add, sizeof vlan_add, (uint8_t)ack))
        return fail("log");
    printf("the guest goes on at %u, its command is acked with %d\n", (unsigned)at, ack);
    return 0;
}

static int migrate(struct vmm *vmm)
{
    struct vdpad_report report;

    if (prepare(vmm) || commit(vmm, &report))
        return 1;
    return go_on(vmm, report.next_available);
}

static int set_up(struct vmm *vmm, char **files)
{
    vmm->device.kick = eventfd(0, EFD_CLOEXEC);
    vmm->device.call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vmm->device.ring = &vmm->ring;
    vmm->log = open(files[2], O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    vmm->state = read_file(files[1]);
    snprintf(vmm->migration, sizeof vmm->migration, "vmm-%ld", (long)getpid());
    if (vmm->device.kick < 0 || vmm->device.call < 0 || vmm->log < 0 || !vmm->state)
        return -1;
    return vdpad_connect(&vmm->client, files[0], PATIENCE)
               || vdpad_ring_make(&vmm->ring, RING_SIZE, IOVA)
               || device_start(&vmm->device);
}

static int options(struct vmm *vmm, int argc, char **argv)
{
    int option, class, command;

    while ((option = getopt(argc, argv, "r:sbx")) != -1) {
        if (option == 'r' && sscanf(optarg, "%d.%d", &class, &command) == 2)
            vmm->device.refused = class << 8 | command;
        else if (option == 's')
            vmm->device.silent = 1;
        else if (option == 'b')
            vmm->bad_lend = 1;
        else if (option == 'x')
            vmm->swapped = 1;
        else
            return -1;
    }
    return argc - optind == 3 ? 0 : -1;
}

int main(int argc, char **argv)
{
    static struct vmm vmm = {.device = {.refused = -1}};
    int failed;

    if (options(&vmm, argc, argv)) {
        fprintf(stderr, "usage: vmm [-r CLASS.COMMAND] [-s] [-b] [-x] SOCKET STATE LOG\n");
        return 2;
    }
    if (set_up(&vmm, argv + optind))
        return fail("set-up");
    failed = migrate(&vmm);
    device_stop(&vmm.device);
    vdpad_ring_close(&vmm.ring);
    vdpad_disconnect(&vmm.client);
    free(vmm.state);
    return failed;
}
