"""What a verb understands, as it declares it, and the quick reader of command lines that need no argparse.

The reader takes what is plainly right, and leaves everything else (help, mistakes, names behind --, options in
unusual forms) to meshctl.parser, which makes an argparse parser of the same declaration: so there is one wording of
every mistake. Where the two understand a command line at all, they understand the same.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Convert = Callable[[str], object]


class BadValueError(ValueError):
    """A value that an option or a name cannot have; the text says why."""


class Options:
    """The command line of one verb, as attributes."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Argument:
    """One option or name, in argparse's words. group: the number of those of which only one may be given."""

    def __init__(self, names: tuple[str, ...], group: int | None, how: dict[str, Any]) -> None:
        self.names = names
        self.group = group
        self.how = how
        self.option = names[0].startswith("-")
        self.flag = how.get("action") == "store_true"
        long = next((name for name in names if name.startswith("--")), names[0])
        self.dest: str = how.get("dest") or long.lstrip("-").replace("-", "_")
        self.many: str | None = how.get("nargs")

    @property
    def default(self) -> object:
        """Its value where it is not given."""
        empty: object = False if self.flag else None
        return self.how.get("default", empty)

    def convert(self, text: str) -> object:
        """Its value. Raises BadValueError."""
        to: Convert | None = self.how.get("type")
        value = text if to is None else to(text)
        if self.how.get("choices") is not None and value not in self.how["choices"]:
            raise BadValueError(text)
        return value


class Arguments:
    """What one verb understands: filled by its `add_arguments`."""

    def __init__(self) -> None:
        self.description = ""
        self.epilog = ""
        self.declared: list[Argument] = []
        self._groups = 0

    def add_argument(self, *names: str, **how: Any) -> None:
        """Declare an option or a name, with the words of argparse's method of that name."""
        self.declared.append(Argument(names, None, how))

    def only_one_of(self) -> OnlyOne:
        """Options of which only one may be given."""
        self._groups += 1
        return OnlyOne(self, self._groups)


class OnlyOne:
    """See Arguments.only_one_of."""

    def __init__(self, arguments: Arguments, number: int) -> None:
        self._arguments = arguments
        self._number = number

    def add_argument(self, *names: str, **how: Any) -> None:
        """See Arguments.add_argument."""
        self._arguments.declared.append(Argument(names, self._number, how))


def declare_common(arguments: Arguments, before: Options | None = None) -> None:
    """Declare --socket and --json, which may come before the verb or after it. before: as they were given there."""
    arguments.add_argument(
        "--socket",
        metavar="PATH",
        default=before.socket if before else None,
        help="the daemon's socket (default: $MESHD_SOCKET, else your own daemon's, else the system's)",
    )
    arguments.add_argument(
        "--json",
        action="store_true",
        default=before.json if before else False,
        help="print the daemon's documents, one a line",
    )


def before_end(words: list[str]) -> list[str]:
    """The words before the `--` that ends the options."""
    return words[: words.index("--")] if "--" in words else words


def read(arguments: Arguments, words: Sequence[str]) -> Options | None:
    """The options and names; None where argparse must look at them."""
    by_name = {name: one for one in arguments.declared if one.option for name in one.names}
    options = Options()
    for one in arguments.declared:
        setattr(options, one.dest, one.default)
    names: list[str] = []
    groups: dict[int, Argument] = {}
    rest = iter(words)
    try:
        for word in rest:
            if not _an_option(word):
                names.append(word)
                continue
            option, equals, value = word.partition("=")
            found = by_name.get(option)
            if found is None or (equals and (found.flag or not option.startswith("--"))):
                return None
            if found.group is not None and groups.setdefault(found.group, found) is not found:
                return None
            if found.flag:
                setattr(options, found.dest, True)
                continue
            if not equals:
                value = next(rest, "--")
                if _an_option(value):
                    return None
            if value == "--":
                return None
            setattr(options, found.dest, found.convert(value))
        return options if _place(arguments, names, options) else None
    except BadValueError:
        return None


def _an_option(word: str) -> bool:
    """Whether it may be more than a name or a value: argparse has rules for -5 and for `-a b`."""
    return word.startswith("-") and word != "-"


def _place(arguments: Arguments, names: list[str], options: Options) -> bool:
    """Give the names to those who take them, in order; False where they are too few or too many."""
    left = list(names)
    for one in arguments.declared:
        if one.option:
            continue
        if one.many in {"*", "+"}:
            if one.many == "+" and not left:
                return False
            setattr(options, one.dest, [one.convert(name) for name in left])
            left.clear()
        elif left:
            setattr(options, one.dest, one.convert(left.pop(0)))
        elif one.many != "?":
            return False
    return not left
