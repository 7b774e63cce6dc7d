"""Where the repository and the golden files are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREDECESSORS = ROOT / "tests" / "mmpt" / "predecessors"
GOLDEN = PREDECESSORS / "parity" / "golden"
