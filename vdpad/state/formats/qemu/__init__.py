"""QEMU's migration stream: what it tells of each virtio-net device in it.

`stream` walks the whole of it, section by section, and `description` reads what QEMU says of its
sections at the end; `ram` passes over guest memory. A device's section is read in layers, outermost
first: `pci`, `virtio`, `net`; and `state` makes a NetState of it. `source` is what all read from.
"""

from vdpad.state.formats.qemu.stream import QemuStream, read_stream

__all__ = ["QemuStream", "read_stream"]
