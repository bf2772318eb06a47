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
    r"兒子|儿子|配偶|監護人|监护人|我叫|名叫|叫做|我係|我是|本人|同事|朋友|鄰居|邻居|同學|同学|老師|老师|負責人|负责人|經手人|代辦人|致電|"
    r"病者|傷者|伤者|死者|求診者|求诊者|事主|受保人|投保人|被保險人|被保险人|受益人|戶主|户主|簽署人|見證人|见证人|家人|親屬|亲属|親友|照顧者|照顾者|護老者|院友|學生|学生|員工|员工|職員|社工|個案|"
    r"長子|长子|次子|幼子|長女|长女|次女|幼女|孫女|孙女|孫兒|哥哥|弟弟|姐姐|妹妹|家姐|細佬|大佬|老公|老婆|個仔|個女|阿媽|阿爸|外傭|治療師|治疗师|藥劑師|药剂师|營養師|营养师|主刀|麻醉師|麻醉师|轉介人|填表人|記錄人|记录人|"
    r"審核|审核|覆核|匯款人|汇款人|付款人|抬頭|抬头|帳戶名稱|賬戶名稱|账户名|全名|中文名|真名|稱呼|称呼|尊敬的|親愛的|亲爱的|抄送|會員|会员|住客|參加者|受試者|受试者|訪客|機主|机主|接收人|寄件人|收件|預約人"
)
_LABELLED = re.compile(
    rf"(?:{_WORDS}|\b(?i:name|patient|pt|seen by|dr|mr|mrs|ms|miss|contact|holder)\b)[ ]?(?:\(?(?:姓名|全名|名|中文)\)?)?[\"' ]{{0,2}}(?:[:=,、|>/-]|為|为|是|係|叫|叫做|名叫|\()?[\"' ]{{0,3}}(?<!\n)\n?"
    rf"(?P<value>{_SURNAME}[ ]?{_OTHER}(?:[ ]?{_GIVEN}|[ ]?{_OTHER}(?=[^\u4e00-\u9fff]|$|{TITLES_ZH}|[的在於因于被係喺說说話话是已有]))?)"
)
_TITLED = re.compile(rf"(?<!{_HAN})(?P<wide>{_SURNAME}{_OTHER}{{0,2}})(?:{TITLES_ZH})(?![活日長长產产])|(?P<near>(?<![兼現现擔担出主聘委責责])(?:{_SURNAME}){_GIVEN}{{0,2}})(?:{TITLES_ZH})(?![活日長长產产])")
_ALONE = re.compile(rf"(?<!{_HAN})(?P<value>{_PLAIN} ?{_GIVEN} ?{_GIVEN})(?!{_HAN})|(?P<inside>{_PLAIN}{_GIVEN}{{2}})")
# Said of somebody or to somebody: a surname of any kind with usual characters, between a word before and one behind.
_TOLD = r"覆|叫|係|是|為|为|幫|帮|俾|畀|給|给|同埋|安排|轉介|转介|接到|收到|向|等|接|探|陪|送|對|对|關於|关于|有關|有关|致|聯絡|通知|知會|知会|聯絡|联络|多謝|多谢|感謝|感谢|根據|根据|會診|会诊|陪同|同|與|与|和|由|搵|見|见|問|问|替|代|請|请|找|同埋|阿[女仔哥媽爸]|家姐|哥哥|弟弟|妹妹|姐姐|主診|主诊|主治|護理員|社工|個案"
_THEN = r"今年|今次|現年|现年|年|主訴|主诉|因|患|有|確診|确诊|入院|出院|住|收|啟|敬上|謹上|上$|您|你好|早晨|昨|明|聽|返|去|想|話|已|未|唔|冇|不|需要|要|就|對|对|係|是|在|喺|俾|畀|同|與|和|及|打|食|做|先|與家|兩|两|的家|今日|今早|尋日|昨日|聽日|下午|上午|今晨|家人|家屬|家属|傾|倾|同意|陪同|嘅|的|話|表示|簽|签|姑娘|幫手|帮手|代為|代为|到|嚟|來|来|建議|建议|因|覆診|复诊|於|于|女士|先生"
_SAID = re.compile(
    rf"(?:(?:{_TOLD})[ :]?(?P<told>{_SURNAME}{_GIVEN}{{1,2}})(?=[^\u4e00-\u9fff]|$|{_THEN})|(?:^|[。,;\n.] ?)(?P<first>{_PLAIN}{_GIVEN}{{1,2}})(?={_THEN}))"
)
# Characters apart, as forms and typists put them: `陳 大 文`, not within a whole sentence written so; `陳 大文`.
_APART = re.compile(
    rf"(?<!{_HAN} )(?<!{_HAN}  )(?P<value>{_SURNAME} {{1,3}}{_OTHER} {{1,3}}{_OTHER}(?! {{1,3}}{_HAN} )|(?:{_PLAIN}) {{1,3}}{_GIVEN}{_OTHER}(?!{_HAN}))"
)
# Right before a person's sex, age or number, or in a cell of a table: any characters may follow the surname.
_FACTS = re.compile(
    rf"(?<!{_HAN})(?P<value>{_SURNAME}{_OTHER}{{1,2}})(?= ?[,、|/(;\t ]{{1,3}}(?:[男女]|\d{{1,3}} ?[歲岁]|\d{{1,3}} ?/? ?[MF]\b|[MF] ?/|[MF]\b|male|female|HKID|[A-Z]{{1,2}}\d{{6}}|身份證|身份证|出生|DOB|[1-9]\d{{7}}|\d{{4}}-\d\d))",
)
# A short run of characters in a Latin sentence: `Spoke with 許博 (daughter)`, `李瑞, 65/M`.
_AMONG_LATIN = re.compile(
    rf"(?:(?:^|[\n。.] ?)|(?<=[a-z] )|(?<=[a-z]: ))(?P<value>{_SURNAME}{_OTHER}?{_GIVEN})(?!{_HAN})(?=[.,;]?(?: ?\(| [a-z]{{2}}|,? ?\(?\d{{1,3}} ?(?:/|yo|y/o|M\b|F\b|歲|岁)|,? ?[男女]|[.,]?$|\. ))"
)
# Everyday words that begin with a surname: to like, bell, thank you, kinds of.
_NO_NAMES = (
    "鍾意", "钟意", "張學", "許可", "何時", "黃金", "黄金", "應該", "应该", "應承", "歐洲", "欧洲", "何況", "何况", "何必", "向來", "時時", "時常", "時間", "时间", "全家", "全部", "安全", "安樂", "平安", "和平", "石頭", "金山", "常常", "華人",
    "华人", "項目", "项目", "車站", "连同", "連同", "單位", "单位", "成年", "成功", "關於", "关于", "古代", "方便", "方法", "高興", "高兴", "高級", "溫柔", "明白", "白天", "白色", "農曆", "水平", "任教", "任何", "任由", "計劃", "常見", "于是",
    "於是", "麻煩", "麻烦", "關心", "关心", "關注", "关注", "關係", "关系", "應付", "应付", "應診", "应诊", "施行", "時期", "連續", "连续", "單一", "计算", "計算", "左右", "包括", "尤其", "解釋", "牛力", "管理",
)


