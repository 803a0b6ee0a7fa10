"""What all formats say alike: who was tested, with what, and when."""

from vdpad.conformance.self_test import SelfTest, ToldCase


def identified(result: SelfTest) -> list[tuple[str, str]]:
    """Names and values, in the order in which they are told."""
    identity = result.identity
    return [
        ("device", identity.device),
        ("node", result.node or "none"),
        ("parent driver", identity.parent_driver or "none"),
        ("management device", identity.mgmtdev or "none"),
        ("kernel", identity.kernel),
        ("vdpad", identity.vdpad),
        ("date", identity.date),
        ("time of the run", f"{identity.seconds:.1f} s"),
        ("ring size", str(result.ring_size)),
        ("features", ", ".join(result.features)),
        ("offered", ", ".join(identity.offered)),
    ]


def plain(text: str) -> str:
    """Text that no format takes for anything else: a device's name is its owner's."""
    return "".join(each if each.isprintable() else "?" for each in text)


def said(case: ToldCase) -> str:
    """What was seen of a case."""
    return plain("; ".join(case.seen))
