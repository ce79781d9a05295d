"""What every section of the file has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What every section has in common: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
