"""Hypothesis strategies for every command, with every value that the wire takes."""

from collections.abc import Mapping

from hypothesis import strategies as st

from vdpad.virtio.commands import (
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
    CoalVqGet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
MACS = st.binary(min_size=6, max_size=6)
KEYS = st.binary(max_size=255)


def bits(width: int) -> st.SearchStrategy[frozenset[int]]:
    """Any set of bits of a mask so wide."""
    return st.frozensets(st.integers(0, width - 1), max_size=width)


_MAC_LISTS = st.lists(MACS, max_size=8).map(tuple)

BY_CLASS: Mapping[type[Command], st.SearchStrategy[Command]] = {
    **{
        mode: st.booleans().map(mode)
        for mode in (RxPromisc, RxAllMulti, RxAllUni, RxNoMulti, RxNoUni, RxNoBcast)
    },
    MacTableSet: st.builds(MacTableSet, unicast=_MAC_LISTS, multicast=_MAC_LISTS),
    MacAddrSet: st.builds(MacAddrSet, mac=MACS),
    VlanAdd: st.builds(VlanAdd, vid=U16),
    VlanDel: st.builds(VlanDel, vid=U16),
    AnnounceAck: st.just(AnnounceAck()),
    MqPairsSet: st.builds(MqPairsSet, pairs=U16),
    MqRssConfig: st.builds(
        MqRssConfig,
        hash_types=bits(32),
        unclassified_queue=U16,
        indirection_table=st.lists(U16, min_size=1, max_size=300).map(tuple),
        max_tx_queues=U16,
        key=KEYS,
    ),
    MqHashConfig: st.builds(MqHashConfig, hash_types=bits(32), key=KEYS),
    GuestOffloadsSet: st.builds(GuestOffloadsSet, offloads=bits(64)),
    CoalTxSet: st.builds(CoalTxSet, max_packets=U32, max_usecs=U32),
    CoalRxSet: st.builds(CoalRxSet, max_packets=U32, max_usecs=U32),
    CoalVqSet: st.builds(CoalVqSet, queue=U16, max_packets=U32, max_usecs=U32),
    CoalVqGet: st.builds(CoalVqGet, queue=U16, max_packets=U32, max_usecs=U32),
    HashTunnelSet: st.builds(HashTunnelSet, tunnel_types=bits(32)),
}

COMMANDS: st.SearchStrategy[Command] = st.one_of(*BY_CLASS.values())
