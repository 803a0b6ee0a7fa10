"""The PCI function's layer: how many interrupt vectors it has, and how long the layer is.

The config space tells both. Its capabilities are the device's own: a guest can't write them.

Source: QEMU's hw/pci/pci.c and msix.c as observed; PCI Local Bus 3.0, 6.7 "Capabilities List".
"""

from vdpad.state.formats.qemu.source import Source

_VERSION = 2
_CONFIG = 256
_EXTENDED_CONFIG = 4096
_IRQ_STATE = 16
_CAPABILITIES_AT = 0x34
_EXPRESS = 0x10
_MSIX = 0x11
_MSIX_ENTRIES = 0x7FF
_MSIX_ENTRY = 16


def skip_pci(source: Source) -> bool:
    """Passes over the layer; tells whether the function has MSI-X.

    Raises:
        FormatError: it is another version, or its capabilities make no sense.
    """
    source.expect("PCI version", _VERSION, source.u32("the PCI version"), 4)
    config = source.take(_CONFIG, "the config space")
    capabilities = _capabilities(source, config)
    if _EXPRESS in capabilities:
        source.take(_EXTENDED_CONFIG - _CONFIG, "the extended config space")
    source.take(_IRQ_STATE, "the interrupt pins")
    if _MSIX not in capabilities:
        return False
    control = int.from_bytes(config[capabilities[_MSIX] + 2 :][:2], "little")
    entries = (control & _MSIX_ENTRIES) + 1
    source.take(entries * _MSIX_ENTRY, "the MSI-X table")
    source.take((entries + 7) // 8, "the pending MSI-X bits")
    source.u16("the config vector")
    return True


def _capabilities(source: Source, config: bytes) -> dict[int, int]:
    """Where each kind of capability stands."""
    found: dict[int, int] = {}
    at = config[_CAPABILITIES_AT]
    for _ in range(_CONFIG // 4):
        if not at:
            return found
        if at > _CONFIG - 4:
            break
        found.setdefault(config[at], at)
        at = config[at + 1]
    raise source.wrong("a list of PCI capabilities", "one without an end")
