"""The mesh's secrets in the care of systemd, on a Debian that boots."""

from __future__ import annotations

import pytest

from tests.system.machine import Machine
from tests.system.service import READY

STATE = "/var/lib/meshd"
DROP_IN = "/etc/systemd/system/meshd.service.d/secrets.conf"
UNIT = "/etc/systemd/system/meshd.service"
DEVICE = "SYSTEMD_TPM2_DEVICE=swtpm:host=127.0.0.1,port=2321"
# Nobody closes the sessions of this TPM, as the kernel does for a real one: it begins anew with meshd.
TPM = """[Unit]
DefaultDependencies=no
PartOf=meshd.service

[Service]
Type=forking
ExecStart=swtpm socket --daemon --tpm2 --tpmstate dir=/var/lib/tpm --flags not-need-init,startup-clear \\
    --server type=tcp,port=2321,bindaddr=127.0.0.1 --ctrl type=tcp,port=2322,bindaddr=127.0.0.1
"""
KEPT = "meshctl status --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"secrets\"])'"


def secret_on_the_disk(machine: Machine, secret: str) -> list[str]:
    """Files of the state that it is in."""
    return machine.try_run(f"grep -rlF -- {secret} {STATE}").stdout.split()


@pytest.fixture
def key(archive: Machine) -> str:
    """The swarm key's digits, while they can be read."""
    archive.until("systemctl status meshd", READY)
    return archive.run(f"tail -n 1 {STATE}/secrets/swarm.key").strip()


def test_encrypted_through_a_reboot_and_plain_again(archive: Machine, key: str) -> None:
    archive.run("echo 'as it was said' > /root/minutes.txt && meshctl pin --replicas 1 /root/minutes.txt")
    assert len(secret_on_the_disk(archive, key)) == 2

    said = archive.run("meshd encrypt-secrets", seconds=120)
    assert "the secrets are locked by a key in /var/lib/systemd/credential.secret" in said
    assert secret_on_the_disk(archive, key) == []
    archive.run(f"test ! -e {STATE}/secrets/swarm.key && test ! -e {STATE}/secrets/cluster.secret")
    assert archive.run(KEPT) == "{'kept': 'encrypted', 'key': 'host', 'encrypted': False, 'by': ''}\n"
    assert "not encrypted: the key to them lies on a disk" in archive.run("meshctl status")
    assert archive.run("systemd-analyze verify meshd.service 2>&1") == ""
    daemon = archive.run("systemctl show -P MainPID meshd")
    assert archive.run("meshd encrypt-secrets").startswith("nothing was changed: the secrets are locked by")
    assert archive.run("systemctl show -P MainPID meshd") == daemon

    archive.reboot()
    archive.until("systemctl status meshd", READY)
    assert archive.run("meshctl get minutes.txt -o -") == "as it was said\n"
    assert secret_on_the_disk(archive, key) == []

    said = archive.run("meshd decrypt-secrets", seconds=120)
    assert said.endswith(
        f"the secrets are in plain files again, in {STATE}/secrets, which only meshd may read\n"
    )
    assert archive.run(f"stat -c '%U %a' {STATE}/secrets/*") == "meshd 600\n" * 2
    assert archive.run(f"tail -n 1 {STATE}/secrets/swarm.key").strip() == key
    archive.run(f"test ! -e {DROP_IN}")
    archive.until("systemctl status meshd", READY)
    assert archive.run("meshctl get minutes.txt -o -") == "as it was said\n"


def test_a_key_in_the_tpm_is_what_counts_as_encrypted(attic: Machine) -> None:
    """swtpm is a whole TPM in a program; systemd reaches it by TCP in the place of /dev/tpmrm0."""
    attic.stop()
    wanted = "swtpm libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-rc0 libtss2-tcti-swtpm0"
    wrong = attic.fetch(f"apt-get update && apt-get install -y --no-install-recommends {wanted}")
    if wrong:
        pytest.skip(f"no swtpm can be fetched: {wrong[-200:]}")
    attic.boot()
    attic.until_active("meshd")
    attic.run(f"cat > /etc/systemd/system/tpm.service <<'END'\n{TPM}\nEND")
    attic.run(f"mkdir -p {UNIT}.d /etc/systemd/system.conf.d /var/lib/tpm")
    attic.run(f"printf '[Unit]\\nRequires=tpm.service\\nAfter=tpm.service\\n' > {UNIT}.d/tpm.conf")
    attic.run(
        f"printf '[Manager]\\nManagerEnvironment=\"{DEVICE}\"\\n' > /etc/systemd/system.conf.d/tpm.conf"
    )
    attic.run("meshctl init --name archive")
    attic.reboot()
    attic.until("systemctl status meshd", READY)
    digits = attic.run(f"tail -n 1 {STATE}/secrets/swarm.key").strip()

    said = attic.run(f"{DEVICE} meshd encrypt-secrets --with-key tpm2", seconds=120)
    assert "the secrets are encrypted by a key in this machine's TPM (tpm2).\n" in said
    attic.reboot()
    attic.until("systemctl status meshd", READY)
    assert attic.run(KEPT) == "{'kept': 'encrypted', 'key': 'tpm2', 'encrypted': True, 'by': ''}\n"
    assert "secrets  encrypted, by a key in this machine's TPM (tpm2)" in attic.run("meshctl status")
    assert secret_on_the_disk(attic, digits) == []


