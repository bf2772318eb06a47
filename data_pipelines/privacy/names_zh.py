"""Names in Chinese: behind a word for a person, before a title, or a plain surname with two usual given-name characters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.surnames import COMPOUND_ZH, GIVEN_ZH, NOT_GIVEN_ZH, PLAIN_ZH, SINGLE_ZH, TITLES_ZH

_HAN = r"[\u4e00-\u9fff]"
_SURNAME = rf"(?:{'|'.join(sorted(COMPOUND_ZH))}|[{''.join(sorted(SINGLE_ZH))}])"
_PLAIN = rf"(?:{'|'.join(sorted(COMPOUND_ZH))}|[{''.join(sorted(PLAIN_ZH))}])"
_GIVEN = rf"[{''.join(sorted(GIVEN_ZH - NOT_GIVEN_ZH))}]"
_OTHER = rf"(?![{''.join(sorted(NOT_GIVEN_ZH))}]){_HAN}"
_WORDS = (
    r"姓名|名字|病人|患者|病患|家屬|家属|聯絡人|联络人|联系人|聯繫人|主診醫生|主治醫師|主治医生|醫生|医生|醫師|医师|護士|护士|客戶|客户|"
    r"戶名|户名|持有人|持卡人|收件人|收款人|簽名|签名|簽署|申請人|申请人|母親|母亲|父親|父亲|媽媽|妈妈|爸爸|丈夫|妻子|太太|先生|女兒|女儿|"
    r"兒子|儿子|配偶|監護人|监护人|我叫|名叫|叫做|我係|我是|本人|同事|朋友|鄰居|邻居|同學|同学|老師|老师|負責人|负责人|經手人|代辦人|致電"
)
_LABELLED = re.compile(
    rf"(?:{_WORDS}|\b(?i:name|patient|pt|seen by|dr|mr|mrs|ms|miss|contact|holder)\b)[ ]?(?:\(?(?:姓名|全名|名|中文)\)?)?[ ]?(?:[:=,、]|為|为|是|係|叫|名叫|\()?[ ]{{0,2}}"
    rf"(?P<value>{_SURNAME}[ ]?{_OTHER}(?:[ ]?{_GIVEN}|[ ]?{_OTHER}(?=[^\u4e00-\u9fff]|$|{TITLES_ZH}|[的在於因於被係喺說说話话是已有]))?)"
)
_TITLED = re.compile(rf"(?<!{_HAN})(?P<wide>{_SURNAME}{_OTHER}{{0,2}})(?:{TITLES_ZH})(?![活日長长產产])|(?P<near>{_SURNAME}{_GIVEN}{{0,2}})(?:{TITLES_ZH})(?![活日長长產产])")
_ALONE = re.compile(rf"(?<!{_HAN})(?P<value>{_PLAIN} ?{_GIVEN} ?{_GIVEN})(?!{_HAN})|(?P<inside>{_PLAIN}{_GIVEN}{{2}})")
# Everyday words that begin with a surname: to like, bell, thank you, kinds of.
_NO_NAMES = ("鍾意", "钟意", "張學", "許可", "何時", "黃金", "黄金")


def find(text: str) -> Iterator[Match]:
    """Yields names without their titles."""
    for found in _LABELLED.finditer(text):
        yield Match("name_zh", found.start("value"), found.end("value"), Certainty.LABEL)
    for found in _TITLED.finditer(text):
        group = "wide" if found["wide"] else "near"
        # 李生 is Mr Li; 畢業生, 高生 and 陳大生 are not.
        if text.startswith("生", found.end(group)) and not (found[group] in PLAIN_ZH and found["wide"]):
            continue
        yield Match("name_zh", found.start(group), found.end(group), Certainty.SUM)
    for found in _ALONE.finditer(text):
        group = "value" if found["value"] else "inside"
        if found[group].startswith(_NO_NAMES):
            continue
        yield Match("name_zh", found.start(group), found.end(group), Certainty.SHAPE)
