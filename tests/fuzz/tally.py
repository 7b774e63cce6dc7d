"""What came of the damaged inputs of one reader."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """What came of the inputs of one reader; `faults` says where a promise was broken."""

    inputs: int = 0
    found: int = 0
    rejected: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
