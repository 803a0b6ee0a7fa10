"""The commands of vdpactl that are of a state, and of its migration."""

import argparse

from vdpad.cli import listing, show
from vdpad.cli.adding import Add, Subparsers, add, later
from vdpad.cli.exit_codes import INCOMPATIBLE, OK
from vdpad.cli.options import (
    with_deadline,
    with_device,
    with_migration,
    with_source,
    with_state,
    with_target,
)


def _check(methods: Subparsers) -> None:
    check = add(methods, "check", show.check, "whether a target takes a state")
    with_state(check, needs_target=False)
    check.set_defaults(
        lack=_lack_of_target,
        exit_code=lambda result: OK if result["compatible"] else INCOMPATIBLE,
    )


def _lack_of_target(arguments: argparse.Namespace) -> str:
    given = (arguments.software, arguments.vhost_vdpa, arguments.target)
    return (
        ""
        if given != (None, None, None)
        else "one of --software, --vhost-vdpa and --target, or --backend"
    )


def _load(methods: Subparsers) -> None:
    load = add(methods, "load", show.report, "try a state on a back end's device, for its guest")
    with_source(load)
    load.set_defaults(lack=lambda _: "--backend, as no daemon takes states so")


def _switch(methods: Subparsers) -> None:
    switch = add(methods, "switch", show.report, "have another device take over a back end's guest")
    with_target(switch)
    switch.set_defaults(lack=lambda _: "--backend, as no daemon has a guest's device")


def _prepare(methods: Subparsers) -> None:
    prepare = add(methods, "prepare", show.operation, "check and encode a state for a target")
    with_migration(prepare)
    with_state(prepare)
    with_deadline(prepare)
    prepare.add_argument(
        "--committer", type=int, metavar="UID", help="who may commit it too: the VMM's user"
    )


def _restore(methods: Subparsers) -> None:
    restore = add(methods, "restore", show.report, "prepare and commit in one")
    with_migration(restore)
    with_state(restore)
    with_deadline(restore)


def _commit(methods: Subparsers) -> None:
    commit = add(methods, "commit", show.report, "replay what was prepared")
    with_migration(commit)
    with_deadline(commit)


def _status(methods: Subparsers) -> None:
    status = add(methods, "status", show.status, "what became of one migration, or of all")
    listing.add_options(status)
    status.set_defaults(run=listing.status)


def _watch(methods: Subparsers) -> None:
    watch = add(methods, "watch", lambda _: "", "what is under way, and each change as it comes")
    watch.add_argument("--failed", action="store_true", help="those that failed, and no others")
    watch.set_defaults(run=later("vdpad.cli.watch", "run"))


def _cancel(methods: Subparsers) -> None:
    with_migration(add(methods, "cancel", show.operation, "give up what was prepared"))


def _release(methods: Subparsers) -> None:
    with_device(add(methods, "release", show.released, "close a device that the daemon keeps"))


STATE_COMMANDS: tuple[Add, ...] = (
    _check,
    _load,
    _switch,
    _prepare,
    _restore,
    _commit,
    _status,
    _watch,
    _cancel,
    _release,
)
