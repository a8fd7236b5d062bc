"""The base classes of all schemas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from meshd.model import REPLICAS_MOST

Replicas = Annotated[int, Field(ge=1, le=REPLICAS_MOST)] | Literal["all"]


class Wire(BaseModel):
    """Answers may grow: a reader ignores members it does not know."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


class Request(BaseModel):
    """Requests are closed: a member that nobody knows is a mistake of the caller and is said."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Nothing(Wire):
    """A request that says nothing but its name, or an answer that says only that it was done: `{}`."""


Emit = Callable[[Wire], Awaitable[None]]
"""Publishes one event of a stream. Raises ConnectionError where no client follows it any more."""
