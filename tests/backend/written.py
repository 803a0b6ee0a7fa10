"""Which pages of a guest's memory its device, or its driver, has written to."""

from tests.support.guest import Guest


def used_ring(guest: Guest, index: int) -> set[int]:
    """The pages of a queue's used ring."""
    driver = guest.queues[index].driver
    end = driver.used + 4 + 8 * driver.size + 2
    return {*range(driver.used >> 12, ((end - 1) >> 12) + 1)}


def contents(guest: Guest) -> dict[int, bytes]:
    """The guest's memory by its pages."""
    return {
        (region.start + at) >> 12: region.mapping[at : at + 4096]
        for region in guest.regions
        for at in range(0, region.size, 4096)
    }


def changed(before: dict[int, bytes], guest: Guest) -> set[int]:
    """Pages that are not as they were."""
    return {page for page, data in contents(guest).items() if data != before[page]}


def driven(guest: Guest) -> set[int]:
    """Pages that the guest's driver writes to: descriptor tables, available rings, what it sends.

    In the tests' guest a packet or an indirect table may stand on any page, so these are whole
    transmit queues' regions, and the receive queues' rings.
    """
    pages = set()
    for queue in guest.queues:
        driver = queue.driver
        pages |= {driver.descriptors >> 12, (driver.descriptors + 16 * driver.size - 1) >> 12}
        pages |= {driver.available >> 12, (driver.available + 6 + 2 * driver.size - 1) >> 12}
        if queue.index % 2 or queue is guest.queues[-1]:
            for region in queue.regions:
                pages |= set(range(region.start >> 12, (region.start + region.size) >> 12))
    return pages
