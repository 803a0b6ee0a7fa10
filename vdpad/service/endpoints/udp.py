"""The UDP endpoint: sealed datagrams from other hosts, through the same queue, tasks and API.

Seals are the socket's affair. Its `recvfrom` opens a datagram before anything else sees it, and one
that is not let in is as if nothing had come: no task, no queue, no answer, only a count by reason
and now and then a line in the log. Its `sendto` seals. So between the two all is as it is on the
Unix socket, except that a Peer is `sealed`: it has no uid, and no descriptors.

Datagrams get lost, so clients repeat requests, sealed anew each time. A repetition of what is still
being answered is dropped, as the answer is on its way. One of what was answered before is answered
again: operations are recorded, so that nothing is done twice.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from vdpad.errors import why
from vdpad.service.endpoints.binding import CannotListen
from vdpad.service.endpoints.endpoint import Answer, Endpoint
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.events.kinds import DatagramsRefused
from vdpad.service.events.tally import Tally
from vdpad.service.threads import on_a_thread
from vdpad.service.users.turns import Turns
from vdpad.wire.admitted import Admitted
from vdpad.wire.datagrams import NoteLoss, Peer, loss_of, untold
from vdpad.wire.sealing import MAX_TEXT, MAX_TOKEN, Gate, NotOpened, Reason, Sealer, is_reply

# A burst of requests from many sources at once, as far as the host's limit lets it.
_RECEIVE_BUFFER = 4 * 1024 * 1024


class SealedSocket(socket.socket):
    """A UDP socket for asyncio_dgram's streams, with a Peer in each address's place."""

    def __init__(self, family: int, gate: Gate, announce: Announce) -> None:
        super().__init__(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.gate = gate
        self.refused: Tally[tuple[str, str]] = Tally(
            lambda count, reasons, last: announce(DatagramsRefused(count, reasons, *last))
        )
        """By sealing.Reason; of the last one what was wrong with it, and where it came from."""
        self.lost: NoteLoss = untold

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """The text of one datagram and its Peer, whatever size is asked for.

        Raises:
            BlockingIOError: nothing came, or nothing that is let in.
        """
        token, address = super().recvfrom(MAX_TOKEN + 1, flags)
        try:
            text = self.gate.admit(token)
            if is_reply(text):
                raise NotOpened(Reason.REFLECTED, "a reply, which is not what a daemon is sent")
        except NotOpened as error:
            self.refused.note(error.reason, (str(error), address[0]))
            raise BlockingIOError from None
        return text, Peer(address, sealed=True, limit=MAX_TEXT)

    def sendto(self, data: bytes, address: Any) -> int:  # type: ignore[override]
        """Seals and sends to a Peer. Never raises for the peer's or the network's sake."""
        try:
            return super().sendto(self.gate.sealer.seal(data), address.address)
        except OSError as error:
            # No route, no room: a datagram lost, as any may be. The client asks again.
            self.lost(loss_of(error), address, why(error))
            return len(data)


class UdpEndpoint(Endpoint):
    """The UDP socket, for requests of other hosts that are sealed."""

    def __init__(
        self,
        answer: Answer,
        overloaded: bytes,
        keys: Sequence[bytes],
        ttl_s: int,
        admitted: Admitted,
        announce: Announce = log_event,
        turns: Turns | None = None,
    ) -> None:
        """
        Args:
            answer: gives the reply to a datagram.
            overloaded: the reply to one that there is no room for.
            keys: as `load_keys` gives them.
            ttl_s: how long after it was sealed a request is taken, in seconds.
            admitted: what was let in before; closed by `close`.
            announce: told of the socket's errors, and of what is not let in.
            turns: who may keep the loop; others than this endpoint may go by them too.
        """
        super().__init__(answer, overloaded, announce, turns)
        self._admitted = admitted
        self._gate = Gate(Sealer(keys), ttl_s, admitted)
        self._socket: SealedSocket | None = None
        self._under_way: set[tuple[Any, bytes]] = set()
        """Sender and text of each request that is being answered."""

    async def listen(self, host: str, port: int) -> None:
        """Binds the socket and begins to answer.

        Args:
            host: a name or address; "::" is every address of both families.
            port: 0 for one of the kernel's choice.

        Raises:
            CannotListen: the address cannot be had.
        """
        self._socket = await _bound_socket(host, port, self._gate, self._announce)
        self._socket.lost = self._note_lost
        await self._serve(self._socket)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def refused(self) -> Counter[Reason]:
        """How many datagrams were not let in, by reason."""
        if self._socket is None:
            return Counter()
        return Counter({Reason(each): n for each, n in self._socket.refused.counts.items()})

    def use_keys(self, keys: Sequence[bytes]) -> None:
        """Other keys from now on. What came before is still known, and not let in again."""
        self._gate.sealer = Sealer(keys)

    async def close(self) -> None:
        """Ends reading, waits for the replies under way, and closes the socket."""
        await super().close()
        self._admitted.close()
        if self._socket is not None:
            self._socket.refused.flush()

    async def _reply(self, data: bytes, peer: Peer) -> None:
        request = (peer.address, data)
        if request in self._under_way:
            return
        self._under_way.add(request)
        try:
            await super()._reply(data, peer)
        finally:
            self._under_way.discard(request)


async def _bound_socket(host: str, port: int, gate: Gate, announce: Announce) -> SealedSocket:
    place = f"udp {host} port {port}"
    try:
        look_up = partial(
            socket.getaddrinfo, host, port, 0, socket.SOCK_DGRAM, 0, socket.AI_PASSIVE
        )
        found = await on_a_thread(look_up, "look up")
        family, *_, address = found[0]
        endpoint = SealedSocket(family, gate, announce)
    except (OSError, ValueError) as error:
        raise CannotListen(f"{place}: {why(error)}") from error
    try:
        if family == socket.AF_INET6:
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        endpoint.bind(address)
    except OSError as error:
        endpoint.close()
        raise CannotListen(f"{place}: {why(error)}") from error
    return endpoint
