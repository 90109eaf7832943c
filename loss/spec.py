"""The grammar of loss specifications: `weight*Type(parameter=value, ...):prediction:target`, joined by +.

The parameters, the prediction and the target are optional: `1*L1`, `1*Charbonnier(eps=1e-2)`, `0.5*SSIM(window=7):mask`.
A plus in a number such as 1e+0 or inside brackets does not join terms. Stages are separated by ' / ' (see option.py).
"""
import math
import re
from typing import NamedTuple

from loss.terms import TERMS, described, parameters
from runtime.errors import UserError

Value = bool | int | float | str
FORM = re.compile(r"(?P<type>[^():]*)(?:\((?P<given>[^()]*)\)\s*)?(?P<keys>(?::[^():]+){0,2})")
LONGEST = 10_000                          # characters of a specification
NUMBER_BEFORE_PLUS = re.compile(r"(^|[=,(+\s])-?[\d.]+e$", re.IGNORECASE)


class Part(NamedTuple):
    """One term of a specification."""
    weight: float
    type: str
    prediction: str
    target: str
    parameters: tuple[tuple[str, Value], ...] = ()        # those that the specification sets

    @property
    def name(self) -> str:
        """Name of the term in the log: 'L1' for the image, else 'L1:mask'."""
        return self.type + "".join(f":{key}" for key in dict.fromkeys((self.prediction, self.target)) if key != "image")


def parse(spec: str) -> list[Part]:
    """Return the terms of a loss specification; UserError if it is invalid."""
    if len(spec) > LONGEST:
        raise UserError(f"--loss has {len(spec)} characters; at most {LONGEST} are read")
    return [_part(text.strip(), spec) for text in _texts(spec)]


def _texts(spec: str) -> list[str]:
    """Split a specification at the plus signs that join terms."""
    texts, depth, start = [], 0, 0
    for place, mark in enumerate(spec):
        depth += (mark == "(") - (mark == ")")
        if mark == "+" and depth <= 0 and not NUMBER_BEFORE_PLUS.search(spec[start:place]):
            texts.append(spec[start:place])
            start = place + 1
    return [*texts, spec[start:]]


def _part(text: str, spec: str) -> Part:
    weight, star, rest = text.partition("*")
    name = re.split(r"[(:]", rest)[0].strip()
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if star and name in TERMS and not _balanced(rest):
        raise UserError(f"--loss '{spec}': the brackets of '{text}' are not balanced; {_known(name)}")
    form = FORM.fullmatch(rest)
    keys = [key.strip() for key in form["keys"].split(":")[1:]] if form else []
    if not star or not math.isfinite(number) or not name or not form or not all(keys):
        raise UserError(f"--loss '{spec}': '{text}' is not weight*Type, as in 1*L1, 0.5*L1:mask or 1*Charbonnier(eps=1e-3); "
                        "terms are joined by +")
    if name not in TERMS:
        raise UserError(f"unknown loss '{name}' in --loss '{spec}'; known: {', '.join(TERMS)}")
    prediction = keys[0] if keys else "image"
    return Part(number, name, prediction, keys[1] if len(keys) > 1 else prediction, _given(form["given"], name, spec))


def _balanced(text: str) -> bool:
    """Return True if a text has no brackets or exactly one pair; parameter values have no brackets."""
    return re.sub(r"[^()]", "", text) in ("", "()")


def _given(text: str | None, name: str, spec: str) -> tuple[tuple[str, Value], ...]:
    """Return the parameters in `a=1, b=2`; UserError if one is unknown, has a value of the wrong type or is given twice."""
    found: dict[str, Value] = {}
    for each in text.split(",") if text and text.strip() else ():
        key, mark, value = (part.strip() for part in each.partition("="))
        defaults = parameters(name)
        if not mark or key not in defaults or key in found:
            what = (f"'{each.strip()}' is not parameter=value" if not mark else f"'{key}' is given twice" if key in found
                    else f"{name} has no parameter '{key}'")
            raise UserError(f"--loss '{spec}': {what}; {_known(name)}")
        found[key] = _converted(value, defaults[key], f"--loss '{spec}': the parameter {key} of {name}", _known(name))
    return tuple(found.items())


def _converted(text: str, default: Value, what: str, known: str) -> Value:
    """Return the text as a value of the default's type: true or false, a whole number, a number, or a name; UserError if it is not."""
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is str and re.fullmatch(r"[A-Za-z_][\w.]*", text):
            return text
        if kind in (int, float) and math.isfinite(value := int(text) if kind is int else float(text)):
            return value
    except (KeyError, ValueError, OverflowError):          # OverflowError: a whole number beyond the floats
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[kind]
    raise UserError(f"{what} must be {wanted}, not '{text}'; {known}")


def _known(name: str) -> str:
    """Return the parameters of a term as the last part of an error message."""
    return f"its parameters and their defaults: {described(name)}" if parameters(name) else f"{name} has no parameters"


def targets(spec: str) -> set[str]:
    """Return the names of the targets that a specification needs."""
    return {part.target for part in parse(spec)}


def without(spec: str, target: str) -> str:
    """Return the specification without the terms that need one target, or `1*L1` if no term remains."""
    return "+".join(text.strip() for text in _texts(spec) if parse(text)[0].target != target) or "1*L1"


def without_types(spec: str, types: set[str]) -> str:
    """Return the specification without the terms of some types, or `1*L1` if no term remains."""
    return "+".join(text.strip() for text in _texts(spec) if parse(text)[0].type not in types) or "1*L1"


def listed(losses: dict[str, float]) -> str:
    """Return the values of terms by name as text; for the term PSNR also the PSNR in dB."""
    return ", ".join(f"{name} {value:.5g}" + (f" ({-value:.2f} dB)" if re.split("[:#]", name)[0] == "PSNR" else "")
                     for name, value in losses.items())