def test_who_leaves_and_begins_anew_is_not_handed_the_old_ones(archive: Machine, key: str) -> None:
    archive.run("meshd encrypt-secrets", seconds=120)
    archive.run("meshctl leave --force --yes", seconds=120)
    archive.run(f"test -z \"$(find {STATE}/secrets -name '*.encrypted')\"")
    archive.run("meshctl init --name another")
    assert archive.run(f"tail -n 1 {STATE}/secrets/swarm.key").strip() != key
    archive.run("systemctl restart meshd")
    archive.until("systemctl status meshd", READY)
    assert "another: 1 node" in archive.run("meshctl status")
    archive.run("meshd encrypt-secrets", seconds=120)
    assert archive.run(KEPT) == "{'kept': 'encrypted', 'key': 'host', 'encrypted': False, 'by': ''}\n"


def test_a_lost_key_is_said_and_mended_from_another_members_files(archive: Machine, key: str) -> None:
    archive.run(f"cp -a {STATE}/secrets /root/of-another-member")
    archive.run("meshd encrypt-secrets", seconds=120)
    archive.run("systemctl stop meshd && rm /var/lib/systemd/credential.secret")
    assert archive.try_run("systemctl start meshd").returncode != 0
    archive.until("systemctl status meshd", "status=243/CREDENTIALS")

    refused = archive.try_run("meshd decrypt-secrets")
    assert refused.returncode == 1
    assert refused.stderr.startswith("meshd: cannot decrypt the secrets\n  systemd-creds: ")
    assert f"copy swarm.key and cluster.secret from {STATE}/secrets of another member" in refused.stderr

    archive.run(
        f"install -o meshd -g meshd -m 0600 /root/of-another-member/* {STATE}/secrets/ && meshd decrypt-secrets",
        seconds=120,
    )
    archive.run("systemctl start meshd")
    archive.until("systemctl status meshd", READY)
    archive.run(f"test ! -e {DROP_IN}")


def test_what_cannot_be_is_said_and_changes_nothing(attic: Machine) -> None:
    attic.run("useradd -m ana")
    refused = attic.try_run("meshd encrypt-secrets", user="ana")
    assert refused.returncode == 1
    assert "only root can have systemd do that\n  try: sudo meshd encrypt-secrets" in refused.stderr
    refused = attic.try_run("meshd encrypt-secrets")
    assert refused.returncode == 1
    assert f"there are none in {STATE}/secrets: this node is in no mesh" in refused.stderr
    attic.run("meshctl init --name archive")
    refused = attic.try_run("meshd encrypt-secrets --with-key tpm2")
    assert refused.returncode == 1
    assert "systemd-creds: " in refused.stderr
    assert "meshd encrypt-secrets --with-key host" in refused.stderr
    attic.run(f"test ! -e {DROP_IN} && test -s {STATE}/secrets/swarm.key")
    assert attic.run(f"ls {STATE}/secrets").split() == ["cluster.secret", "swarm.key"]
    attic.until("systemctl status meshd", READY)


def test_a_secret_manager_hands_them_over(attic: Machine) -> None:
    """Such a manager puts them into a folder in memory before the service starts."""
    attic.run("mkdir -p /run/manager && chmod 700 /run/manager")
    digits = "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'"
    attic.run(f"{{ printf '/key/swarm/psk/1.0.0/\\n/base16/\\n'; {digits}; }} > /run/manager/swarm")
    attic.run(f"{digits} > /run/manager/cluster")
    attic.run(
        "mkdir -p /etc/systemd/system/meshd.service.d && cat > /etc/systemd/system/meshd.service.d/manager.conf <<'END'\n"
        "[Service]\nLoadCredential=swarm.key:/run/manager/swarm\nLoadCredential=cluster.secret:/run/manager/cluster\nEND"
    )
    attic.run("systemctl daemon-reload && systemctl restart meshd && meshctl init --name archive")
    assert secret_on_the_disk(attic, attic.run("tail -n 1 /run/manager/swarm").strip()) == []
    assert secret_on_the_disk(attic, attic.run("cat /run/manager/cluster").strip()) == []
    assert "handed over by systemd; in no file of meshd's" in attic.run("meshctl status")
    attic.run("systemctl restart meshd")
    attic.until("systemctl status meshd", READY)
    assert attic.run("meshctl doctor").strip()
