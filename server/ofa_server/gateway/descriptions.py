"""Whether a text asks for a description of the whole picture, or something in particular."""

from __future__ import annotations

import re

_MARKS = re.compile(r"[\s.?!,:;。？！，：；、\"“”]+")
_COURTESY_BEFORE = re.compile(
    r"(?:(?:please|kindly|hi|hello|hey|(?:can|could|would|will) you|i want you to) )+"
)
_COURTESY_AFTER = re.compile(r"(?: (?:please|for me|to me|now|here))+$")

_PICTURE = (
    r"(?:(?:the|this|that|my) )?(?:(?:attached|given|following|above|uploaded) )?"
    r"(?:image|picture|photo|photograph|pic)"
)
_MANNER = (
    r"(?: (?:in detail|in english|in chinese|briefly|shortly"
    r"|(?:in|with|using) (?:\w+ ){1,3}(?:sentences?|words?|lines?|paragraphs?)))*"
)
_ENGLISH = (
    rf"(?:describe|caption)(?: (?:{_PICTURE}|this|it|what you see|what is (?:in|on) {_PICTURE}))?",
    (
        r"(?:write|give|generate|provide|create|make|suggest)(?: me)? an? (?:\w+ ){0,2}"
        rf"(?:caption|description)(?: (?:of|for) (?:{_PICTURE}|this|it))?"
    ),
    rf"what(?: is|'s| are) (?:there |shown |depicted |happening |going on )?(?:in|on) {_PICTURE}",
    rf"what(?: is|'s) {_PICTURE}(?: (?:about|of|showing))?",
    rf"what does {_PICTURE} (?:show|describe|depict|contain)",
    rf"what (?:do|can) you see(?: (?:in|on) {_PICTURE})?",
    rf"tell me (?:about {_PICTURE}|what you see(?: (?:in|on) {_PICTURE})?)",
)
_CHINESE_PICTURE = r"(?:图片|图像|照片|图|画面)"
_WHICH = r"(?:这一|这|该|此)?(?:张|幅|个)?"
_CHINESE = (
    (
        r"(?:请你|请|帮我|用中文|详细|简单|简要|地|来)*描述(?:一下|下)?"
        rf"{_WHICH}{_CHINESE_PICTURE}?(?:的?内容)?"
    ),
    (
        rf"{_WHICH}{_CHINESE_PICTURE}(?:里面|里|中|上)?"
        r"(?:描述了|描述的是|展示了|显示了|画了|画的是|有|是)(?:些)?什么(?:内容|东西)?"
    ),
)
_REQUEST = re.compile("|".join([*(f"(?:{each}){_MANNER}" for each in _ENGLISH), *_CHINESE]))


def asks_for_description(text: str) -> bool:
    """Returns whether the text, in English or Chinese, asks what the picture as a whole shows.

    It is a list of the ways in which people say so; every other text asks something in particular.
    """
    plain = _MARKS.sub(" ", text.lower().replace("’", "'")).strip()  # noqa: RUF001
    plain = _COURTESY_AFTER.sub("", _COURTESY_BEFORE.sub("", plain, count=1))
    return not plain or _REQUEST.fullmatch(plain) is not None


def is_chinese(text: str) -> bool:
    """Returns whether the text has Chinese characters."""
    return re.search(r"[\u4e00-\u9fff]", text) is not None
