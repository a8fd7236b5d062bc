"""What all shapes of the wire have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Replicas = Annotated[int, Field(ge=1, le=1000)] | Literal["all"]


class Wire(BaseModel):
    """Answers may grow: a reader ignores members it does not know."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


class Request(BaseModel):
    """Requests are closed: a member that nobody knows is a mistake of the caller and is said."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
