"""Test the HTML of the demo's page without Gradio: text is escaped, every token has a row, Stop ends an answer."""

import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt_hf.cli import main
from tinygpt_hf.inference import demo
from tinygpt_hf.inference.demo import PageSession, PageSessions, conversation_html, escaped, panel_html, stream_answer
from tinygpt_hf.inference.generation import Candidate, Step
from tinygpt_hf.settings.inference import DemoArguments

HOSTILE = (
    "<img src=x onerror=\"alert(1)\"><script>alert(1)</script>' onmouseover='x' {{7*7}} ${7*7} `x` &lt; \x1b[2J\u202e"
)


class Reader(HTMLParser):
    """A parser that collects the tags, attribute names and texts of a piece of HTML."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts = set(), set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.texts.append(data)


def step(text: str, probability=0.5, model_probability=0.25, id=7, finish=None, others=("the", " a")) -> Step:
    candidates = [Candidate(id, text, probability, model_probability)]
    candidates += [Candidate(id + k, other, 0.0, 0.125 / k) for k, other in enumerate(others, 1)]
    numbers = {"surprise": 1.5, "entropy": 1.0, "candidates": candidates, "finish": finish}
    return Step(id, text, probability, model_probability, **numbers)


@pytest.mark.parametrize(
    "page", [panel_html([step(HOSTILE, others=[HOSTILE])]), conversation_html([{"role": "user", "content": HOSTILE}])]
)
def test_nothing_hostile_is_html(page):
    reader = Reader(page)
    assert reader.tags <= {"p", "div", "span", "table", "colgroup", "col", "tr", "th", "td", "b", "i"}
    assert reader.attributes <= {"class", "style", "title", "role", "aria-live"}
    assert not any(sign in page for sign in ("{{", "${", "`", "\x1b", "\u202e"))
    assert any("<img src=x onerror=" in text and "{{7*7}}" in text for text in reader.texts)


@given(st.text())
def test_any_text_is_read_back_as_it_was_and_is_no_markup(text):
    reader = Reader(f"<p title='{escaped(text)}'>{escaped(text)}</p>")
    assert (reader.tags, reader.attributes) == ({"p"}, {"title"})
    assert "".join(reader.texts) == demo.safe_text(text)


def test_a_row_for_each_token_with_its_chances_and_alternatives():
    steps = [step("Hi", 0.75, 0.5), step("", 1.0, 0.9, id=3, finish="eos", others=("<|im_end|>", "\n"))]
    page = panel_html(steps)
    assert page.count("<tr>") == 1 + len(steps)
    for shown in ("75.0%", "50.0%", "100.0%", "90.0%", "12.5%", "6.2%", "&lt;|im_end|&gt;", "2 tokens, 1.50 bits"):
        assert shown in page
    assert "--s:0.188" in page and "--p:0.750" in page  # 1.5 of 8 bits
    assert panel_html([]) == demo.EMPTY


def said(*texts: str, finish: str = "eos"):
    for k, text in enumerate(texts, 1):
        yield step(text, finish=finish if k == len(texts) else None)


def page_session(dropped: int = 0) -> PageSession:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<b>Hello</b>"}]
    return PageSession(SimpleNamespace(messages=messages, chats=True, dropped=dropped))


def test_an_answer_is_drawn_as_it_is_made_and_whole_at_the_end(monkeypatch):
    monkeypatch.setattr(demo, "PANEL_INTERVAL", 0)
    updates = list(stream_answer(page_session(), said("<b>He", "llo</b>"), [], "Hi"))
    drawn = [["Hi", "<b>He"], ["Hi", "<b>Hello</b>"], ["Hi", "<b>Hello</b>"]]
    assert [Reader(talk).texts for talk, _, _ in updates] == drawn
    assert [panel.count("<tr>") for _, panel, _ in updates] == [2, 3, 3]
    assert updates[-1][2].startswith("2 tokens, ") and updates[-1][2].endswith(" tokens/s")
    monkeypatch.setattr(demo, "PANEL_INTERVAL", 60)
    panels = [panel for _, panel, _ in stream_answer(page_session(), said("a", "b"), [], "Hi")]
    assert panels[:2] == [None, None] and panels[2].count("<tr>") == 3


def test_the_status_says_why_an_answer_ended():
    *_, (_, _, status) = stream_answer(page_session(dropped=1), said("a", finish="length"), [], "Hi")
    assert status.endswith(
        "max_new_tokens was reached; the context is full: the oldest turns no longer reach the model"
    )


def test_stop_ends_an_answer_with_the_next_token():
    here, closed = page_session(), []

    def endless():
        try:
            while True:
                yield step("a")
        finally:
            closed.append(True)

    updates = stream_answer(here, endless(), [], "Hi")
    next(updates), next(updates)
    here.stopped = True
    *_, (_, panel, status) = updates
    assert status.startswith("2 tokens") and status.endswith("; stopped")
    assert closed == [True] and panel.count("<tr>") == 3


def test_each_page_has_its_session_and_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(demo, "MAX_SESSIONS", 2)
    pages = PageSessions(object)
    one = pages.get("one")
    assert pages.get("one") is one and pages.get("two").session is not one.session
    pages.get("one"), pages.get("three")  # the second was unused for longest
    assert pages.get("one") is one
    pages.end("one")
    assert one.stopped and pages.get("one") is not one
    pages.end("never seen")


def test_without_gradio_it_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error == "error: gradio is not installed (expected the demo extra). Run pip install 'tinygpt_hf[demo]'.\n"


def test_it_listens_here_and_has_no_way_to_be_shared():
    assert DemoArguments().host == "127.0.0.1"
    assert not any("share" in name for name in vars(DemoArguments()))
