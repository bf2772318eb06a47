"""Addresses in English: flats, floors, blocks, numbered streets, Hong Kong's districts, mainland cities, joined by commas."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.surnames import PLACES_EN

_WORD = r"[A-Z][A-Za-z'.-]*"
_WORDS = rf"{_WORD}(?: {_WORD}){{0,4}}"
_STREET_END = (
    r"(?:Road|Rd|Street|St|Avenue|Ave|Lane|Ln|Drive|Drv|Dr|Path|Terrace|Circuit|Crescent|Square|Praya|Highway|Way|Close|Place|Row|Mews|Hill|Cres|Mall|Walk|Rise|Grove|Green|Parade|Quay|Wharf|Circus|Sq|Pl|Tce|Gdns|Nagar|Marg|Chowk|Circle|View|Park|Bypass|Link|Turnpike|Trail|Ridge|"
    r"Court|Ct|Boulevard|Blvd|Jie|Lu|Dadao|Xiang|Nong)\b\.?(?: (?:North|South|East|West|Central))?"
)
_HOUSE_END = (
    r"(?:House|Building|Bldg|Mansions?|Court|Tower|Centre|Center|Estate|Gardens?|Villas?|Plaza|Village|Chuen|Heights|Terrace|"
    r"Residences?|Apartments?|Towers|Tsuen|Wan|Shing|Cove|Bay|Peak)\b"
)
_UNIT = (
    r"(?:(?:Flat|Flt|Rm|Room|Unit|Suite|Apt|Apartment|Shop|House|Block|Blk|Tower|Phase|Studio|Building|Bldg)\.? ?[A-Z]?-?\d{0,5}[A-Z]?\b"
    r"|(?:\d{1,3}|G|LG|UG)/F\.?|\d{1,3}(?:st|nd|rd|th) (?:Floor|Flr)|(?:Floor|Level) \d{1,3})"
)
_STREET = rf"(?:No\.? ?)?\d{{1,5}}[A-Z]?(?:-\d{{1,5}})?,? {_WORDS} {_STREET_END}"
_HOUSE = rf"{_WORDS} {_HOUSE_END}"
_PLACE = (
    r"(?:Hong Kong(?: Island)?|HK|Kowloon|KLN|New Territories|N\.?T\.?|"
    r"(?:P\.?R\.? ?)?China|PRC|(?:[A-Z][a-z]+ ){0,3}(?:District|City|Province|Town|County)|[A-Z][a-z]+(?: [A-Z][a-z]+){0,2}|\d{5,6})"
)
_JOIN = r"(?: ?[,;] {0,2}\n?| ?\n| {1,3})"
_HEAD = rf"(?:{_UNIT}|{_STREET}|{_HOUSE})"
_ADDRESS = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_UNIT}{_JOIN}{_HEAD}|{_STREET})(?:{_JOIN}{_HEAD}){{0,5}}(?: ?, {{0,2}}\n?{_PLACE}){{0,4}}"
)


# A number and a name right before one of Hong Kong's districts: whatever the street calls itself.
_IN_DISTRICT = re.compile(rf"(?<![A-Za-z0-9/.,-])(?<!\d )\d{{1,4}}[A-Z]? {_WORD}(?: {_WORD}){{0,3}}, ?(?:{PLACES_EN})(?:, ?{_PLACE}){{0,3}}(?![A-Za-z])")

# Behind words for an address: segments of any capitalised words, a number in the first or second.
_PART = rf"(?:{_UNIT}|(?:No\.? ?|#)?\d{{1,5}}[A-Z]?(?:[-/]\d{{1,5}}[A-Z]?)?,? {_WORDS}|{_WORDS}(?:[ -]\d{{1,6}})?|[A-Z]{{1,2}}\d[\dA-Z]? ?\d[A-Z]{{2}}|[A-Z]{{2}} \d{{5}}(?:-\d{{4}})?|\d{{5,6}})"
_SAID = re.compile(
    rf"(?:(?i:(?<![a-z])(?:address|addr|lives? (?:at|in)|living (?:at|in)|resid(?:es|ing|ence)(?: at| in)?|stays? at|home(?: visit)?(?: at| to)?|deliver\w*(?: to)?|(?:send|sent|mail(?:ed)?|post(?:ed)?|courier(?:ed)?|ship(?:ped)?|moved|moving|return)(?: \w+){{0,3}} to|from|at))"
    rf"|地址|住址|居住|住喺|住在|現居|现居|居於|居于|住|寄去|寄到|寄往|寄|送去|送到|搬去|搬到|家訪|家访)[\"' ]{{0,2}}(?:is|was|為|为|是|係|:|=|\||,|-)?[\"' ]{{0,3}}\n?"
    rf"(?P<value>{_PART}(?:{_JOIN}{_PART}){{1,7}})(?![A-Za-z0-9])"
)
_NUMBERED = re.compile(r"^(?:[^,;\n]*\d|[^,;\n]*[,;\n][^,;\n]*\d)")
# A number and words up to the postcode of the United Kingdom, a state of America, or a PIN of India. Whole words, none of
# which begins a postcode, taken once (`?>`): notes in capitals have hundreds of them behind a number and no postcode.
_WHOLE = r"(?![A-Z]{2} \d{5}(?!\d))[A-Z](?:[A-Za-z'.]|-(?=[A-Za-z]))*+(?![A-Za-z0-9])"
_TO_POSTCODE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{_UNIT}|(?:No\.? ?)?\d{{1,5}}[A-Z]?(?:[-/]\d{{1,5}})?,? {_WHOLE})(?>{_JOIN}(?:{_UNIT}|{_WHOLE})){{1,30}}"
    rf"(?:{_JOIN}| ?- ?)(?:[A-Z]{{1,2}}\d[\dA-Z]? ?\d[A-Z]{{2}}|[A-Z]{{2}} \d{{5}}(?:-\d{{4}})?|\d{{6}})(?![A-Za-z0-9])"
)


def find(text: str) -> Iterator[Match]:
    """Yields addresses: a numbered street, or a flat or floor with something behind it."""
    for found in _ADDRESS.finditer(text):
        if re.search(r"\d", found.group()):
            yield Match("address_en", found.start(), found.end(), Certainty.CONTEXT)
    for found in _IN_DISTRICT.finditer(text):
        yield Match("address_en", found.start(), found.end(), Certainty.CONTEXT)
    for found in _TO_POSTCODE.finditer(text):
        yield Match("address_en", found.start(), found.end(), Certainty.CONTEXT)
    for found in _SAID.finditer(text):
        if _NUMBERED.match(found["value"]) and re.search(r"[A-Za-z]{3}", found["value"]):
            yield Match("address_en", found.start("value"), found.end("value"), Certainty.CONTEXT)
