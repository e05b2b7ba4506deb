"""Whether parameters are what a service's model asks for: required, enumerated, long enough, not too long, of the right pattern."""
import functools
import re

from moto.core.utils import get_service_model


def problems(service, action, parameters):
    """Sentences, one for each thing that AWS would refuse."""
    shape = get_service_model(service).operation_model(action).input_shape
    return list(_look(shape, parameters, "")) if shape is not None else []


def _look(shape, value, path):
    if shape.type_name == "structure":
        yield from (f"'{_join(path, name)}' is required" for name in shape.required_members if name not in value)
        for name, one in value.items():
            if name in shape.members:
                yield from _look(shape.members[name], one, _join(path, name))
            else:
                yield f"'{_join(path, name)}' is not known"
    elif shape.type_name == "list":
        yield from _within(shape, len(value), path, "entries")
        for number, one in enumerate(value):
            yield from _look(shape.member, one, f"{path}[{number}]")
    elif shape.type_name == "map":
        yield from _within(shape, len(value), path, "entries")
        for name, one in value.items():
            yield from _look(shape.key, name, f"{path}.{name}")
            yield from _look(shape.value, one, f"{path}.{name}")
    elif shape.type_name == "string" and isinstance(value, str):
        yield from _string(shape, value, path)
    elif shape.type_name in ("integer", "long", "float", "double") and isinstance(value, (int, float)):
        yield from _within(shape, value, path, "")


def _string(shape, value, path):
    if shape.enum and value not in shape.enum:
        yield f"'{path}' is '{value}', and may be one of: {', '.join(shape.enum)}"
    yield from _within(shape, len(value), path, "characters")
    pattern = shape.metadata.get("pattern") or getattr(shape, "_shape_model", {}).get("pattern")
    if pattern and (compiled := _compiled(pattern)) and not compiled.fullmatch(value):
        yield f"'{path}' is '{value[:80]}', which does not match {pattern}"


def _within(shape, number, path, unit):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and number < low:
        yield f"'{path}' has {number} {unit}, and needs at least {low}".replace("  ", " ")
    if high is not None and number > high:
        yield f"'{path}' has {number} {unit}, and may have at most {high}".replace("  ", " ")


@functools.cache
def _compiled(pattern):
    """None for the few that only Java understands."""
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:
        return None


def _join(path, name):
    return f"{path}.{name}" if path else name
