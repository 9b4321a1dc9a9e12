"""Render a conversation with any chat template, and find which parts of the result come from which message.

    Rendering(tokenizer, template, messages, tools).pieces(add_generation_prompt=False)

Each text of a message is replaced by a unique mark before rendering. The marks in the result show where the template wrote the
text, how often it was quoted as JSON, and whether it was written at all. So no text becomes a control token or is lost.
"""

import functools
import itertools
import re
import secrets

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.turns import THOUGHTS, as_json
from tinygpt_hf.tokenizing.template_sandbox import invalid_template, render

# A mark, also inside JSON strings: each quoting doubles the backslashes of its escaped ends.
MARK = re.compile(r"(?:\x02|(\\+)u0002)([0-9a-f]{16}):([0-9]{1,9})(?:\x03|\\+u0003)")
MAX_COPIES = 8  # how often a template may write a text on average; some repeat the first question


class NoPlaceError(UsageError):
    """A field of a conversation that its chat template does not write. `rule`: its name in the counts of prepare-corpus."""

    def __init__(self, field: str, number: int | None):
        where = "" if number is None else f" of message {number + 1}"
        super().__init__(
            f"the chat template has no place for `{field}`{where}",
            "a template that writes this field",
            "remove the field or the row (prepare-corpus drops and counts such rows), or use a tokenizer whose template does",
        )
        self.rule = f"field {field}"


def answers_tool_call(messages: list[dict], k: int) -> bool:
    """Return True if message k is the result of a tool call before it, whose name and id it repeats."""
    calls = next((m.get("tool_calls") for m in reversed(messages[:k]) if m["role"] == "assistant"), None)
    return messages[k]["role"] == "tool" and bool(calls)


def has_extra_fields(message: dict) -> bool:
    """Return True for a tool message, or one with fields other than role, content and weight."""
    return message["role"] == "tool" or bool(message.keys() - {"role", "content", "weight"})


def is_trained_on(message: dict) -> bool:
    """Return True for an assistant message, unless its weight is 0."""
    return message["role"] == "assistant" and message.get("weight") != 0


