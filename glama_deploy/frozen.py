"""The base of all records that pydantic checks: configurations, manifests, protocols and results."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A record whose fields do not change, and that refuses a field it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
