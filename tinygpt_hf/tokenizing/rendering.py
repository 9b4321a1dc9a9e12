"""Render a conversation by a chat template from elsewhere, and find in its text who said what.

    Rendering(tokenizer, template, messages, tools).pieces(add_generation_prompt=False)

Text a person wrote can never become a control token, nor get lost: each is replaced by a mark, which tells where the template
wrote it, how often it quoted it as JSON, and whether it has a place for it at all.
"""

import functools
import itertools
import re
import secrets

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.turns import THOUGHTS, as_json
from tinygpt_hf.tokenizing.template_sandbox import invalid_template, render

# What a template gets in place of a text; inside a JSON string each quoting doubles the backslashes before its ends.
MARK = re.compile(r"(?:\x02|(\\+)u0002)([0-9a-f]{16}):([0-9]{1,9})(?:\x03|\\+u0003)")
MOST_COPIES = 8  # how often a template may write a text: some repeat the first question


class NoPlaceError(UsageError):
    """Report what a conversation says and its chat template does not write: prepare-corpus drops it under `rule`."""

    def __init__(self, field: str, number: int | None):
        where = "" if number is None else f" of message {number + 1}"
        super().__init__(
            f"the chat template has no place for `{field}`{where}",
            "one: it would be lost",
            "remove the field or the row (prepare-corpus drops and counts such rows), or use a tokenizer whose template has one",
        )
        self.rule = f"field {field}"


def is_link(messages: list[dict], k: int) -> bool:
    """Tell whether message k answers the call of a tool in the conversation: its name and id repeat what that says."""
    calls = next((m.get("tool_calls") for m in reversed(messages[:k]) if m["role"] == "assistant"), None)
    return messages[k]["role"] == "tool" and bool(calls)


def says_more(message: dict) -> bool:
    """Tell whether a message holds more than role, content and mark, or is a tool's."""
    return message["role"] == "tool" or bool(message.keys() - {"role", "content", "weight"})


def is_learned(message: dict) -> bool:
    return message["role"] == "assistant" and message.get("weight") != 0


