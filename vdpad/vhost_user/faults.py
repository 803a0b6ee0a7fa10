"""What goes wrong between a front end and us, and whose fault it is.

- `BadMessage`: what came is no message. Nothing that comes behind it can be told apart from noise,
  so the connection is closed.
- `NotServed`: a message that is well formed, and cannot be served now. The front end is told where
  the protocol has a way to; else the connection is closed, since it would go on as if it were done.
- `FrontEndGone`: nobody is there to be told anything.

Whatever else a device raises of its own is told to the front end as `NotServed` is.
"""

from vdpad.errors import VdpadError


class VhostUserError(VdpadError):
    """A session does not go as the front end wants it to."""


class BadConnection(VhostUserError):
    """A descriptor over which no vhost-user can be spoken."""


class BadMessage(VhostUserError, ValueError):
    """The front end breaks the protocol's form."""


class NotServed(VhostUserError):
    """The front end asks for what cannot be, or cannot be now."""


class FrontEndGone(VhostUserError):
    """The front end has closed its end."""
