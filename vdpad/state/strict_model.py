"""What every model has that reads what came from elsewhere."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Frozen; no type is taken for another, no key is unknown, and no error repeats its input."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
