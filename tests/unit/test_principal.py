"""Who may what: every kind of caller against everything that a route may ask for."""

from __future__ import annotations

from typing import get_args

import pytest

from meshd.errors import Code, MeshError
from meshd.principal import Access, How, Principal, Role, check, may

LOCAL = {role: Principal(label=role, how="local", role=role, uid=1000) for role in get_args(Role)}
CALLERS: dict[str, tuple[Principal, set[Access]]] = {
    "local, in no group": (LOCAL["none"], {"stranger"}),
    "local reader": (LOCAL["read"], {"stranger", "read"}),
    "local writer": (LOCAL["write"], {"stranger", "read", "write"}),
    "local admin": (LOCAL["admin"], {"stranger", "read", "write", "admin"}),
    "on the loopback port": (Principal(label="x", how="loopback", role="read"), {"stranger", "read"}),
    "member": (Principal(label="barn", how="member", fingerprint="f"), {"stranger", "member"}),
    "scraper": (Principal(label="x", how="scraper"), {"stranger", "scraper"}),
    "stranger": (Principal(label="10.0.0.9", how="stranger"), {"stranger"}),
}


@pytest.mark.parametrize("access", get_args(Access))
@pytest.mark.parametrize("caller", CALLERS)
def test_who_may_what_is_as_it_is_written_here(caller: str, access: Access) -> None:
    principal, allowed = CALLERS[caller]
    assert may(principal, access) == (access in allowed)
    if access in allowed:
        check(principal, access)
        return
    with pytest.raises(MeshError) as caught:
        check(principal, access)
    assert caught.value.code is Code.DENIED
    assert caught.value.title.startswith("cannot ")
    assert caught.value.hint


@pytest.mark.parametrize("how", [how for how in get_args(How) if how != "local"])
def test_nobody_administers_a_node_from_outside(how: How) -> None:
    with pytest.raises(ValueError, match="not local"):
        Principal(label="x", how=how, role="admin")
    made = Principal(label="x", how=how)
    object.__setattr__(made, "role", "admin")
    assert not may(made, "admin"), "even if one were made"


@pytest.mark.parametrize("how", [how for how in get_args(How) if how != "member"])
def test_who_is_no_member_has_no_fingerprint_that_a_handler_would_believe(how: How) -> None:
    with pytest.raises(MeshError) as caught:
        Principal(label="x", how=how, fingerprint="f").member()
    assert caught.value.code is Code.DENIED
    assert Principal(label="barn", how="member", fingerprint="f").member() == "f"
