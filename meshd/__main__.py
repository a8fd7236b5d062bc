"""`meshd run` and `meshd check`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import NoReturn

# structlog loads rich where it is installed, for colourful tracebacks: 5 MB of a daemon's memory (measured).
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None is how a module is marked as absent

import structlog  # noqa: E402

from meshd import __version__, files  # noqa: E402
from meshd.config import Config, Log, load  # noqa: E402
from meshd.errors import Code, MeshError  # noqa: E402


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is told as every other one is."""

    def error(self, message: str) -> NoReturn:
        raise _not_understood(message, f"{self.prog} --help")


def _not_understood(why: str, hint: str) -> MeshError:
    return MeshError(Code.BAD_REQUEST, "cannot understand the command", why, hint)


def main(arguments: list[str] | None = None) -> int:
    """The daemon's command line. Exit codes: 0 done, 1 failed, 2 usage or configuration."""
    parser = _Parser(prog="meshd", description="keeps files together on a few machines, privately")
    parser.add_argument("--version", action="version", version=f"meshd {__version__}")
    verbs = parser.add_subparsers(dest="verb", parser_class=_Parser)
    for verb, text in (
        ("run", "run this machine's node in the foreground"),
        ("check", "show the effective configuration"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument(
            "--config", type=Path, metavar="FILE", help="default: /etc/meshd/meshd.toml, where there is one"
        )
    try:
        options = parser.parse_args(arguments)
        if options.verb is None:
            raise _not_understood("a verb is missing", "meshd run --config FILE; or: meshd --help")
        config = load(options.config)
    except MeshError as exc:
        return _fail(exc, 2)
    if options.verb == "check":
        sys.stdout.write(json.dumps(config.model_dump(mode="json"), indent=2) + "\n")
        return 0
    configure_logging(config.log)
    try:
        asyncio.run(_run(config))
    except Exception as exc:  # noqa: BLE001 - whatever ends the daemon, a person reads what and what to do
        return _fail(_why(exc), 1)
    return 0


def _why(exc: BaseException) -> MeshError:
    """What ended the daemon, as an error for a person; a mistake's stack trace goes to the log."""
    found = exc
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    if isinstance(found, MeshError):
        return found
    if isinstance(found, OSError) and found.errno is not None:
        return files.unusable(found, "cannot run")
    structlog.get_logger(part="daemon").error("ended by a mistake", exc_info=exc)
    return MeshError(
        Code.INTERNAL,
        "cannot run",
        f"meshd made a mistake: {type(found).__name__}; its log, above, has the details",
        "start it again: meshd run; from a package: journalctl -u meshd",
    )


async def _run(config: Config) -> None:
    # Imported here so that `check` answers at once.
    from meshd import daemon

    stop = asyncio.Event()
    daemon.stop_on_signals(stop)
    await daemon.run(config, stop)


def configure_logging(log: Log) -> None:
    """Events with fields to standard error: text for a person at a terminal, a JSON object a line otherwise."""
    text = log.format == "text" or (log.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[log.level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _fail(error: MeshError, code: int) -> int:
    """Say it on standard error. What came from a file or a name moves no cursor and colours nothing."""
    lines = [f"meshd: {error.title}"]
    lines += [f"  {line}" for line in error.detail.splitlines()]
    if error.hint:
        lines.append(f"  try: {error.hint}")
    shown = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines]
    sys.stderr.write("\n".join(shown) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
