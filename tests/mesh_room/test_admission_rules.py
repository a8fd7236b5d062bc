"""What a node that joins takes for an answer, and which statements of a roster nobody takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshd.errors import Code, MeshError
from meshd.mesh import certificate, roster
from meshd.mesh.admission import why_unusable
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.wire import Admitted
from tests.mesh_room.nodes import Node, refusal_of

Pair = tuple[Node, Node]


def answer(attic: Node) -> Admitted:
    """What attic answers to a node that it admits."""
    mesh, secrets = attic.store.mesh, Secrets.load(attic.folder)
    assert mesh is not None
    return Admitted(
        mesh_name=mesh.name,
        mesh_id=mesh.id,
        created=mesh.created,
        swarm_key=secrets.swarm_key,
        cluster_secret=secrets.cluster_secret,
        roster=attic.store.roster(),
    )


async def test_an_answer_is_about_the_two_that_talked(pair: Pair) -> None:
    attic, barn = pair
    assert why_unusable(answer(attic), attic.fingerprint, barn.fingerprint) == ""
    assert why_unusable(answer(attic), attic.fingerprint, "0" * 64) == "it is about other members"
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    assert why_unusable(answer(attic), attic.fingerprint, barn.fingerprint) == "it is about other members"


async def test_an_answer_without_secrets_is_of_no_use_and_is_not_quoted(pair: Pair) -> None:
    told = answer(pair[0]).model_copy(update={"swarm_key": "half a key"})
    assert why_unusable(told, pair[0].fingerprint) == "the swarm key is not in kubo's format"


async def test_a_node_that_was_forgotten_does_not_become_a_member_by_an_answer(
    pair: Pair, tmp_path: Path
) -> None:
    attic, barn = pair
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    folder = tmp_path / "anew"
    folder.mkdir()
    anew = MeshStore(folder, barn.fingerprint)
    assert (await refusal_of(anew.adopt(answer(attic)))).code is Code.BAD_REQUEST
    assert anew.mesh is None


@pytest.mark.parametrize(
    "address", ["8056c2e21", "8056c2e21c1", "8056C2E21C", "../../../..", "\x1b[2J567890"]
)
async def test_a_zerotier_address_that_is_none_is_not_taken(pair: Pair, address: str) -> None:
    """It is put into the path of a request to the controller of the network."""
    attic, barn = pair
    member = attic.view_of(barn)
    roster.check_member(member.model_copy(update={"zerotier": "8056c2e21c"}))
    with pytest.raises(ValueError, match="ZeroTier"):
        roster.check_member(member.model_copy(update={"zerotier": address}))


async def test_a_statement_that_cannot_be_is_left_out_of_an_answer_too(pair: Pair, tmp_path: Path) -> None:
    attic, barn = pair
    told = answer(attic)
    wrong = attic.store.me().model_copy(update={"zerotier": "nonsense"})
    told.roster.members = [wrong, attic.view_of(barn)]
    folder = tmp_path / "anew"
    folder.mkdir()
    anew = MeshStore(folder, barn.fingerprint)
    await anew.adopt(told)
    assert [member.name for member in anew.members()] == ["barn"]


# -- certificates and secrets --------------------------------------------------------------------------------------


async def test_a_certificate_that_its_own_key_did_not_sign_is_refused(pair: Pair) -> None:
    loaded = x509.load_pem_x509_certificate(pair[0].identity.certificate.encode())
    der = loaded.public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_certificate(der[:-1] + bytes([der[-1] ^ 1]))
    with pytest.raises(ValueError, match="not signed by its own key"):
        certificate.check(forged.public_bytes(serialization.Encoding.PEM).decode())


def test_a_certificate_that_could_make_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a trust anchor it would let in whomever it signs."""
    constraints = x509.BasicConstraints
    with monkeypatch.context() as patch:
        patch.setattr(x509, "BasicConstraints", lambda **_: constraints(ca=True, path_length=None))
        made = certificate.make(Ed25519PrivateKey.generate())
    with pytest.raises(ValueError, match="authority over other certificates"):
        certificate.check(made)


@pytest.mark.parametrize("secret", ["", "0" * 63, "g" * 64, "A" * 64, "0" * 65])
def test_a_cluster_secret_that_is_none_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^the cluster secret is not 64 hex digits$"):
        Secrets(Secrets.generate().swarm_key, secret)


def test_leaving_takes_the_cluster_s_settings_out_of_memory_too(tmp_path: Path) -> None:
    """The cluster's secret is in them."""
    (tmp_path / "service.json").touch()
    SecretStore(tmp_path / "state", tmp_path, lambda _: None).erase()
    assert not (tmp_path / "service.json").exists()


def test_what_the_owner_hands_over_for_another_mesh_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    handed, joined = Secrets.generate(), Secrets.generate()
    for name, text in (("swarm.key", handed.swarm_key), ("cluster.secret", handed.cluster_secret)):
        (tmp_path / name).write_text(text)
    store = SecretStore(tmp_path / "state", tmp_path, lambda _: str(tmp_path))
    store.save(handed)
    with pytest.raises(MeshError) as caught:
        store.save(joined)
    assert caught.value.code is Code.BAD_STATE
    assert "another mesh's" in caught.value.detail
