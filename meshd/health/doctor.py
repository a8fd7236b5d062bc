"""The doctor: a self-test of every rule, now, one by one, with its finding."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from meshd import wire
from meshd.cluster import config as cluster_config
from meshd.errors import MeshError
from meshd.health.board import Board
from meshd.kubo import policy
from meshd.kubo.policy import Rule
from meshd.kubo.rpc import Kubo
from meshd.mesh.engine_settings import EngineSettings
from meshd.mesh.store import MeshStore
from meshd.model import OverlayState
from meshd.overlay.monitor import Overlay
from meshd.state_files import StateFiles
from meshd.supervise import sockets
from meshd.supervise.service import Service
from meshd.supervise.services import Services

_RESTART = "sudo systemctl restart meshd: every start writes the private settings again"
_SECRET_KEYS = ("cluster.secret",)
_CLUSTER_FILE = "cluster/service.json"


class Doctor:
    """Tests every rule. Queries the programs, the kernel and the disk at each run. Caches nothing."""

    def __init__(
        self,
        *,
        services: Services,
        settings: EngineSettings,
        overlay: Overlay,
        kubo: Kubo,
        store: MeshStore,
        state_files: StateFiles,
        board: Board,
    ) -> None:
        self._services = services
        self._settings = settings
        self._overlay = overlay
        self._kubo = kubo
        self._store = store
        self._state_files = state_files
        self._board = board

    async def run(self) -> list[wire.Finding]:
        """All findings, area by area. A rule that cannot be tested now has `held: null` with the reason."""
        overlay = self._overlay.state
        findings = [self._overlay_finding(overlay)]
        if self._store.mesh is not None:
            for name, service in self._services.items():
                findings += await self._about_sockets(name, service, overlay.address)
            findings += await self._about_kubo(overlay.address)
            findings += await asyncio.to_thread(lambda: list(self._about_cluster(overlay.address)))
        else:
            findings.append(_no_mesh())
        findings += await asyncio.to_thread(lambda: list(self._about_secrets()))
        findings += self._about_conditions()
        return findings

    def _overlay_finding(self, overlay: OverlayState) -> wire.Finding:
        problem = overlay.problem
        return wire.Finding(
            area="overlay",
            rule="there is a private address that can be bound",
            why="everything that meshd starts listens there and nowhere else",
            held=overlay.address is not None,
            found=f"{overlay.address} ({overlay.why})"
            if overlay.address
            else (problem.title if problem else "none"),
            hint=problem.hint if problem else "",
        )

    async def _about_sockets(self, name: str, service: Service, address: str | None) -> list[wire.Finding]:
        def finding(rule: str, why: str, held: bool | None, found: str) -> wire.Finding:
            return wire.Finding(
                area=name, rule=rule, why=why, held=held, found=found, hint=f"meshctl logs {name}"
            )

        state = service.state
        runs = finding("it runs and answers", "content is kept and moved by it", None, state.phase.value)
        runs.held = state.phase.value == "ready" and state.healthy
        if state.last_exit:
            runs.found = f"{state.phase.value}; {state.last_exit}"
        rule = (
            f"it listens on the overlay address, port {self._settings.ports[name]}, and nowhere else; no UDP"
        )
        why = "read from the kernel: nothing of the mesh can be reached off the overlay"
        if state.pid is None or address is None:
            return [runs, finding(rule, why, None, "it does not run")]
        try:
            found = await asyncio.to_thread(sockets.of_process, state.pid)
        except MeshError as exc:
            return [runs, finding(rule, why, None, str(exc))]
        leaks = sockets.leaks(found, address, self._settings.ports[name])
        count = sockets.count_listeners(address, self._settings.ports[name])
        shown = ", ".join(str(s) for s in (leaks or [s for s in found if s.listening])) or "no listener"
        return [
            runs,
            finding(rule, why, not leaks and count == 1, f"{shown}; {count} listener(s) on the port"),
        ]

    async def _about_kubo(self, address: str | None) -> list[wire.Finding]:
        if address is None:
            return []
        place = self._settings.kubo_endpoint(address)
        try:
            config, peers = await self._kubo.config(), await self._kubo.swarm_peers()
        except MeshError as exc:
            rule = wire.Finding(
                area="kubo",
                rule="its settings are private",
                why="",
                held=None,
                found=str(exc),
                hint="meshctl status",
            )
            return [rule]
        broken = {v.rule.key: v.found for v in policy.audit(config, place)}
        findings = [
            _setting("kubo", rule, broken.get(rule.key, rule.value), rule.key not in broken)
            for rule in policy.rules(place)
        ]
        strangers = sorted(set(peers) - self._settings.kubo_ids())
        findings.append(
            wire.Finding(
                area="kubo",
                rule="every swarm peer is in the roster",
                why="only members exchange content",
                held=not strangers,
                found=", ".join(f"{i} at {peers[i]}" for i in strangers)
                or f"{len(peers)} peers, all members",
                hint="meshctl peers",
            )
        )
        return findings

    def _about_cluster(self, address: str | None) -> Iterator[wire.Finding]:
        if address is None or self._services["cluster"].state.pid is None:
            return
        config = json.loads((self._state_files.folder / _CLUSTER_FILE).read_text())
        for rule in cluster_config.rules(self._settings.cluster_settings(address)):
            if rule.key in cluster_config.AS_OF_ITS_START:
                continue
            value: Any = config
            for part in rule.key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            yield _setting("cluster", rule, value, value == rule.value)

    def _about_secrets(self) -> Iterator[wire.Finding]:
        for path in self._state_files.secrets():
            if path.exists():
                mode = path.stat().st_mode & 0o777
                yield wire.Finding(
                    area="secrets",
                    rule=f"only meshd may read {path.name}",
                    why="who reads it is a member, or can speak as this node",
                    held=not mode & 0o077,
                    found=f"{path} has mode {mode:04o}",
                    hint=f"chmod 600 {path}",
                )

    def _about_conditions(self) -> list[wire.Finding]:
        held = [c for c in self._board.conditions if c.severity != "info"]
        if not held:
            why = "what is wrong shows in meshctl status"
            return [
                wire.Finding(
                    area="health", rule="nothing is wrong", why=why, held=True, found="no condition", hint=""
                )
            ]
        return [
            wire.Finding(
                area="health", rule="nothing is wrong", why=c.cause, held=False, found=c.title, hint=c.hint
            )
            for c in held
        ]


def _no_mesh() -> wire.Finding:
    """The finding outside a mesh: no engine may run then, so most rules have no subject."""
    return wire.Finding(
        area="mesh",
        rule="this node is in a mesh",
        why="kubo and the cluster run only then",
        held=None,
        found="no mesh yet",
        hint="meshctl join; or to begin one: meshctl init",
    )


def _setting(area: str, rule: Rule, found: Any, held: bool) -> wire.Finding:
    secret = rule.key in _SECRET_KEYS
    wanted = "(not shown)" if secret else json.dumps(rule.value)
    return wire.Finding(
        area=area,
        rule=f"{rule.key} is {wanted}",
        why=rule.why,
        held=held,
        found="(not shown)" if secret else json.dumps(found),
        hint="" if held else _RESTART,
    )