def find(text: str) -> Iterator[Match]:
    """Yields names without their titles."""
    for found in _LABELLED.finditer(text):
        if found["value"].startswith(_NO_NAMES):
            continue
        yield Match("name_zh", found.start("value"), found.end("value"), Certainty.LABEL)
    for found in _TITLED.finditer(text):
        group = "wide" if found["wide"] else "near"
        if found[group].startswith(_NO_NAMES):
            continue
        # 李生 is Mr Li; 畢業生, 高生 and 陳大生 are not.
        if text.startswith("生", found.end(group)) and not (found[group] in PLAIN_ZH and found["wide"]):
            continue
        yield Match("name_zh", found.start(group), found.end(group), Certainty.SUM)
    for found in _SAID.finditer(text):
        group = "told" if found["told"] else "first"
        if not found[group].startswith(_NO_NAMES):
            yield Match("name_zh", found.start(group), found.end(group), Certainty.SHAPE)
    for found in _APART.finditer(text):
        yield Match("name_zh", found.start("value"), found.end("value"), Certainty.CONTEXT)
    for found in _FACTS.finditer(text):
        if not found["value"].startswith(_NO_NAMES):
            yield Match("name_zh", found.start("value"), found.end("value"), Certainty.CONTEXT)
    for found in _AMONG_LATIN.finditer(text):
        yield Match("name_zh", found.start("value"), found.end("value"), Certainty.SHAPE)
    for found in _ALONE.finditer(text):
        group = "value" if found["value"] else "inside"
        if found[group].startswith(_NO_NAMES):
            continue
        yield Match("name_zh", found.start(group), found.end(group), Certainty.SHAPE)