def without_marks(tokenizer, content: str) -> list[str]:
    """Cut a content so that no part holds a control token that its tokenizer does not call special (`<tool_call>`).

    The tokenizer would encode it as one token, whoever wrote it. Added words such as `naïve` are not cut.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.special]
    marks = [re.escape(text) for text in added if re.fullmatch(r"<.+>|\[.+\]", text, re.DOTALL)]
    cuts = [match.start() + 1 for match in re.finditer(f"(?={'|'.join(marks)})", content)] if marks else []
    return [content[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(content)])]


class Rendering:
    """A conversation with marks in place of its texts, and the template that writes it."""

    def __init__(self, tokenizer, template: str, messages: list[dict], tools: list[dict] | None):
        self._tokenizer, self._template, self._messages = tokenizer, template, messages
        self._has_generation = re.search(r"\{%[-+]?\s*generation\b", template) is not None
        self._secret = secrets.token_hex(8)  # nobody can write it into a message beforehand
        # by mark: the text, its field (none: it may be left out), its message
        self._texts: list[tuple[str, str, int | None]] = []
        added = [re.escape(token.content) for token in tokenizer.added_tokens_decoder.values()]
        self._control = re.compile("|".join(added) or "(?!)")
        self._shown = [self._marked(message, k) for k, message in enumerate(messages)]
        self._tools = [self._named(tool, "tools", None) for tool in tools or ()] or None

    def pieces(self, add_generation_prompt: bool) -> list[tuple[str, bool, bool]]:
        """Return the conversation cut into (text, is_target, typed): `typed` ones come from a message."""
        text, spans = self._render(self._shown, add_generation_prompt)
        marks = [m for m in MARK.finditer(text) if m[2] == self._secret and int(m[3]) < len(self._texts)]
        if max(text.count(self._secret), len(spans)) > MOST_COPIES * max(len(self._texts), len(self._messages)):
            raise invalid_template(self._tokenizer.name_or_path, "repeats the messages without end")
        self._check_places(text, marks)
        spans = self._learned(spans) if self._has_generation else self._spoken(text, marks)
        pieces: list[tuple[str, bool, bool]] = []
        position = 0
        for mark in [*marks, None]:
            piece = text[position : mark.start() if mark else len(text)]
            pieces += [(part, is_target, False) for part, is_target in _cut(piece, position, spans)]
            if mark:
                position = mark.end()
                pieces += self._typed(mark)
        return [piece for piece in pieces if piece[0]]

    def _check_places(self, text: str, marks: list[re.Match]) -> None:
        """Refuse a template that breaks a mark, or leaves one out."""
        whole = {mark.span() for mark in marks}
        rest = MARK.sub(lambda mark: "" if mark.span() in whole else mark[0], text)
        if any(sign in rest for sign in ("\x02", "\x03", self._secret)):
            raise invalid_template(self._tokenizer.name_or_path, "changes what the messages say")
        written = {int(mark[3]) for mark in marks}
        for number, (_, field, k) in enumerate(self._texts):
            if field and number not in written:
                raise NoPlaceError(field, k)

    def _render(self, messages: list[dict], add_generation_prompt: bool) -> tuple[str, list[tuple[int, int]]]:
        variables = {**self._tokenizer.special_tokens_map, "tools": self._tools}
        name = self._tokenizer.name_or_path
        return render(self._template, messages, add_generation_prompt, variables, self._has_generation, name)

    def _mark(self, text: str, field: str, message: int | None) -> str:
        if not text:
            return text
        self._texts.append((text, field, message))
        return f"\x02{self._secret}:{len(self._texts) - 1}\x03"

    def _marked(self, message: dict, k: int) -> dict:
        shown = {name: value for name, value in message.items() if name != "weight"}
        shown["content"] = self._mark(message["content"], "content", k)
        if "reasoning_content" in message:
            shown |= dict.fromkeys(THOUGHTS, self._mark(message["reasoning_content"], "reasoning_content", k))
        if "tool_calls" in message:
            shown["tool_calls"] = [self._named(call, "tool_calls", k) for call in message["tool_calls"]]
        for name in ("name", "tool_call_id"):
            if name in message:
                is_said = name == "name" and not is_link(self._messages, k)
                shown[name] = self._mark(message[name], name, k) if is_said else self._guarded(message[name], k)
        return shown

    def _named(self, tool: dict, field: str, k: int | None) -> dict:
        """Return a tool or a call with a mark for its name; of the rest, which templates ask, it guards control tokens."""
        named = {
            name: self._mark(value, field, k) if name == "name" else self._guarded(value, k)
            for name, value in tool["function"].items()
        }
        return {name: named if name == "function" else self._guarded(value, k) for name, value in tool.items()}

    def _guarded(self, value, k: int | None):
        """Return a value with marks for the texts in it that hold a control token; the template need not write them."""
        if isinstance(value, str):
            return self._mark(value, "", k) if self._control.search(value) else value
        if isinstance(value, list):
            return [self._guarded(part, k) for part in value]
        if isinstance(value, dict):
            return {self._guarded(name, k): self._guarded(part, k) for name, part in value.items()}
        return value

    def _typed(self, mark: re.Match) -> list[tuple[str, bool, bool]]:
        text, _, k = self._texts[int(mark[3])]
        for _ in range(len(mark[1] or "").bit_length()):
            text = as_json(text)[1:-1]
        message = {"role": "system"} if k is None else self._messages[k]
        parts = [text] if message["role"] == "assistant" else without_marks(self._tokenizer, text)
        return [(part, is_learned(message), True) for part in parts]

    def _learned(self, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts between generation marks without those of answers that are not learned."""
        answers = [is_learned(message) for message in self._messages if message["role"] == "assistant"]
        if all(answers):
            return spans
        if len(spans) != len(answers):
            seen = f"the chat template marks {len(spans)} parts of a conversation with {len(answers)} answers"
            raise UsageError(seen, "one for each, where some have a weight of 0", "remove those rows")
        return [span for span, learned in zip(spans, answers, strict=True) if learned]

    def _spoken(self, text: str, marks: list[re.Match]) -> list[tuple[int, int]]:
        """Find what the assistant says in a template without generation marks.

        An answer of text ends with the first special token after it. One that thinks or calls tools goes from the prompt of
        an answer to the special token that ends one.
        """
        spans: list[tuple[int, int]] = []
        # by message: where the text before its first mark begins, and ends
        first: dict[int | None, tuple[int, int]] = {}
        begin = 0
        for mark, after in itertools.zip_longest(marks, marks[1:]):
            k = self._texts[int(mark[3])][2]
            first.setdefault(k, (begin, mark.start()))
            begin, end = mark.end(), after.start() if after else len(text)
            if k is None or not is_learned(self._messages[k]) or (after and self._texts[int(after[3])][2] == k):
                continue
            if says_more(self._messages[k]):
                prompt, end_of_turn = self._borders
                before = prompt or self._render(self._shown[:k], False)[0]
                start = text.rfind(prompt, *first[k]) if prompt else 0 if text.startswith(before) else -1
                stop = text.find(end_of_turn, begin, end) if end_of_turn else -1
                if -1 in (start, stop):
                    seen = f"the chat template does not show where message {k + 1} begins and ends"
                    raise UsageError(seen, "the prompt of an answer before it", "use a template with generation marks")
                spans.append((start + len(before), stop + len(end_of_turn)))
            else:
                spans.append((begin, begin + self._first_special(text[begin:end])))
        return spans

    @functools.cached_property
    def _borders(self) -> tuple[str, str]:
        """What the template writes before an answer, if it does so when asked, and the special token behind one."""
        talk = [{"role": "user", "content": self._secret}, {"role": "assistant", "content": self._secret}]
        asked, prompted, said = (
            self._render(talk[:n], n == 1 and g)[0] for n, g in ((1, False), (1, True), (2, False))
        )
        after = said[said.rfind(self._secret) + len(self._secret) :]
        return prompted[len(asked) :] if prompted.startswith(asked) else "", after[: self._first_special(after)]

    def _first_special(self, piece: str) -> int:
        """Return where the first special token in a piece ends; 0: there is none."""
        ends = [piece.find(token) + len(token) for token in self._tokenizer.all_special_tokens if token in piece]
        return min(ends, default=0)


def _cut(piece: str, position: int, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Cut a piece of the rendered text at the ends of `spans`, which the assistant says."""
    borders = {0, len(piece)} | {b - position for span in spans for b in span if 0 < b - position < len(piece)}
    parts = []
    for begin, end in itertools.pairwise(sorted(borders)):
        parts.append((piece[begin:end], any(a <= position + begin < b for a, b in spans)))
    return parts
