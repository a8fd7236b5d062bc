"""The quick reader of command lines against argparse: what it understands at all, it understands as argparse does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl import cli
from meshctl.arguments import Argument, Arguments, Options, declare_common

VERBS = [verb for group in cli.VERBS.values() for verb in group]
VALUES = ["a", "b/c", "", "-", "2", "0", "-5", "all", "ä", "--", "-x y", "set", "30min", "8056c2e21c000001"]
ODD = ["--help", "-h", "--no-such", "-z", "--", "-5", "--js", "---", "-=", "--=x", "\udce9"]


def declared(verb: str) -> list[Argument]:
    return cli._declared(verb, _nothing_before()).declared


def _nothing_before() -> Options:
    options = Options()
    for name, value in (("socket", None), ("json", False)):
        setattr(options, name, value)
    return options


def typed(verb: str) -> st.SearchStrategy[list[str]]:
    """Words behind a verb: its options, with and without values, names, and what is wrong everywhere."""
    option = st.sampled_from([name for one in declared(verb) if one.option for name in one.names])
    value = st.sampled_from(VALUES)
    word = st.one_of(
        option.map(lambda name: [name]),
        st.tuples(option, value).map(list),
        st.tuples(option, value).map(lambda both: ["=".join(both)]),
        st.tuples(option, value).map(lambda both: ["".join(both)]),
        value.map(lambda name: [name]),
        st.sampled_from(ODD).map(lambda name: [name]),
    )
    return st.lists(word, max_size=5).map(lambda words: [part for some in words for part in some])


BEFORE = st.lists(
    st.sampled_from(
        [["--json"], ["--socket", "/s"], ["--socket=/t"], ["--socket", "-x"], ["--version"], ["-"]]
    ),
    max_size=2,
).map(lambda words: [part for some in words for part in some])


LINES = st.sampled_from(VERBS).flatmap(lambda verb: st.tuples(BEFORE, st.just(verb), typed(verb)))


def test_both_parsers_understand_the_same() -> None:
    understood: set[str] = set()

    @settings(max_examples=500, deadline=None)
    @given(LINES)
    def compare(line: tuple[list[str], str, list[str]]) -> None:
        before, verb, rest = line
        quick = cli._understood(before, verb, rest)
        if quick is None:
            return
        understood.add(verb)
        slow = cli._understood_slowly(before, verb, rest)
        assert slow is not None
        assert vars(quick) == vars(slow)

    compare()
    assert len(understood) > len(VERBS) // 2


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "--json status",
        "status --json --check",
        "--socket /s status",
        "status --socket=/s",
        "pin a b c --replicas 2",
        "pin --replicas all a --name b",
        "pin - --name x --detach",
        "pin --cid bafy --name x",
        "ls",
        "ls --name a --owner b --limit 3",
        "ls photos/1974",
        "get a -o b",
        "get a -o -",
        "rm a b --now --force",
        "peers set attic 10.0.0.1",
        "invite --expires 3d",
        "logs kubo -n 20 -f",
        "join",
        "version",
    ],
)
def test_what_is_typed_every_day_needs_no_argparse(line: str) -> None:
    before, verb, rest = cli._helped(*cli._split(line.split()))
    assert cli._understood(before, verb, rest) is not None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "pni",
        "status extra",
        "rm",
        "rm -- -odd",
        "rm --now=1 a",
        "pin --replicas 0 a",
        "pin --replicas",
        "pin --name -x a",
        "ls --all --limit 3",
        "ls a b",
        "get",
        "get -ob a",
        "logs kubo -n=5",
        "peers unset a b",
        "invite --list --revoke x",
        "--version",
        "status -h",
    ],
)
def test_what_is_wrong_or_unusual_is_left_to_argparse(line: str) -> None:
    before, verb, rest = cli._helped(*cli._split(line.split()))
    assert cli._understood(before, verb, rest) is None


def test_every_verb_declares_only_what_the_quick_reader_knows() -> None:
    """A word of argparse that it does not know would be passed over in silence."""
    known = {"action", "choices", "default", "dest", "help", "metavar", "nargs", "type"}
    for verb in VERBS:
        for one in declared(verb):
            assert set(one.how) <= known, (verb, one.names)
            assert one.how.get("action") in {None, "store_true"}, (verb, one.names)
            assert one.many in {None, "?", "*", "+"}, (verb, one.names)
            assert not one.option or one.many is None, (verb, one.names)
            text_to_convert = (
                isinstance(one.default, str) and "type" in one.how
            )  # argparse converts that, too
            assert not text_to_convert, (verb, one.names)


def test_the_options_of_every_verb_are_those_of_all() -> None:
    common = Arguments()
    declare_common(common)
    assert [one.names for one in common.declared] == [("--socket",), ("--json",)]
