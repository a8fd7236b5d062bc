"""What the client does itself rather than load the standard library's: JSON, percent-encoding, quoting for a shell."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl import documents, hints, percent
from tests.meshctl.conftest import ROOT

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_written_and_read_as_json_does(value: object) -> None:
    text = json.dumps(value, separators=(",", ":"))
    assert documents.encode(value) == text
    assert text.isascii()
    back = documents.decode(f" {text}\r\n".encode())
    assert json.dumps(back, separators=(",", ":")) == text


@pytest.mark.parametrize("fast", [True, False])
def test_a_python_without_the_c_code_reads_and_writes_the_same(
    monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    monkeypatch.setattr(documents, "_FAST", fast)
    assert documents.encode({"ä": [1, 2.5, None]}) == '{"\\u00e4":[1,2.5,null]}'
    assert documents.decode(b'{"a": [1, 2.5, null, "\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, "😀"]}
    assert math.isnan(documents.decode(b"NaN"))


NO_JSON = [
    b"",
    b"  ",
    b"[1, 2",
    b"{",
    b'"',
    b'"\\x"',
    b"[1] 2",
    b"nul",
    b"\xff",
    b"'a'",
    b'{"a":}',
    b"{1:2}",
    b'"\n"',
]


@pytest.mark.parametrize("text", [*NO_JSON, b"[" * 100_000])
@pytest.mark.parametrize("fast", [True, False])
def test_what_is_no_json_is_refused(monkeypatch: pytest.MonkeyPatch, text: bytes, *, fast: bool) -> None:
    monkeypatch.setattr(documents, "_FAST", fast)
    with pytest.raises(ValueError):
        documents.decode(text)


def test_what_is_no_json_is_refused_before_the_package_is_loaded() -> None:
    """The C code looks for json.decoder to say what is wrong."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); from meshctl import documents\n"
        "try: documents.decode(b'[1, 2')\n"
        "except ValueError: print('refused')"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, ROOT], capture_output=True, text=True, check=True
    )
    assert run.stdout == "refused\n"


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError):
        documents.encode({"a": object()})


BYTES = st.binary().map(lambda raw: raw.decode(errors="surrogateescape"))


@given(BYTES)
def test_percent_encoding_is_that_of_urllib(text: str) -> None:
    quoted = urllib.parse.quote(text, safe="", errors="surrogateescape")
    assert percent.quote(text) == quoted
    assert percent.unquote(quoted) == text


@given(st.text(alphabet="%aF0g/é", max_size=12))
def test_a_percent_sign_that_encodes_nothing_stays(text: str) -> None:
    assert percent.unquote(text) == urllib.parse.unquote(text, errors="surrogateescape")


@given(st.text(alphabet="aZ9_@%+=:,./- '\"$`\\*é"))
def test_a_word_is_quoted_as_shlex_does(text: str) -> None:
    assert hints.quoted(text) == shlex.quote(text)
