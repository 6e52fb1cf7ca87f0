"""The `hwnas` command: assembles the verbs and converts errors to exit codes.

0: done. 1: an error that the user can fix. 2: wrong usage. 3: a check failed. 4: a check could not
be judged. 129, 130 and 143: stopped by SIGHUP, SIGINT and SIGTERM (the same command resumes).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import hwnas
from hwnas.cli import (
    analyze,
    check,
    clean,
    config,
    data,
    doctor,
    export,
    finetune,
    label,
    predictor,
    pretrained,
    profile,
    prune,
    references,
    report,
    run,
    search,
    space,
    status,
    table,
    train,
    undo,
    verify,
)
from hwnas.cli import list as list_verb
from hwnas.cli.output import setup_logging
from hwnas.core.command import command_line
from hwnas.core.errors import HwnasError, WorkerKilled, out_of_memory, worker_killed
from hwnas.core.home import home_expanded
from hwnas.core.store import refused
from hwnas.core.text import guarded_streams
from hwnas.training import distributed

__all__ = ["app", "main"]

GROUPS = {
    "From images and a device to a proven network": (
        run,
        profile,
        train,
        label,
        search,
        finetune,
        export,
        verify,
        references,
        report,
    ),
    "In a run folder": (status, check, undo, clean, analyze, prune, predictor),
    "Data, settings, spaces, tables, weights": (
        list_verb,
        data,
        config,
        space,
        table,
        pretrained,
        doctor,
    ),
}
"""Maps each heading of `hwnas --help` to the verbs below it."""


class _Grouped(TyperGroup):
    """Lists verbs under the headings of `GROUPS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for heading, verbs in GROUPS.items():
            names = [verb.__name__.rpartition(".")[2] for verb in verbs]
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (f"{name:{width}}", self.commands[name].get_short_help_str(limit=90))
                        for name in names
                    ]
                )


app = typer.Typer(
    name="hwnas",
    cls=_Grouped,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for verbs in GROUPS.values():
    for verb in verbs:
        verb.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hwnas {hwnas.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hardware-aware neural architecture search with measured latency as the cost.

    Profile the device, train one supernet, search with measured latency, export and verify. `hwnas
    run quickstart` does all of this in minutes. `hwnas VERB --help` has examples. `--debug`
    (anywhere) shows tracebacks and debug logs.
    """


class _Stopped(BaseException):
    """Raised on SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process
    raise _Stopped(number)


def _at_home(argument: str) -> str:
    """The argument or `--OPTION=VALUE`; `~` at the start of a path is the home folder."""
    option, is_pair, value = argument.partition("=")
    if is_pair and option.startswith("--"):
        return f"{option}={home_expanded(value, where=option)}"
    return str(home_expanded(argument, where=argument))


def _run(arguments: list[str]) -> None:
    """Runs the command; under torchrun, ranks other than 0 follow rank 0."""
    if distributed.follows():
        from hwnas.pipeline.follow import follow
        from hwnas.pipeline.graph import stages_of

        follow(stages_of)
        return
    try:
        app(args=[*map(_at_home, arguments)], prog_name="hwnas")
    except SystemExit as ending:
        sys.stdout.flush()  # report write errors now, not at exit
        if not ending.code:
            distributed.dismiss()
        raise


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point; exits the process."""
    _fill_closed_streams()
    with guarded_streams():
        _main(arguments)


def _fill_closed_streams() -> None:
    """Opens closed standard streams, whose file descriptors other files would otherwise get."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - as the process


def _exit_stopped(number: int, given: Sequence[str]) -> NoReturn:
    if not distributed.follows():
        with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
            sys.stderr.write(
                f"\nstopped by {signal.Signals(number).name}; nothing is lost; to resume:"
                f" {command_line(*given)}\n"
            )
    sys.exit(128 + number)


def _main(arguments: Sequence[str] | None) -> NoReturn:
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    setup_logging(debug=debug)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # for nohup
            signal.signal(number, _stop)
    try:
        _run([argument for argument in given if argument != "--debug"])
    except _Stopped as stopped:
        _exit_stopped(stopped.number, given)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # system errors: permissions, full disks, missing files
        if debug:
            raise
        found = refused(error, "finish the command", error.filename)
        sys.stderr.write(f"error: {found}\n")
        sys.exit(found.exit_code)
    except (HwnasError, MemoryError, ImportError, RuntimeError) as error:
        ours = error if isinstance(error, HwnasError) else None
        ours = ours or worker_killed(error) or out_of_memory(error)
        if isinstance(ours, WorkerKilled) and ours.by_termination:  # of the process group
            _exit_stopped(signal.SIGTERM, given)
        if debug or ours is None:
            raise
        sys.stderr.write(f"error: {ours}\n")
        sys.exit(ours.exit_code)
    sys.exit(0)
