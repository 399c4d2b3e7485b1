"""
Texts about values: messages of errors, reasons of cancellations, reports of what blocks a run.

They stand in columns and events that people, and the command line, read without a codec. Where the hooks on values
encrypt, so must these texts be; what is no secret of them (the class of an error, "its clean-up failed") stays
readable around what is encrypted: ``ValueError: [encrypted: gAAA...]``. So a text is concealed where it is made, is
passed on and recorded as it is, and revealed where it is shown to the program.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from durable._core.codec.codec import ValueCodec

_CONCEALED: Final = re.compile(r"\[(?:\w{1,100}, )?encrypted: ([A-Za-z0-9+/]+={0,2})\]")


def encrypts(hooks: ValueCodec | None) -> bool:
    """Whether *hooks* are to hide what they are given, as all do that do not say ``encrypts = False``."""
    return hooks is not None and bool(getattr(hooks, "encrypts", True))


def is_concealed(text: str) -> bool:
    """Whether *text* is what `conceal` made of one."""
    return _CONCEALED.fullmatch(text) is not None


def conceal(text: str, hooks: ValueCodec, brief: str = "") -> str:
    """*text*, encrypted, unless it is already; *brief* stays readable, and is not part of it."""
    if is_concealed(text):
        return text
    try:
        hidden = base64.b64encode(hooks.encode(text.encode("utf-8", "surrogatepass"))).decode()
    except Exception:  # noqa: BLE001 - of the user's; in plain is where it must not be
        return "[not recorded: the codec= hook failed]"
    return f"[{brief}, encrypted: {hidden}]" if brief else f"[encrypted: {hidden}]"


def reveal(text: str, hooks: ValueCodec) -> str:
    """*text*, with all in it that was concealed, as far as *hooks* can read it."""

    def read(found: re.Match[str]) -> str:
        try:
            return hooks.decode(base64.b64decode(found[1])).decode("utf-8", "surrogatepass")
        except Exception:  # noqa: BLE001 - of the user's, on what anybody may have written
            return found[0]

    return _CONCEALED.sub(read, text) if "encrypted: " in text else text
