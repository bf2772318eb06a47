"""Names in Latin letters: with a title, behind a word for a person, with a usual first name, or of Hong Kong or pinyin form."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.surnames import FIRST_EN, HONG_KONG, LAST_EN, NOT_NAMES_EN, PINYIN, PLACES_EN

_WORD = r"(?:[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)*|[A-Z]{2,}(?:[-'][A-Z]{2,})*|[A-Z]'[A-Z][a-z]+|Ma?c[A-Z][a-z]+)"
_INITIALS = r"(?:[A-Z]\.?[ ]?){1,3}"
_NAME = rf"(?:{_INITIALS} ?)?{_WORD}(?:,? {{1,3}}(?:[A-Z]\.? )?{_WORD}){{0,3}}(?: [A-Z]\.?[A-Z]?\.?(?![A-Za-z]))?"
_LABELS = (
    r"patient(?:'s)? name|full name|name of patient|name|patient|pt|next of kin|NOK|contact person|emergency contact|spouse|wife|husband|daughter|"
    r"son|mother|father|brother|sister|carer|caregiver|guardian|referred by|attending|physician|surgeon|doctor|consultant|account holder|"
    r"cardholder|holder|signed(?: by)?|dear|regards|sincerely|I am|I'm|my name is|called|named|contact|client|customer|colleague|friend|"
    r"seen by|reviewed by|spoke (?:to|with)|discussed with|accompanied by|nurse|applicant|payee|attn|attention|姓名|病人|患者|醫生|医生|聯絡人|联系人|英文名|"
    r"given names?|first name|surname|last name|family name|nominee|beneficiary|policy ?holder|insured|subject|participant|student|member|tenant|resident|witness|relative|grand(?:son|daughter|mother|father)|"
    r"aunt|uncle|niece|nephew|cousin|helper|maid|social worker|case (?:manager|worker)|therapist|pharmacist|dietitian|radiologist|anaesthetist|oncologist|GP|professor|hi|hello|morning|afternoon|to|from|by|"
    r"ordered by|prepared by|written by|entered by|checked by|approved by|authori[sz]ed by|recorded by|reported by|assigned to|under|yours|wishes|thanks|cheers|love|"
    r"名字|全名|英文姓名|客戶|客户|家屬|家属|護士|护士|戶名|户名|收款人|持卡人|申請人|申请人|太太|先生|丈夫|女兒|兒子|媽媽|爸爸|同事|朋友|主診|主治|轉介"
)
_TITLED = re.compile(rf"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Mdm|Madam|Dr|Prof|Professor|Sister|Nurse|MR|MRS|MS|DR)\b\.? ?(?P<value>{_NAME})")
_LABELLED = re.compile(
    rf"(?<![A-Za-z])(?i:{_LABELS})(?![a-z])[ ]?(?:\([^()\n]{{1,12}}\))?[\"' ]{{0,2}}(?:is|was|[:=,\n(|>/-]|係|是|為|为|叫)?[\"' \n]{{0,3}}(?:Mr|Mrs|Ms|Miss|Dr|Prof)?\.? ?(?P<value>{_NAME})"
)
_RUN = re.compile(rf"(?<![A-Za-z@.-])(?P<value>{_WORD}(?:,? {{1,3}}{_WORD}){{1,4}})(?![A-Za-z@-])")
# Words around a person: two capitalised words between them, or beside one of them, are a name.
_SAID_BEFORE = (
    r"(?i:spoke (?:to|with)|discussed [a-z ]{0,20}with|signed by|thank you|thanks|informed|notified|told|rang|called|phoned|met|saw|cc|copy to|wishes,?|"
    r"accompanied by|written by|from|with|by|named|re:?|attn:?)|多謝|多谢|感謝|通知|會診|会诊|主治|主診|見|同|由|社工|陪同"
)
_SAID_BEHIND = (
    r",? ?\(?(?:M|F|m|f)?/?\d{1,3} ?(?:/[MF]\b|M\b|F\b|yo\b|y/o\b|years?\b|歲|岁)|, ?[男女]|,? \(?(?:M|F)/\d|, (?:a|an|aged|age)\b| \((?:daughter|son|wife|husband|mother|father|carer|sister|brother)"
    r"| (?:attended|called|said|says|agreed|reports?|reported|denies|denied|declined|consented|complains|came|phoned|was (?:seen|admitted|discharged|reviewed)|will attend)\b"
    r"| ?(?:今日|今早|今晨|尋日|嘅|的|話|表示|同意|幫手|覆診|跟進|女士|先生|小姐)"
)
_TWO = r"(?:[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)?|[A-Z]{3,})(?: [A-Z]\.)?(?: (?:[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)*|[A-Z]{2,}|Ma?c[A-Z][a-z]+|O'[A-Z][a-z]+)){1,2}"
_SAID = re.compile(
    rf"(?:(?<![A-Za-z])(?:{_SAID_BEFORE})[ \n]{{0,2}}(?P<told>{_TWO})(?![A-Za-z@-])|(?<![A-Za-z@.-])(?P<then>{_TWO})(?={_SAID_BEHIND}))"
)
_PINYIN = re.compile(r"(?:[bpmfdtnlgkhjqxzcsryw]|zh|ch|sh)?(?:[aeiou]{1,3})(?:ng?|r)?(?:(?:[bpmfdtnlgkhjqxzcsryw]|zh|ch|sh)[aeiou]{1,3}(?:ng?|r)?)?")
_PLACES = re.compile(rf"\b(?:{PLACES_EN})\b", re.IGNORECASE)
_MOST_WORDS = 5
# Surnames that are no English word and no first half of a place.
_SURE_HONG_KONG = HONG_KONG - frozenset(["Au", "Or", "So", "To", "Man", "Sin", "Sum", "Sun", "Pan", "Pun", "Tang", "Fan", "Law", "Lok", "Kong", "Hong", "Chin", "Ma", "Pang", "Ho", "Ip", "Fu", "Tong", "Lung", "Kam", "Wan", "Tai", "Yan", "Long", "Chow", "Fong"])

# Words that stand before a word that is a surname too: `Left Ward`, `Right Hill`, of eponyms.
_BEFORE_LAST = frozenset(["Left", "Right", "Upper", "Lower", "North", "South", "East", "West", "New", "Old", "Grade", "Stage", "General", "Day", "Private", "Isolation", "Surgical", "Van", "Von"])
# In messages without capitals: a title and a surname of Hong Kong, or the word for a patient and three syllables.
_SMALL = re.compile(r"(?<![A-Za-z])(?:mr|mrs|ms|miss|dr|pt|patient|name:?)\.? (?P<value>[a-z]{2,6}(?: [a-z]{2,6}){0,2})(?![A-Za-z-])")

# Letters apart, as forms print them: `C H A N  T A I  M A N`.
_APART = re.compile(r"(?<![A-Za-z])[A-Z](?: [A-Za-z]){2,14}(?: {2,3}[A-Z](?: [A-Za-z]){1,14}){1,3}(?![A-Za-z])")
_SMALL_WORDS = frozenset(
    ["can", "was", "has", "had", "he", "she", "me", "in", "on", "an", "a", "to", "so", "do", "no", "we", "i", "is", "re", "ga", "her", "him", "his", "come", "have", "more", "pain", "bed", "age", "via", "man", "men", "one"]
)


def find(text: str) -> Iterator[Match]:
    """Yields names without their titles."""
    # In small letters a place is read as no name, and every character stays where it is.
    text = _PLACES.sub(lambda place: place.group().lower(), text)
    for found in _TITLED.finditer(text):
        yield from _trimmed(text, found, Certainty.LABEL, least=1)
    for found in _LABELLED.finditer(text):
        yield from _trimmed(text, found, Certainty.LABEL, least=2)
    for found in _APART.finditer(text):
        yield Match("name_en", found.start(), found.end(), Certainty.CONTEXT)
    for found in _SMALL.finditer(text):
        yield from _small(found)
    for found in _SAID.finditer(text):
        group = "told" if found["told"] else "then"
        if not any(_plain(word) in NOT_NAMES_EN for word in found[group].split()):
            yield Match("name_en", found.start(group), found.end(group), Certainty.SHAPE)
    for found in _RUN.finditer(text):
        yield from _inside(found)


def _trimmed(text: str, found: re.Match[str], certainty: Certainty, *, least: int) -> Iterator[Match]:
    """Yields the words up to the first that cannot be part of a name, when there are at least `least` of them."""
    words = []
    for word in re.finditer(_WORD, found["value"]):
        if _plain(word.group()) in NOT_NAMES_EN and not _is_surname(word.group()):
            break
        words.append(word)
    if len(words) >= least or (words and _plain(words[0].group()) in FIRST_EN):
        start = found.start("value")
        yield Match("name_en", start + words[0].start(), start + words[-1].end(), certainty)


def _small(found: re.Match[str]) -> Iterator[Match]:
    """Yields a surname in small letters with the syllables behind it; alone only behind a title."""
    words = found["value"].split(" ")
    if words[0].capitalize() not in HONG_KONG or words[0] in ("to", "so", "or", "man", "sum", "sun", "on"):
        return
    size = 1
    while size < len(words) and _PINYIN.fullmatch(words[size]) and words[size] not in _SMALL_WORDS:
        size += 1
    if size > 1 or found.group()[0] in "md":
        yield Match("name_en", found.start("value"), found.start("value") + len(" ".join(words[:size])), Certainty.CONTEXT)


def _plain(word: str) -> str:
    return word.capitalize() if word.isupper() else word


def _is_surname(word: str) -> bool:
    return _plain(word) in HONG_KONG or _plain(word) in PINYIN


def _inside(found: re.Match[str]) -> Iterator[Match]:
    """Yields the names in a run of capitalised words: a first name and what follows, or a surname and its syllables."""
    words = list(re.finditer(_WORD, found["value"]))
    place = 0
    while place < len(words):
        size = _name_at([word.group() for word in words[place:]])
        if size:
            start = found.start("value")
            yield Match("name_en", start + words[place].start(), start + words[place + size - 1].end(), Certainty.SHAPE)
        place += size or 1


def _name_at(words: list[str]) -> int:
    """Returns how many of the words, from the first, are a name; 0 when none begins here."""
    plain = [_plain(word) for word in words]
    free = 0
    while free < len(plain) and free < _MOST_WORDS and (plain[free] not in NOT_NAMES_EN or _is_surname(plain[free])):
        free += 1
    if free < 2:
        return 0
    if plain[0] in FIRST_EN:
        return min(free, 4 if any(word in HONG_KONG for word in plain[1:free]) else 3)
    if plain[0] in HONG_KONG and _is_syllable(plain[1]):
        return 1 + _syllables(plain[1:free])
    if plain[1] in PINYIN and len(plain[0]) > 1 and _PINYIN.fullmatch(plain[0].lower()):
        return 2
    if plain[1] in _SURE_HONG_KONG and len(plain[0]) > 2:
        return 2
    if plain[1] in LAST_EN and len(plain[0]) > 2 and plain[0] not in _BEFORE_LAST:
        return 2
    if plain[0] in PINYIN and _PINYIN.fullmatch(plain[1].lower()):
        return 2
    given = _syllables(plain[:free])
    if 1 <= given < free and plain[given] in HONG_KONG and (given == 2 or "-" in plain[0]):
        return given + 1
    return 0


def _is_syllable(word: str) -> bool:
    return all(2 <= len(part) <= 5 for part in word.split("-")) and word not in NOT_NAMES_EN


def _syllables(words: list[str]) -> int:
    """Returns how many of the first words are given-name syllables, at most two, or three with a usual first name."""
    size = 0
    for word in words[:3]:
        if (size < 2 and _is_syllable(word)) or word in FIRST_EN:
            size += 1
        else:
            break
    return size
