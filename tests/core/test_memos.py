"""
What an answer of a language model says that it used, as each framework writes it; and what notes are memos.
"""

import json
from decimal import Decimal

import pytest

from durable._core.recorded.export_format import StepNote
from durable._core.recorded.memos import RecordedMemo, Used, memos_in, used_by


@pytest.mark.parametrize(
    "answer, used",
    [
        pytest.param({"usage": {"prompt_tokens": 7, "completion_tokens": 2}}, Used(7, 2), id="OpenAI, chat"),
        pytest.param({"output": [], "usage": {"input_tokens": 7, "output_tokens": 2}}, Used(7, 2), id="OpenAI"),
        pytest.param(
            {"parts": [], "usage": {"input_tokens": 7, "output_tokens": 2, "cost": "0.0012", "details": {}}},
            Used(7, 2, Decimal("0.0012")),
            id="Pydantic AI",
        ),
        pytest.param(
            {"usage": {"input_tokens": 7, "output_tokens": 2, "entries": [{"usage": {"input_tokens": 7}}]}},
            Used(7, 2),
            id="what stands within a usage is a part of it",
        ),
        pytest.param(
            {"messages": [{"data": {"usage_metadata": {"input_tokens": 7, "output_tokens": 2}}}] * 2},
            Used(14, 4),
            id="LangChain: of each message",
        ),
        pytest.param({"usage": {"input_tokens": True, "output_tokens": "many", "cost": "NaN"}}, Used(), id="none"),
        pytest.param({"usage": "heavy"}, None, id="no usage"),
        pytest.param(["usage"], None, id="a word"),
        pytest.param("usage", None, id="a text"),
    ],
)  # fmt: skip
def test_what_was_used_is_found_where_frameworks_write_it(answer, used):
    """
    In tokens and dollars; whatever else an answer holds is nothing that was used.
    """
    assert used_by(json.dumps(answer)) == used


@pytest.mark.parametrize("payload", [None, b"encrypted", '{"usage": ', '{"usage":' * 60_000 + "1" + "}" * 60_000])
def test_what_cannot_be_read_has_used_nothing_that_we_know(payload):
    """
    Encoded values, JSON that is none, JSON that is nested as deep as a stack.
    """
    assert used_by(payload) is None


def test_a_large_answer_is_not_searched_to_its_end():
    """
    What a page shows takes no longer for a value of many members.
    """
    assert used_by(json.dumps({**{str(n): n for n in range(2_000)}, "usage": {"input_tokens": 1}})) is None


def test_costs_add_up_where_they_are_known():
    """
    In words, with as many digits as the cost has.
    """
    total = Used(1_000, 5, Decimal("0.10")) + Used(7, 2) + Used(1, 1, Decimal("0.000002"))
    assert str(total) == "1,008 tokens in, 8 out, $0.100002"
    assert str(Used(1, 1, Decimal("0.50"))) == "1 tokens in, 1 out, $0.5"
    assert str(Used(7, 2)) == "7 tokens in, 2 out"


def test_memos_come_in_the_order_of_their_recording():
    """
    The first use of a name has no number; a step that has succeeded keeps its memos under another name of the note.
    """
    notes = [
        StepNote("0", "cursor", "5", 1.0),
        StepNote("0", "kept:memo:ask:2", '"b"', 3.0),
        StepNote("0", "kept:memo:ask:1", '"a"', 2.0),
        StepNote("1", "memo:ask:1", '"c"', 4.0),
    ]
    assert memos_in(notes) == [
        RecordedMemo("0", "ask", '"a"', 2.0),
        RecordedMemo("0", "ask:2", '"b"', 3.0),
        RecordedMemo("1", "ask", '"c"', 4.0),
    ]
