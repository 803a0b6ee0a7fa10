"""org.varlink.service: the interface that every Varlink service has, about itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from vdpad.errors import VdpadError
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.service.varlink.interface import Interface
from vdpad.wire.varlink import SERVICE, CallReply, Json

DESCRIPTION = f"""\
# The Varlink service interface: what every service says of itself.
interface {SERVICE}

# Who made it, and which interfaces it has.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# An interface in Varlink's interface definition language.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error MethodNotImplemented (method: string)

error InvalidParameter (parameter: string)

error PermissionDenied ()

error ExpectedMore ()
"""


@dataclass(frozen=True, slots=True)
class About:
    """What a service says of itself."""

    vendor: str
    product: str
    version: str
    url: str


class NotCalled(VdpadError):
    """What is called is not there, or not to be called like this."""

    def __init__(self, error: str, **parameters: str) -> None:
        """
        Args:
            error: one of the interface's errors.
            parameters: what goes with it.
        """
        super().__init__(f"{error} {parameters}")
        self.reply = CallReply(dict(parameters), f"{SERVICE}.{error}")


def service_interface(about: About, interfaces: Sequence[Interface]) -> Interface:
    """That of a service which has these interfaces beside.

    Its methods raise NotCalled and Refusal.
    """
    described = {SERVICE: lambda: DESCRIPTION, **{each.name: each.describe for each in interfaces}}

    async def get_info(request: Request) -> Json:
        _refuse_all_but(request)
        return {**asdict(about), "interfaces": sorted(described)}

    async def get_interface_description(request: Request) -> Json:
        _refuse_all_but(request, "interface")
        name = request.params.get("interface")
        if not isinstance(name, str):
            raise _invalid("interface", "expected an interface's name")
        if name not in described:
            raise NotCalled("InterfaceNotFound", interface=name)
        return {"description": described[name]()}

    return Interface(
        SERVICE,
        described[SERVICE],
        {"GetInfo": get_info, "GetInterfaceDescription": get_interface_description},
    )


def _refuse_all_but(request: Request, *known: str) -> None:
    for name in request.params:
        if name not in known:
            raise _invalid(name, "no such parameter is known here")


def _invalid(name: str, message: str) -> Refusal:
    problem = {"path": name, "code": "invalid", "message": message}
    return Refusal(Kind.INVALID_PARAMS, f"{name}: {message}", problems=[problem])
