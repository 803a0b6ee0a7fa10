"""Where other hosts may ask: the UDP endpoint as it is configured.

Imported where it is used only: the cryptography takes time and memory, which a host without UDP
need not spend.
"""

import vdpad
from vdpad.daemon.settings import Udp
from vdpad.service.endpoints.endpoint import Answer
from vdpad.service.endpoints.udp import UdpEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.events.kinds import Listening
from vdpad.wire.addresses import host_and_port
from vdpad.wire.keys import key_file, load_keys


async def serve_udp(answer: Answer, settings: Udp, announce: Announce = log_event) -> UdpEndpoint:
    """The endpoint, listening. Only where `listen` is set.

    Raises:
        BadKeys: the keys cannot be had.
        CannotListen: the address cannot be had.
    """
    assert settings.listen is not None
    assert settings.key_file is not None
    keys = load_keys(key_file(settings.key_file))
    endpoint = UdpEndpoint(answer, OVERLOADED, keys, settings.ttl_s, announce)
    await endpoint.listen(*host_and_port(settings.listen))
    host, port = endpoint.address
    announce(Listening(f"udp {host} port {port}", vdpad.__version__))
    return endpoint
