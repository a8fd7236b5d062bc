"""The page for operators, typed in its order on a machine that boots."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.console import commands
from tests.docs.pages import DOCS, blocks
from tests.system import machine
from tests.system.conftest import NETWORK, OLDER, SETTINGS, VERSION, Boot, package
from tests.system.machine import Machine
from tests.system.service import READY

PAGE = DOCS / "how-to" / "operate.md"
# What the page says -> what is typed here: another file, nobody to answer apt, and a folder in the place of a disk.
HERE = {
    "apt install ./meshd_0.1.0_amd64.deb": f"apt-get install -y {package(OLDER)}",
    "apt install ./meshd_0.2.0_amd64.deb": f"apt-get install -y {package(VERSION)}",
    "apt remove meshd": "apt-get remove -y meshd",
    "apt purge meshd": "apt-get purge -y meshd",
    "usermod -aG meshd $USER": "usermod -aG meshd ana",
    "mount LABEL=mesh /mnt/new": "mount --bind /srv/new /mnt/new",
    "echo 'LABEL=mesh /var/lib/meshd ext4 nofail 0 2' | tee -a /etc/fstab": (
        "echo '/srv/new /var/lib/meshd none bind,nofail 0 0' | tee -a /etc/fstab"
    ),
}
NOT_HERE = {
    "lsblk": "a container has no disks",
    "mkfs.ext4 -L mesh /dev/sdb1": "a container has no disks",
    "meshctl leave": "the only node of a mesh has nobody to leave it to; the other pages' tests leave",
}


def section(heading: str) -> list[str]:
    """The commands below that heading, as they are typed here."""
    lines = PAGE.read_text().splitlines()
    begins = lines.index(f"## {heading}")
    ends = next((n for n in range(begins + 1, len(lines)) if lines[n].startswith("## ")), len(lines))
    texts = [c.text.replace("sudo ", "") for c in commands(PAGE) if begins < c.line <= ends]
    assert texts, heading
    return [HERE.get(text, text) for text in texts if text not in NOT_HERE]


@pytest.fixture
def bare(boot: Boot) -> Machine:
    """A Debian as it comes, with a private network and a user."""
    made = boot("attic", [machine.base()])
    made.run(f"cat > /etc/systemd/system/private-network.service <<'END'\n{NETWORK}\nEND")
    made.run("systemctl enable --now private-network && useradd -m ana && mkdir -p /mnt/usb /srv/new")
    return made


def test_a_backup_is_the_same_node_on_another_machine(boot: Boot, installed: list[Path]) -> None:
    archive = "mnt/usb/attic-meshd.tar.gz"
    typed = section("Back up, and bring it back")
    begins = typed.index("systemctl start meshd") + 1
    old, new = boot("attic", installed), boot("other", installed)
    old.until_active("meshd")
    old.run("mkdir -p /mnt/usb && printf '[node]\\nname = \"attic\"\\n' >> /etc/meshd/meshd.toml")
    old.run(
        "systemctl restart meshd && meshctl init --name archive && echo 'as it was said' > /tmp/minutes.txt"
    )
    old.run("meshctl pin --replicas 1 /tmp/minutes.txt")
    identity = 'meshctl status --json | grep -o \'"fingerprint": *"[^"]*"\''
    fingerprint = old.run(identity)
    for text in typed[:begins]:
        old.run(text)
    new.run("mkdir -p /mnt/usb")
    shutil.copy(old.files / archive, new.files / archive)
    old.stop()

    for text in typed[begins:]:
        new.run(text)
    new.until("systemctl status meshd", READY)
    assert new.run(identity) == fingerprint
    assert "node     attic: ready" in new.run("meshctl status"), "and the configuration came along"
    new.run("meshctl get minutes.txt -o /tmp/back")
    assert new.run("cat /tmp/back") == "as it was said\n"


def test_the_command_of_the_page_mails_what_is_wrong(archive: Machine) -> None:
    """From inside the sandbox, to a mail server of the same machine that prints what it gets."""
    (script,) = [lines for _, language, lines in blocks(PAGE) if language == "python"]
    archive.run(
        "cat > /usr/local/bin/tell-me && chmod 755 /usr/local/bin/tell-me", fed="\n".join(script) + "\n"
    )
    archive.run("systemd-run --unit mail python3 -u -W ignore -m smtpd -n -c DebuggingServer 127.0.0.1:25")
    archive.until("ss -ltn", "127.0.0.1:25")
    archive.run("printf '[notify]\\ncommand = [\"/usr/local/bin/tell-me\"]\\n' >> /etc/meshd/meshd.toml")
    archive.run("systemctl restart meshd && ip address flush dev wg0")
    archive.until("journalctl -u mail -o cat", "attic: interface wg0 cannot be used")
    archive.run("ip address add 10.7.0.1/24 dev wg0")
    archive.until("journalctl -u mail -o cat", "attic: over: interface wg0 cannot be used")


def test_the_page_for_operators_does_what_it_says(bare: Machine, tmp_path: Path) -> None:
    def type_all(heading: str) -> list[str]:
        return [bare.run(text, seconds=300) for text in section(heading)]

    def is_the_same_node() -> None:
        bare.until("systemctl status meshd", READY)
        assert bare.run('meshctl status --json | grep -o \'"fingerprint": *"[^"]*"\'') == fingerprint
        bare.run("rm -f /tmp/back && meshctl get minutes.txt -o /tmp/back")
        assert bare.run("cat /tmp/back") == "as it was said\n"

    type_all("Install")
    bare.run(f"cat > /etc/meshd/meshd.toml <<'END'\n{SETTINGS}\nEND")
    bare.run("systemctl restart meshd")
    bare.run("meshctl init --name archive && echo 'as it was said' > /tmp/minutes.txt", user="ana")
    bare.run("meshctl pin --replicas 1 /tmp/minutes.txt", user="ana")
    fingerprint = bare.run('meshctl status --json | grep -o \'"fingerprint": *"[^"]*"\'')
    bare.until("systemctl status meshd", READY)

    assert "archive: 1 node" in type_all("See how it is")[-1]
    assert "Daemon is ready" in type_all("Read the journal")[1]
    bare.run(
        "printf '[metrics]\\npeer_token_file = \"/etc/meshd/metrics.token\"\\n' >> /etc/meshd/meshd.toml"
    )
    verdict, *_ = type_all("Watch it from elsewhere")
    assert verdict.startswith("MESHD OK - ready | ")
    bare.until("systemctl status meshd", READY)
    scrape = (
        "import ssl, urllib.request as u; token = open('/etc/meshd/metrics.token').read().strip();"
        "asked = u.Request('https://10.7.0.1:4010/metrics', headers={'Authorization': 'Bearer ' + token});"
        "print(u.urlopen(asked, context=ssl._create_unverified_context()).read().decode())"
    )
    assert "meshd_ready 1.0" in bare.run(f'python3 -c "{scrape}"')

    is_the_same_node()
    _, locked, plain = type_all("Keep the mesh's secrets encrypted")
    assert "secrets  not encrypted: the key to them lies on a disk of this machine" in locked
    assert "in plain files again" in plain

    type_all("Upgrade")
    assert bare.run("dpkg-query -W -f '${Version}' meshd") == VERSION
    is_the_same_node()
    type_all("Back up, and bring it back")
    is_the_same_node()
    bare.run("rm -r /var/lib/meshd.old")
    type_all("Move to a bigger disk")
    assert bare.run("findmnt -n -o SOURCE /var/lib/meshd").strip()
    is_the_same_node()
    bare.reboot()
    is_the_same_node()
    bare.run("systemctl stop meshd && umount /var/lib/meshd && systemctl start meshd")
    is_the_same_node()
    type_all("Remove")
    assert bare.run("ls -A /srv/new") == "", "the disk is empty, and still there"
