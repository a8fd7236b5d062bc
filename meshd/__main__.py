"""The command line of the daemon: `meshd run` and its other verbs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

# structlog loads rich where it is installed, for colourful tracebacks: 5 MB of a daemon's memory (measured).
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None marks a module as absent

import structlog  # noqa: E402

from meshd import __version__, files, systemd  # noqa: E402
from meshd.config import Config, Log, load  # noqa: E402
from meshd.errors import START_AGAIN, Code, MeshError, leaf  # noqa: E402
from meshd.shutdown import Shutdown  # noqa: E402
from meshd.systemd import Notifier, ServiceManager  # noqa: E402

VERBS = {
    "run": ("run this machine's node in the foreground", ""),
    "check": ("show the effective configuration", ""),
    "encrypt-secrets": (
        "have systemd keep the mesh's secrets encrypted on this node's disk (as root)",
        "The swarm key and the cluster's secret go from plain files into credentials of the unit, and the service is\n"
        "restarted. With a key in the TPM the disk alone does not give them away. Keys and certificates of the node\n"
        "itself, and the content, stay as they are.",
    ),
    "decrypt-secrets": (
        "make plain files of the mesh's secrets again (as root)",
        "Before the disk moves to another machine: what a TPM encrypted, no other machine decrypts.",
    ),
}
"""The verbs of `meshd`: a summary of each, and what more there is to say."""
KEYS = ("auto", "host", "tpm2", "host+tpm2")
"""The keys that can encrypt the secrets: one on this machine's disk, one in its TPM, or both."""
RELOADED = ("log.level", "storage.reserve", "storage.offer")
"""The configuration keys that SIGHUP applies; every other one waits for a restart."""


class _Parser(argparse.ArgumentParser):
    """argparse, but it reports a wrong command line as a MeshError."""

    def error(self, message: str) -> NoReturn:
        raise _not_understood(message, f"{self.prog} --help")


def _not_understood(why: str, hint: str) -> MeshError:
    return MeshError(Code.BAD_REQUEST, "cannot understand the command", why, hint)


