"""Passing over guest memory.

A RAM section is a run of chunks, each a 64-bit word whose low bits are flags and whose others are
an address, and what the flags say follows. The first section lists the blocks of memory; those
behind it hold pages; each ends with its end chunk. Nothing of it is kept: a guest writes its
memory, so nothing in it may be believed, and nothing has to be.

Two migration capabilities change the list of blocks without a flag, and the stream's configuration
tells them. With mapped-ram the pages stand at fixed places, in one run behind each block's entry.

Source: the layout of QEMU's migration/ram.c as observed (tests/qemu, tests/guest).
"""

from dataclasses import dataclass

from vdpad.state.formats.qemu.source import Source

_ZERO = 0x002
_SIZES = 0x004
_PAGE = 0x008
_END = 0x010
_SAME_BLOCK = 0x020
_XBZRLE = 0x040
_COMPRESSED = 0x100
_MULTIFD_FLUSH = 0x200

_XBZRLE_ENCODING = 1
_MAPPED_RAM_VERSION = 1


@dataclass(frozen=True, slots=True)
class RamLayout:
    """What the stream's configuration says of its RAM sections."""

    page_size: int = 4096
    """Bytes."""
    ignore_shared: bool = False
    """Each block's entry has an address too."""
    mapped_ram: bool = False
    """Each block's entry is followed by its pages."""


def skip_ram(source: Source, layout: RamLayout) -> None:
    """Passes over one RAM section, up to its footer.

    Raises:
        FormatError: a chunk that is not known, or the end of the stream.
    """
    flags_mask = layout.page_size - 1
    flags = 0
    while not flags & _END:
        word = source.u64("a RAM chunk")
        flags = word & flags_mask
        kind = flags & ~_SAME_BLOCK
        if kind == _PAGE:
            _skip_block_name(source, flags)
            source.take(layout.page_size, "a page")
        elif kind == _ZERO:
            _skip_block_name(source, flags)
            source.take(1, "a zero page")
        elif kind == _SIZES:
            _skip_blocks(source, word & ~flags_mask, layout)
        elif kind == _XBZRLE:
            _skip_block_name(source, flags)
            source.expect("the XBZRLE encoding", _XBZRLE_ENCODING, source.u8("an encoding"), 1)
            source.take(source.u16("a length"), "an XBZRLE page")
        elif kind == _COMPRESSED:
            _skip_block_name(source, flags)
            _skip_compressed(source, layout)
        elif kind not in (_END, _MULTIFD_FLUSH):
            raise source.wrong("a known kind of RAM chunk", f"flags {flags:#x}", source.at - 8)


def _skip_block_name(source: Source, flags: int) -> None:
    if not flags & _SAME_BLOCK:
        source.take(source.u8("the length of a block's name"), "a block's name")


def _skip_compressed(source: Source, layout: RamLayout) -> None:
    length = source.u32("a length")
    # zlib's compressBound of a page is less than a hundredth more than the page.
    if length > 2 * layout.page_size:
        raise source.wrong("a compressed page", f"{length} bytes", source.at - 4)
    source.take(length, "a compressed page")


def _skip_blocks(source: Source, total: int, layout: RamLayout) -> None:
    """The list of blocks, which ends when their lengths add up to the total."""
    while total > 0:
        start = source.at
        source.name("a block's name")
        length = source.u64("a block's length")
        if length > total:
            raise source.wrong(f"a block of at most {total} bytes", str(length), start)
        total -= length
        if layout.ignore_shared:
            source.u64("a block's address")
        if layout.mapped_ram:
            _skip_mapped(source, length)


def _skip_mapped(source: Source, length: int) -> None:
    """A block's pages at the place that its entry names. Those that are zero are holes.

    A block that ignore-shared leaves out has an entry without any place (QEMU 11.1).
    """
    source.expect("mapped-ram version", _MAPPED_RAM_VERSION, source.u32("a version"), 4)
    source.u64("a page size")
    bitmap, pages = source.u64("the bitmap's offset"), source.u64("the pages' offset")
    if not bitmap and not pages:
        return
    if pages < source.at:
        raise source.wrong(f"the pages at byte {source.at} or later", str(pages), source.at - 8)
    source.skip(pages + length - source.at, "a block's pages")
