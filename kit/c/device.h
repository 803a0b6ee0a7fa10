/*
 * What stands in for a vDPA device in vmm.c: a thread that takes commands off the ring, acks them
 * and interrupts. In a VMM it is the device, and none of this is needed.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include "vdpad-lend.h"

#include <pthread.h>
#include <stdatomic.h>

struct device {
    const struct vdpad_ring *ring;
    int kick, call;
    int silent;       /* takes nothing */
    int refused;      /* class << 8 | command that is refused; -1 for none */
    uint16_t next;    /* where the next chain is */
    atomic_int ended; /* what stops it */
    pthread_t thread;
};

/* A 16-bit index of the ring's, which somebody else writes. */
static inline _Atomic uint16_t *index_at(const struct vdpad_ring *ring, size_t at)
{
    return (_Atomic uint16_t *)(void *)(ring->base + at);
}

/* struct virtq_desc (virtio 1.4, 2.7.5). */
struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

int device_start(struct device *device);
void device_stop(struct device *device);

#endif
