"""Where other hosts may ask: the UDP endpoint as it is configured.

Imported where it is used only: the cryptography takes time and memory, which a host without UDP
need not spend.
"""

from collections.abc import Callable

import vdpad
from vdpad.daemon.events.daemon import RecordLost
from vdpad.daemon.settings import Udp
from vdpad.service.endpoints.endpoint import Answer
from vdpad.service.endpoints.udp import UdpEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.events.kinds import Listening
from vdpad.service.users.turns import Turns
from vdpad.wire import admitted
from vdpad.wire.addresses import host_and_port
from vdpad.wire.keys import key_file, load_keys

# The file of the requests that were let in.
_MEMORY = "requests-from-other-hosts"

Keep = Callable[[str, int], memoryview | None]
"""Gives memory of a name and a size that outlives this daemon; None where there is none."""


async def serve_udp(
    answer: Answer,
    settings: Udp,
    keep: Keep,
    announce: Announce = log_event,
    turns: Turns | None = None,
) -> UdpEndpoint:
    """The endpoint, listening. Only where `listen` is set.

    Args:
        answer: gives the reply to a datagram.
        settings: of UDP.
        keep: for what the next daemon must know.
        announce: told of what goes wrong.

    Raises:
        BadKeys: the keys cannot be had.
        CannotListen: the address cannot be had.
    """
    assert settings.listen is not None
    assert settings.key_file is not None
    keys = load_keys(key_file(settings.key_file))
    endpoint = UdpEndpoint(
        answer, OVERLOADED, keys, settings.ttl_s, _admitted(keep, announce), announce, turns
    )
    try:
        await endpoint.listen(*host_and_port(settings.listen))
    except BaseException:
        await endpoint.close()
        raise
    host, port = endpoint.address
    announce(Listening(f"udp {host} port {port}", vdpad.__version__))
    return endpoint


def _admitted(keep: Keep, announce: Announce) -> admitted.Admitted:
    """The requests that were let in before, as far as that is known."""
    size = admitted.size_of(admitted.MAX_ADMITTED)
    memory = keep(_MEMORY, size) or memoryview(bytearray(size))
    now = admitted.since_boot()
    try:
        return admitted.recall(memory, now)
    except admitted.BadMemory as error:
        announce(RecordLost(_MEMORY, str(error)))
        return admitted.begin(memory, now)
