"""/v1/doctor: every rule, held or not, with why."""

from __future__ import annotations

from meshd import wire
from meshd.health.doctor import Doctor
from meshd.http.request import Request


class DoctorApi:
    def __init__(self, doctor: Doctor) -> None:
        self._doctor = doctor

    async def doctor(self, request: Request) -> wire.Doctor:
        """Every rule, looked at now: held or not, what was found, and why the rule is there."""
        return wire.Doctor(findings=await self._doctor.run())