def main(arguments: list[str] | None = None) -> int:
    """The daemon's command line. Exit codes: 0 done, 1 failed, 2 usage or configuration."""
    parser = _Parser(prog="meshd", description="keeps files together on a few machines, privately")
    parser.add_argument("--version", action="version", version=f"meshd {__version__}")
    verbs = parser.add_subparsers(dest="verb", parser_class=_Parser)
    for verb, (text, more) in VERBS.items():
        sub = verbs.add_parser(
            verb,
            help=text,
            description=f"{text}\n\n{more}" if more else text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument(
            "--config", type=Path, metavar="FILE", help="default: /etc/meshd/meshd.toml, where there is one"
        )
        if verb == "encrypt-secrets":
            sub.add_argument(
                "--with-key",
                choices=KEYS,
                default="auto",
                help="as systemd-creds takes it; default: in the TPM, and where there is none on the disk",
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
    if options.verb in ("encrypt-secrets", "decrypt-secrets"):
        return _secrets(options, config)
    configure_logging(config.log)
    faulthandler.enable()  # where the watchdog ends a hang by SIGABRT, it prints where
    try:
        with contextlib.suppress(OSError):  # for ps, top and systemctl status, which show python else
            Path("/proc/self/comm").write_text("meshd")
        from meshd.supervise import child  # `check` does not need it

        with Shutdown(lambda: child.kill_all(child.KILLED_S)) as end:
            asyncio.run(_run(config, options.config, end))
    except Exception as exc:  # noqa: BLE001 - whatever ends the daemon, a person reads what it was and what to do
        return _fail(_why(exc), 1)
    return 0


def _secrets(options: argparse.Namespace, config: Config) -> int:
    from meshd import encrypt_secrets  # `run` does not need it

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")

    try:
        if options.verb == "encrypt-secrets":
            encrypt_secrets.encrypt(config.state, options.with_key, say)
        else:
            encrypt_secrets.decrypt(config.state, say)
    except MeshError as exc:
        return _fail(exc, 1)
    except KeyboardInterrupt:
        cause, hint = (
            "it was interrupted",
            f"sudo meshd {options.verb}, once more; how it is now: meshctl status",
        )
        return _fail(MeshError(Code.INTERNAL, "cannot say how the secrets lie now", cause, hint), 1)
    return 0


def _why(exc: BaseException) -> MeshError:
    """The exception that ended the daemon, as an error for a person. Logs the stack trace of a bug."""
    found = leaf(exc)
    if isinstance(found, MeshError):
        return found
    if isinstance(found, OSError) and found.errno is not None:
        return files.unusable(found, "cannot run")
    structlog.get_logger(part="daemon").error("ended by a mistake", exc_info=exc)
    return MeshError(
        Code.INTERNAL,
        "cannot run",
        f"meshd made a mistake: {type(found).__name__}; its log, above, has the details",
        START_AGAIN,
    )


async def _run(config: Config, path: Path | None, end: Shutdown) -> None:
    end.bind(asyncio.get_running_loop())
    # Imported here so that `check` starts fast.
    from meshd import daemon

    if systemd.unavailable(os.environ):
        structlog.get_logger(part="daemon").warning(
            "the journal gets no fields and no explanations: systemd-python is not installed",
            hint="install meshd's package; or: pip install 'meshd[systemd]'",
        )
    try:
        await daemon.run(config, end, ServiceManager(Notifier(os.environ)), lambda: _reread(config, path))
    finally:
        end.node_ended()


def _reread(running: Config, path: Path | None) -> Config | None:
    """Read the configuration file again; None, with a line in the log, where it cannot be used.

    Logs which changes wait for a restart.
    """
    log = structlog.get_logger(part="daemon")
    try:
        new = load(path)
    except MeshError as exc:
        log.error("cannot reload", error=str(exc), hint=exc.hint)
        return None
    _THRESHOLD.level = new.log.level
    before, now = running.model_dump(), new.model_dump()
    waiting = [
        f"{section}.{key}"
        for section, keys in now.items()
        for key, value in keys.items()
        if value != before[section][key] and f"{section}.{key}" not in RELOADED
    ]
    if waiting:
        log.warning(
            "these changes wait for a restart", keys=", ".join(waiting), hint="sudo systemctl restart meshd"
        )
    log.info("reloaded")
    return new


class _Stderr:
    """Standard error for the log. Drops a line that cannot be written (a full disk, a reader that is gone).

    So logging ends no part of the daemon.
    """

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


class _Threshold:
    """A processor of structlog that drops events below [log] level, which SIGHUP may change."""

    def __init__(self) -> None:
        self.level = "info"

    def __call__(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        levels = logging.getLevelNamesMapping()
        if levels[str(event["level"]).upper()] < levels[self.level.upper()]:
            raise structlog.DropEvent
        return event


_THRESHOLD = _Threshold()


def configure_logging(log: Log) -> None:
    """Set up structured logging: text at a terminal, entries with fields in the journal, else a JSON object a line."""
    _THRESHOLD.level = log.level
    journal = systemd.of_process(os.environ) if log.format == "auto" else None
    text = log.format == "text" or (log.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = journal or (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _THRESHOLD,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=(lambda *_: journal) if journal else structlog.WriteLoggerFactory(file=_Stderr()),  # type: ignore[arg-type]  # it needs no other method of a file
        cache_logger_on_first_use=True,
    )


def _fail(error: MeshError, code: int) -> int:
    """Print an error on standard error, with control characters of files and names made harmless; return `code`."""
    lines = [f"meshd: {error.title}"]
    lines += [f"  {line}" for line in error.detail.splitlines()]
    if error.hint:
        lines.append(f"  try: {error.hint}")
    shown = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines]
    sys.stderr.write("\n".join(shown) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
