"""Bytes between processes and hosts: datagrams, sealing, keys, addresses, strict JSON."""
