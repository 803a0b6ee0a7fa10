#define _GNU_SOURCE
#include "device.h"

#include <sys/eventfd.h>

#define NO_INTERRUPT 1

static struct descriptor descriptor_at(const struct vdpad_ring *ring, uint16_t index)
{
    struct descriptor found;

    memcpy(&found, ring->base + ring->descriptors + 16 * (size_t)(index % ring->size),
           sizeof found);
    return found;
}

/* Takes one chain: the bytes of a command, and behind them one byte for the ack. */
static void take(struct device *device, uint16_t head)
{
    const struct vdpad_ring *ring = device->ring;
    const struct descriptor command = descriptor_at(ring, head);
    const struct descriptor ack = descriptor_at(ring, command.next);
    const unsigned char *bytes = ring->base + (command.address - ring->iova);
    const uint32_t used[2] = {head, 1};

    ring->base[ack.address - ring->iova] = (bytes[0] << 8 | bytes[1]) == device->refused;
    memcpy(ring->base + ring->used + 4 + 8 * (size_t)(device->next % ring->size), used,
           sizeof used);
    device->next++;
    atomic_store(index_at(ring, ring->used + 2), device->next);
}

static void serve(struct device *device)
{
    const struct vdpad_ring *ring = device->ring;
    uint16_t head;

    if (device->silent)
        return;
    while (device->next != atomic_load(index_at(ring, ring->available + 2))) {
        memcpy(&head, ring->base + ring->available + 4 + 2 * (size_t)(device->next % ring->size),
               sizeof head);
        take(device, head);
    }
    if (!(atomic_load(index_at(ring, ring->available)) & NO_INTERRUPT))
        eventfd_write(device->call, 1);
}

static void *run(void *argument)
{
    struct device *device = argument;
    eventfd_t kicks;

    while (!atomic_load(&device->ended) && !eventfd_read(device->kick, &kicks))
        serve(device);
    return NULL;
}

int device_start(struct device *device)
{
    errno = pthread_create(&device->thread, NULL, run, device);
    return errno ? -1 : 0;
}

void device_stop(struct device *device)
{
    atomic_store(&device->ended, 1);
    eventfd_write(device->kick, 1);
    pthread_join(device->thread, NULL);
}
