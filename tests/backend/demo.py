"""What `make demo-backend` shows: a VMM on vdpad-vhost-user, and what its guest has set.

The program serves its software device. The VMM is the tests' front end with the rings of a guest,
which hands over all queues as crosvm or QEMU's test device do. Its guest sends commands and a
packet; then `vdpactl --backend` shows what the back end knows of it. At last the back end is killed
and started again: the VMM connects anew, and the device has everything back.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.backend.process import BackEndProcess, new_guest, running
from tests.backend.vmm import Vmm
from vdpad.virtio.commands import Command, MacAddrSet, MqPairsSet, RxAllMulti, VlanAdd

BIN = Path(sys.executable).parent

COMMANDS: tuple[Command, ...] = (
    MqPairsSet(2),
    MacAddrSet(bytes.fromhex("525400aabbcc")),
    RxAllMulti(on=True),
    VlanAdd(5),
    VlanAdd(100),
)
ACKS = {bytes((0,)): "OK", bytes((1,)): "ERR"}


async def main() -> int:
    """Runs the demo; 0 where the device has the same after the kill as before."""
    guest = new_guest()
    with tempfile.TemporaryDirectory(prefix="vdpad-demo-", dir="/dev/shm") as name:
        folder = Path(name)
        async with running(folder) as process, process.vmm(guest) as vmm:
            await vmm.start()
            print("The guest sends commands on its control queue, which the back end serves:\n")
            for command in COMMANDS:
                await tell(vmm, command)
            print(f"\nand a packet: {(await vmm.loop(b'hello')).decode()} comes back\n")
            before = await captured(process)
            process.kill()
        print("\nThe back end is killed, and started again; the VMM connects anew:\n")
        async with running(folder) as process, process.vmm(guest) as vmm:
            # By the used rings: of the first pair one packet each, of the CVQ the commands.
            await vmm.start([1, 1, *[0] * 6, len(COMMANDS)])
            after = await captured(process)
    guest.close()
    same = before["state"] == after["state"]
    print("\nThe device has", "what it had." if same else "something else.")
    return 0 if same else 1


async def tell(vmm: Vmm, command: Command) -> None:
    """Sends a command; tells of it and of its ack."""
    ack = await vmm.command(command.encode())
    print(f"  {command.NAME} {command.arguments()}: {ACKS.get(ack, ack.hex())}", flush=True)


async def captured(process: BackEndProcess) -> dict[str, object]:
    """Has vdpactl show what is captured; gives the same."""
    await vdpactl(process, "status")
    await vdpactl(process, "capture")
    shown = await process.ask("capture")
    return dict(shown)


async def vdpactl(process: BackEndProcess, method: str) -> None:
    """Runs it, with its output to be seen."""
    print(f"$ vdpactl --backend {process.control.name} {method}", flush=True)
    command = [str(BIN / "vdpactl"), "--backend", str(process.control), method]
    await asyncio.to_thread(subprocess.run, command, check=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
