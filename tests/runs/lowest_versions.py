"""Print the lowest version of every dependency in setup.py, as a constraints file.

It needs the standard library only: it runs before anything is installed. `make test-lowest` installs what it prints.
"""

import ast
import re
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "setup.py"


def declared_requirements() -> list[str]:
    """Return the requirements of CORE and of every extra in setup.py."""
    values = {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse(SETUP.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in ("CORE", "EXTRAS")
    }
    return [*values["CORE"], *(requirement for extra in values["EXTRAS"].values() for requirement in extra)]


def lowest_pins(requirements: list[str]) -> list[str]:
    """Return `name==floor` for each requirement, sorted; one that is in several extras must have one floor.

    Raises:
        ValueError: if a requirement has no floor, or two floors.
    """
    floors: dict[str, str] = {}
    for requirement in requirements:
        match = re.match(r"([\w.-]+)(?:\[[\w,]+\])?[><=!,.\w]*?[>=]=([\w.]+)", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} in setup.py has no lowest version, expected name>=version")
        name, floor = match[1], match[2]
        if floors.setdefault(name, floor) != floor:
            raise ValueError(f"setup.py has two lowest versions of {name}: {floors[name]} and {floor}")
    return [f"{name}=={floor}" for name, floor in sorted(floors.items())]


if __name__ == "__main__":
    print("\n".join(lowest_pins(declared_requirements())))
