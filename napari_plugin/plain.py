"""Words of strangers (names of files, layers, classes, bundles): shown as they stand, never as HTML."""

import re
from html import escape

BREAK = "\u200b"  # has no width, and a line may end there


def plain(text: str) -> str:
    """Text for a tooltip, a message box, a notification or any label that guesses what it is given.

    >>> plain("liver"), plain("<b>liver</b>")
    ('liver', '<qt>&lt;b&gt;liver&lt;/b&gt;</qt>')
    """
    guessed = "<" in text or "&" in text
    return f"<qt>{'<br>'.join(escape(text).splitlines())}</qt>" if guessed else text


def breakable(text: str) -> str:
    """The same text, of which lines may end within paths and long names, too.

    >>> breakable("/data/case_1 is no bundle").split(BREAK)
    ['/', 'data/', 'case_', '1 is no bundle']
    """
    return re.sub(r"[^\s/_]{0,20}[/_](?=\S)|[^\s/_]{20}(?=\S)", lambda part: part[0] + BREAK, text)
