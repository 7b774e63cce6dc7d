"""The values of a recipe: how YAML text becomes them, and whether they fit a type."""

import re
import sys
from enum import Enum
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

import yaml

from mmpt.configuration.errors import MmptValueError

_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_RESOLVERS = {
    "bool": (_BOOL, "tTfF"),
    "int": (_INT, "-+0123456789"),
    "float": (_FLOAT, "-+.0123456789"),
}


_LARGEST = 100_000
"""Values that a document may have, each alias counted as what it stands for."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: PyYAML's own read `1e-4` as text, `no` as false, `1:30` as 90."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("bool", "int", "float", "timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_node(self) -> Any:
        """Return the document, and refuse one that contains itself or expands to very much through its anchors."""
        node: Any = super().get_single_node()
        if node is not None and _size(node, {}) > _LARGEST:
            raise yaml.constructor.ConstructorError(
                None, None, f"anchors expand to more than {_LARGEST:,} values", node.start_mark
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, and refuse a key that is given twice (PyYAML silently keeps the last)."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep=deep)

    def construct_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _size(node: Any, sizes: dict[int, int | None]) -> int:
    """Return how many values a node expands to.

    Args:
        sizes: of the nodes that were met, by their identity; None is one that is not finished.
    """
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise yaml.constructor.ConstructorError(None, None, "an anchor contains itself", node.start_mark)
        return size
    sizes[id(node)] = None
    inner: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    size = sizes[id(node)] = 1 + sum(_size(part, sizes) for part in inner)
    return size


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back equal."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        # PyYAML writes these line breaks bare, and reads them back as spaces, in every style but this one.
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _name, (_pattern, _first) in _RESOLVERS.items():
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _whole, list(_first))
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _whole, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Dumper.add_representer(str, _Dumper.represent_str)


def read_yaml(text: str, source: str) -> Any:
    """Return what YAML text says.

    Args:
        source: the file or command-line key that the text came from; errors name it.

    Raises:
        ValueError: if the text is not YAML, gives a key twice, or asks for a Python object.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise MmptValueError(f"{source}{place}: not valid YAML: {problem or error}") from None
    except RecursionError:
        raise MmptValueError(f"{source}: not valid YAML for a recipe: it is nested too deep") from None
    except ValueError as error:  # of Python's int, for a number of thousands of digits
        raise MmptValueError(f"{source}: not valid YAML for a recipe: {error}") from None


def write_yaml(values: Any) -> str:
    """Return YAML text that `read_yaml` reads back equal; keys keep their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value read from YAML may stand where `annotation` is declared.

    An int fits float, a bool fits neither; NaN and infinity fit nothing; a text fits an Enum that has it as a value.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in _members(annotation))
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in args)
    if annotation is list or origin is list:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value if args)
    if annotation is dict or origin is dict:
        return isinstance(value, dict) and all(
            fits(key, args[0]) and fits(item, args[1]) for key, item in value.items() if args
        )
    if annotation is Any:
        return True
    if annotation in (None, NoneType):
        return value is None
    if annotation is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for NaN
    if issubclass(annotation, Enum):
        return value in [member.value for member in annotation]
    return type(value) is annotation


def describe(annotation: Any) -> str:
    """Return a type in the words of an error message."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(describe(member) for member in _members(annotation)))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is list:
        return f"a list of {describe(args[0])}"
    if annotation is dict or origin is dict:
        return "a mapping {name: value}"
    if annotation in (None, NoneType):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(repr(member.value) for member in annotation)
    return {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def is_text(annotation: Any) -> bool:
    """Return whether only a text (or null) fits, so that a command-line value needs no reading as YAML."""
    return set(_members(annotation)) - {NoneType} == {str}


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    members = list(get_args(annotation))
    # `IntervalStrategy | str` of TrainingArguments means the texts of the enum.
    if any(isinstance(member, type) and issubclass(member, Enum) for member in members):
        members = [member for member in members if member is not str]
    return members
