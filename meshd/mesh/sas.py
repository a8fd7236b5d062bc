"""Short authentication string: the code by which two people see that no third machine is between their two.

Joiner and member know each other by nothing but what comes over the network, so a man in the middle could be "the
member" to the one and "the joiner" to the other. Both machines therefore show a code, a hash of everything that the
two said to each other, and a person compares: with somebody in between, the two transcripts differ, and so do the
codes.

A code that a person reads is short, and could be matched by brute force. Commit before reveal prevents that:

1. the joiner sends only a commitment to its nonce, and its document;
2. the member answers with its own nonce;
3. the joiner reveals its nonce, and the member checks it against the commitment.

A man in the middle must choose what it says to each side before it learns the nonce of that side: towards the member
it is bound by its commitment before it sees the member's nonce, and towards the joiner it must name a nonce before the
joiner reveals. Both codes are then random to it: one in 10^12 (39.8 bits) for each try, and each try is a request to
the member, which allows an address ten a minute.

Every hash is over length-prefixed parts, so that no two sequences of parts give the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from meshd.mesh.canonical import document, framed
from meshd.wire import Joiner

DIGITS = 12
_GROUP = 4
_COMMITMENT = b"meshd ask commitment 1"
_STATEMENT = b"meshd ask statement 1"
_CODE = b"meshd ask code 1"
_NO_DIGIT = re.compile(r"[^0-9]")


def new_nonce() -> str:
    """32 random bytes, as 64 hex digits."""
    return secrets.token_hex(32)


def commitment(joiner: str, nonce: str) -> str:
    """The commitment to a joiner's nonce, sent before the reveal: 64 hex digits. joiner: its fingerprint."""
    return hashlib.sha256(framed(_COMMITMENT, joiner, nonce)).hexdigest()


def commits_to(commitment_: str, joiner: str, nonce: str) -> bool:
    """Whether `commitment_` is to this nonce of this joiner."""
    return hmac.compare_digest(commitment_.encode(), commitment(joiner, nonce).encode())


def statement(member: str, member_nonce: str, joiner_nonce: str, joiner: Joiner) -> bytes:
    """The bytes that the joiner signs with its certificate's key: that it sends this document to this member now.

    member: the fingerprint that was dialled. Nonces: 64 hex digits each.
    """
    return framed(_STATEMENT, member, member_nonce, joiner_nonce, document(joiner))


def code(member: str, member_nonce: str, joiner_fingerprint: str, joiner_nonce: str, joiner: Joiner) -> str:
    """The code that both machines show: twelve decimal digits, `1234 5678 9012`. member: its fingerprint."""
    parts = (member, joiner_fingerprint, member_nonce, joiner_nonce, document(joiner))
    number = int.from_bytes(hashlib.sha256(framed(_CODE, *parts)).digest()) % 10**DIGITS
    digits = f"{number:0{DIGITS}}"
    return " ".join(digits[at : at + _GROUP] for at in range(0, DIGITS, _GROUP))


def same(one: str, other: str) -> bool:
    """Whether two codes are equal to a person: only digits count. An empty code equals none."""
    left, right = _NO_DIGIT.sub("", one), _NO_DIGIT.sub("", other)
    return len(left) == DIGITS and hmac.compare_digest(left.encode(), right.encode())
