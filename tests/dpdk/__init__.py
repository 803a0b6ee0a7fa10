"""DPDK's testpmd as a front end: no machine, no huge pages, as many packets as one likes."""
