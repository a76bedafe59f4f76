"""Types of configuration keys in words, with values as YAML spells them."""

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo


def type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return a type in words.

    Args:
        annotation: type of a field.
        metadata: its bounds, of ``annotated_types``; others are left out.

    Example:
        >>> type_text(Annotated[float, annotated_types.Gt(0)] | None)
        'float above 0, or null'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner: list[Any] = []
        for one in arguments[1:]:
            inner += one.metadata if isinstance(one, FieldInfo) else [one]
        return type_text(arguments[0], [*inner, *metadata])
    if origin is Union or origin is types.UnionType:
        texts = [type_text(one) for one in arguments if one is not type(None)]
        texts += ["null"] * (len(texts) < len(arguments))
        return (" or " if all(" " not in text for text in texts) else ", or ").join(texts)
    if origin is Literal:
        values = ", ".join(map(value_text, arguments))
        return values if len(arguments) == 1 else f"one of {values}"
    if origin is list:
        return f"list of {type_text(arguments[0])}{_length(metadata)}"
    if origin is dict:
        return f"{type_text(arguments[1])}, by name"
    name = "any value" if annotation is Any else getattr(annotation, "__name__", str(annotation))
    bounds = " and ".join(filter(None, map(_bound, metadata)))
    return " ".join(filter(None, [name, bounds])) + (_length(metadata) if annotation is str else "")


def value_text(value: Any) -> str:
    """Return a value as YAML spells it; lists and sections as Python does."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _bound(bound: Any) -> str:
    match bound:
        case annotated_types.Gt(gt=limit):
            return f"above {limit:.10g}"
        case annotated_types.Ge(ge=limit):
            return f"at least {limit:.10g}"
        case annotated_types.Lt(lt=limit):
            return f"below {limit:.10g}"
        case annotated_types.Le(le=limit):
            return f"at most {limit:.10g}"
        case annotated_types.MultipleOf(multiple_of=step):
            return f"a multiple of {step}"
    return ""


def _length(metadata: Sequence[Any]) -> str:
    least = next((m.min_length for m in metadata if isinstance(m, annotated_types.MinLen)), 0)
    most = next((m.max_length for m in metadata if isinstance(m, annotated_types.MaxLen)), None)
    if least == most:
        return f", exactly {least}"
    return (", not empty" if least == 1 else f", at least {least}" if least else "") + (
        f", at most {most}" if most is not None else ""
    )
