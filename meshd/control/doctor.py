"""/v1/doctor: every rule, held or not, with why."""

from __future__ import annotations

from aiohttp import web

from meshd import wire
from meshd.control.server import json_answer
from meshd.health.examine import Examination


class DoctorApi:
    def __init__(self, examination: Examination) -> None:
        self._examination = examination

    async def doctor(self, request: web.Request) -> web.StreamResponse:
        """Every rule, looked at now: held or not, what was found, and why the rule is there."""
        return json_answer(wire.Doctor(findings=await self._examination.run()))
