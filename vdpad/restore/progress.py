"""How far a replay has come, in memory that its caller gives and may share with others.

Two things, so that the pipeline's straight way has one store a bank and no more:

- words: `ANSWERED` is the number of commands from the first on that were all acked OK, those apart
  that have an ack below; `DOORBELLS` counts doorbells.
- acks: one byte a command, as it was read; ACK_NONE where it was not, or was read on the straight
  way.

Only the pipeline writes here, and only what it has read, so whoever reads it at any moment, be it
after the death of the process, finds nothing that no ack has said. How many commands beyond those
were published it does not tell: at most `Program.most_in_flight`.
"""

from dataclasses import dataclass

from vdpad.virtio.commands import ACK_ERR, ACK_NONE, ACK_OK

ANSWERED, DOORBELLS = range(2)
WORDS = 2
WORD = 8
"""Bytes of each, in this machine's order."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a replay, by the commands' indices in the program."""

    rejected: tuple[int, ...]
    unanswered: tuple[int, ...]
    """All others without an ack; some may have been applied."""
    doorbells: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one replay has come, in memory that outlives the process where it is shared."""

    words: memoryview
    """Of format "Q", WORDS of them, all 0 at the start."""
    acks: memoryview
    """As many bytes as commands, all ACK_NONE at the start."""

    @classmethod
    def unshared(cls, commands: int) -> "Progress":
        """For a replay that nobody watches."""
        words = memoryview(bytearray(WORDS * WORD)).cast("Q")
        return cls(words, memoryview(bytearray([ACK_NONE]) * commands))

    def known(self) -> Known:
        """What is known now."""
        rejected, unanswered = [], []
        answered, doorbells = self.words
        for index, ack in enumerate(self.acks):
            if ack == ACK_ERR:
                rejected.append(index)
            elif ack != ACK_OK and (ack != ACK_NONE or index >= answered):
                unanswered.append(index)
        return Known(tuple(rejected), tuple(unanswered), doorbells)

    def close(self) -> None:
        """Lets go of the memory."""
        self.words.release()
        self.acks.release()
