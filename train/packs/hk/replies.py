"""What language a reply is in: Cantonese or not, Traditional or Simplified script, how much English.

On real sentences py3langid finds most Cantonese and takes some Mandarin for it; canto-filter is seldom wrong where it
decides and abstains often. So canto-filter decides, and where it abstains py3langid does.
"""

from __future__ import annotations

import functools
import re
from typing import Any

LATIN_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
HAN = re.compile(r"[㐀-鿿豈-﫿\U00020000-\U0003ffff]")


def judge(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Returns the figures of one reply; lm-evaluation-harness calls it.

    `cantonese` 0 or 1; `simplified`: of the characters that differ between the scripts, the share in Simplified form;
    `code_switch`: Latin words among words and Han characters. Replies without what a figure needs have none of it.
    """
    text = results[0].strip()
    found = {"empty": float(not text), "cantonese": float(is_cantonese(text))}
    if (share := simplified_share(text)) is not None:
        found["simplified"] = share
    if (share := code_switch_rate(text)) is not None:
        found["code_switch"] = share
    return found


def is_cantonese(text: str) -> bool:
    """True when `text` is Cantonese: by canto-filter where it decides, else by py3langid."""
    if not HAN.search(text):
        return False
    from cantofilter import judge as verdict

    found = verdict(text)
    label = str(getattr(found, "value", found))
    if label in ("cantonese", "mandarin"):
        return label == "cantonese"
    return str(_identifier().classify(text)[0]) == "yue"


def simplified_share(text: str) -> float | None:
    """Returns Simplified / (Simplified + Traditional) among the characters whose form tells; None without any.

    A character is Traditional when OpenCC's t2s changes it and Simplified when s2t does; one that both change (such as 后)
    or neither tells nothing.
    """
    to_traditional, to_simplified = _converters()
    simplified = traditional = 0
    for character in HAN.findall(text):
        is_simplified = to_traditional.convert(character) != character
        is_traditional = to_simplified.convert(character) != character
        simplified += is_simplified and not is_traditional
        traditional += is_traditional and not is_simplified
    return simplified / (simplified + traditional) if simplified + traditional else None


def code_switch_rate(text: str) -> float | None:
    """Returns Latin words / (Latin words + Han characters) of a text with Han characters; None without them."""
    characters, words = len(HAN.findall(text)), len(LATIN_WORD.findall(text))
    return words / (words + characters) if characters else None


@functools.cache
def _converters() -> tuple[Any, Any]:
    from opencc import OpenCC

    return OpenCC("s2t"), OpenCC("t2s")


@functools.cache
def _identifier() -> Any:
    import py3langid

    return py3langid