def split_control_tokens(tokenizer, content: str) -> list[str]:
    """Split a content inside added tokens such as `<tool_call>` that are not marked as special.

    The tokenizer would otherwise encode them as control tokens. Added words such as `naïve` are not split.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.special]
    tokens = [re.escape(text) for text in added if re.fullmatch(r"<.+>|\[.+\]", text, re.DOTALL)]
    cuts = [match.start() + 1 for match in re.finditer(f"(?={'|'.join(tokens)})", content)] if tokens else []
    return [content[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(content)])]


class Rendering:
    """A conversation whose texts are replaced by marks, and the template that renders it."""

    def __init__(self, tokenizer, template: str, messages: list[dict], tools: list[dict] | None):
        self._tokenizer, self._template, self._messages = tokenizer, template, messages
        self._has_generation = re.search(r"\{%[-+]?\s*generation\b", template) is not None
        self._secret = secrets.token_hex(8)  # unpredictable, so no message can contain a mark
        # by mark: (text, field or "" if the template may omit it, message number)
        self._texts: list[tuple[str, str, int | None]] = []
        added = [re.escape(token.content) for token in tokenizer.added_tokens_decoder.values()]
        self._control = re.compile("|".join(added) or "(?!)")
        self._marked_messages = [self._mark_message(message, k) for k, message in enumerate(messages)]
        self._tools = [self._mark_tool(tool, "tools", None) for tool in tools or ()] or None

    def pieces(self, add_generation_prompt: bool) -> list[tuple[str, bool, bool]]:
        """Render and split into (text, is_target, typed). `typed` text comes from a message, other text from the template."""
        text, spans = self._render(self._marked_messages, add_generation_prompt)
        marks = [m for m in MARK.finditer(text) if m[2] == self._secret and int(m[3]) < len(self._texts)]
        if max(text.count(self._secret), len(spans)) > MAX_COPIES * max(len(self._texts), len(self._messages)):
            raise invalid_template(self._tokenizer.name_or_path, "repeats the messages without end")
        self._check_marks(text, marks)
        spans = self._trained_spans(spans) if self._has_generation else self._find_answers(text, marks)
        pieces: list[tuple[str, bool, bool]] = []
        position = 0
        for mark in [*marks, None]:
            piece = text[position : mark.start() if mark else len(text)]
            pieces += [(part, is_target, False) for part, is_target in _split(piece, position, spans)]
            if mark:
                position = mark.end()
                pieces += self._message_pieces(mark)
        return [piece for piece in pieces if piece[0]]

    def _check_marks(self, text: str, marks: list[re.Match]) -> None:
        """Raise UsageError if the template changed a mark, or NoPlaceError if it omitted one."""
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

    def _mark_message(self, message: dict, k: int) -> dict:
        marked = {name: value for name, value in message.items() if name != "weight"}
        marked["content"] = self._mark(message["content"], "content", k)
        if "reasoning_content" in message:
            marked |= dict.fromkeys(THOUGHTS, self._mark(message["reasoning_content"], "reasoning_content", k))
        if "tool_calls" in message:
            marked["tool_calls"] = [self._mark_tool(call, "tool_calls", k) for call in message["tool_calls"]]
        for name in ("name", "tool_call_id"):
            if name in message:
                is_text = name == "name" and not answers_tool_call(self._messages, k)
                marked[name] = (
                    self._mark(message[name], name, k) if is_text else self._mark_control_tokens(message[name], k)
                )
        return marked

    def _mark_tool(self, tool: dict, field: str, k: int | None) -> dict:
        """Replace the name in a tool or call by a mark. Other values stay, since templates read them, except control tokens."""
        named = {
            name: self._mark(value, field, k) if name == "name" else self._mark_control_tokens(value, k)
            for name, value in tool["function"].items()
        }
        return {
            name: named if name == "function" else self._mark_control_tokens(value, k) for name, value in tool.items()
        }

    def _mark_control_tokens(self, value, k: int | None):
        """Replace texts in a value that contain a control token by marks, which the template may omit."""
        if isinstance(value, str):
            return self._mark(value, "", k) if self._control.search(value) else value
        if isinstance(value, list):
            return [self._mark_control_tokens(part, k) for part in value]
        if isinstance(value, dict):
            return {
                self._mark_control_tokens(name, k): self._mark_control_tokens(part, k) for name, part in value.items()
            }
        return value

    def _message_pieces(self, mark: re.Match) -> list[tuple[str, bool, bool]]:
        text, _, k = self._texts[int(mark[3])]
        for _ in range(len(mark[1] or "").bit_length()):
            text = as_json(text)[1:-1]
        message = {"role": "system"} if k is None else self._messages[k]
        parts = [text] if message["role"] == "assistant" else split_control_tokens(self._tokenizer, text)
        return [(part, is_trained_on(message), True) for part in parts]

    def _trained_spans(self, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the spans between generation marks, without those of answers with weight 0."""
        answers = [is_trained_on(message) for message in self._messages if message["role"] == "assistant"]
        if all(answers):
            return spans
        if len(spans) != len(answers):
            problem = f"the chat template marks {len(spans)} parts of a conversation with {len(answers)} answers"
            raise UsageError(problem, "one for each, if some have a weight of 0", "remove those rows")
        return [span for span, is_target in zip(spans, answers, strict=True) if is_target]

    def _find_answers(self, text: str, marks: list[re.Match]) -> list[tuple[int, int]]:
        """Return the spans of the assistant's answers for a template without generation marks.

        An answer of plain text ends with the first special token after it. One with reasoning or tool calls extends from the
        generation prompt to the special token that ends an answer.
        """
        spans: list[tuple[int, int]] = []
        # by message: the span of text before its first mark
        first: dict[int | None, tuple[int, int]] = {}
        begin = 0
        for mark, after in itertools.zip_longest(marks, marks[1:]):
            k = self._texts[int(mark[3])][2]
            first.setdefault(k, (begin, mark.start()))
            begin, end = mark.end(), after.start() if after else len(text)
            if k is None or not is_trained_on(self._messages[k]) or (after and self._texts[int(after[3])][2] == k):
                continue
            if has_extra_fields(self._messages[k]):
                prompt, end_of_turn = self._answer_borders
                before = prompt or self._render(self._marked_messages[:k], False)[0]
                if prompt:
                    start = text.rfind(prompt, *first[k])
                else:
                    start = 0 if text.startswith(before) else -1
                stop = text.find(end_of_turn, begin, end) if end_of_turn else -1
                if -1 in (start, stop):
                    problem = f"the chat template does not show where message {k + 1} begins and ends"
                    raise UsageError(problem, "a generation prompt before it", "use a template with generation marks")
                spans.append((start + len(before), stop + len(end_of_turn)))
            else:
                spans.append((begin, begin + self._first_special(text[begin:end])))
        return spans

    @functools.cached_property
    def _answer_borders(self) -> tuple[str, str]:
        """Return what the template writes before an answer ("" if it has no generation prompt) and after it, or ""."""
        talk = [{"role": "user", "content": self._secret}, {"role": "assistant", "content": self._secret}]
        question = self._render(talk[:1], False)[0]
        prompted = self._render(talk[:1], True)[0]
        answered = self._render(talk, False)[0]
        prompt = prompted[len(question) :] if prompted.startswith(question) else ""
        after = answered[answered.rfind(self._secret) + len(self._secret) :]
        return prompt, after[: self._first_special(after)]

    def _first_special(self, piece: str) -> int:
        """Return the end of the first special token in a text, or 0 if there is none."""
        ends = [piece.find(token) + len(token) for token in self._tokenizer.all_special_tokens if token in piece]
        return min(ends, default=0)


def _split(piece: str, position: int, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Split a piece of the rendered text, which begins at `position`, into (text, is inside one of `spans`)."""
    borders = {0, len(piece)} | {b - position for span in spans for b in span if 0 < b - position < len(piece)}
    parts = []
    for begin, end in itertools.pairwise(sorted(borders)):
        parts.append((piece[begin:end], any(a <= position + begin < b for a, b in spans)))
    return parts
