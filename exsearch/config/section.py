"""What every section of the settings has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: unknown keys are refused, attribute docs become the schema's."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
