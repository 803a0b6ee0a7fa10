"""The guest's memory, given and taken by the tests' front end, on the software device."""

from tests.backend.vmm import (
    USER,
    BackEnd,
    vmm,
)
from tests.support.guest import shared_region
from tests.vhost_user.front_end import (
    ADD_MEM_REG,
    REM_MEM_REG,
    single,
)


async def test_memory_comes_and_goes_while_it_runs(on: BackEnd) -> None:
    more = shared_region(0x9000_0000)
    try:
        async with vmm(on) as machine:
            await machine.start()
            shared = single(more.start, more.size, USER + more.start, 0)
            await machine.front_end.done(ADD_MEM_REG, shared, [more.fd])
            assert await machine.loop(b"packet") == b"packet"
            await machine.front_end.done(REM_MEM_REG, shared)
            assert await machine.loop(b"packet") == b"packet"
    finally:
        more.close()
