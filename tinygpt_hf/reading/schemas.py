"""A row of a table -> its text or its conversation, recognised by the columns it has.

| columns                                          | read as                                               |
|---|---|
| messages: [{role, content}, ...]                 | that conversation                                     |
| conversations: [{from, value}, ...]              | ShareGPT: human is user, gpt is assistant, and system |
| prompt, completion: texts, or lists of messages  | a question and its answer                             |
| instruction, output, and input where it has one  | a question (the input below it) and its answer        |
| text, else content                               | that text                                             |

The first that is complete wins; a column that is null is not there. `--text_column` names one column and leaves no choice.

What stands beside the turns or in one of them, has a meaning and is read by nobody here (a `system` column, `tool_calls`, a
`weight` of 0) makes the conversation a `BrokenConversation` that names the field: it is refused, or dropped and counted, but
not lost. So does a conversation that is written down as a string. An empty field means nothing and passes.
"""

import math
import re

from tinygpt_hf.errors import UsageError

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
CONVERSATIONS = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"))
SHAPES = (*CONVERSATIONS, ("text",), ("content",))
COLUMNS = tuple(dict.fromkeys([*(name for names in SHAPES for name in names), "input"]))  # all that may be read

# What has a meaning and would be lost, by the names of OpenAI, Anthropic, ShareGPT, Alpaca, TRL, Axolotl and LLaMA-Factory.
TOOLS = ("tools", "functions", "tool_calls", "function_call")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
BESIDE_TURNS = ("system", "system_prompt", "history", *TOOLS, *THOUGHTS, "documents", "chat_template_kwargs", *MEDIA)
IN_TURNS = frozenset((*TOOLS, "tool_call_id", *THOUGHTS, "name", "train_detail", *MEDIA))
# Is it to be learnt? Lost where the answer differs from what is done.
MARKS = frozenset(("weight", "train", "training", "loss"))
ROW_MARKS = ("weight", "train", "kto_tag", "label")  # the last says so of a prompt and its completion only
MEANINGFUL = (*BESIDE_TURNS, *ROW_MARKS)  # the columns to be read beside a conversation
NOTHING = ("", "[]", "{}", "null", "none", "nan")  # in a table of text
# JSON or Python's way of writing lists, perhaps quoted twice: any, and one of turns
WRITTEN = re.compile(r"""[\s"']*(array\()?[\[{][\s\[{]*\\?["']""")
WRITTEN_TURNS = re.compile(r"""[\s"']*(array\()?\[\s*\{\s*\\?["'](role|content|from|value)\\?["']\s*:""")


class BrokenConversation(UsageError):
    """A row with the columns of a conversation that holds none: turns out of order, an empty one, no text."""


def row_content(row: dict, text_column: str | None, origin: str) -> str | list[dict]:
    """The text or the checked messages of a row; what is neither is refused with `origin`.

    A row that has the columns of a conversation and holds none is refused as a `BrokenConversation`.
    """
    shapes = ((text_column,),) if text_column else SHAPES
    present = [names for names in shapes if all(name in row for name in names)]
    names = next((names for names in present if all(row[name] is not None for name in names)), None)
    if names is None and present:
        empty = next(name for name in present[0] if row[name] is None)
        kind = BrokenConversation if present[0] in CONVERSATIONS else UsageError
        raise kind(f"{origin} holds nothing under {empty}", "text", "name another --text_column")
    if names is None:
        known = ", ".join(" with ".join(names) for names in SHAPES)
        wanted = f"the column {text_column!r}" if text_column else f"one of {known}"
        raise UsageError(
            f"{origin} has the columns {', '.join(map(str, row))[:300]}",
            wanted,
            "name one with --text_column",
        )
    if len(names) == 1 and isinstance(row[names[0]], str):
        _refuse_written(row[names[0]], names[0], origin, chosen=text_column is not None)
        return row[names[0]]
    if len(names) == 1 and names not in CONVERSATIONS and not isinstance(row[names[0]], list):
        raise _no_text(row[names[0]], names[0], origin)
    try:
        return _messages(row, names, origin)
    except UsageError as error:
        raise BrokenConversation(error.problem, error.expected, error.action) from None


def check_messages(messages, where: str) -> None:
    """Refuse what is no conversation: roles user/assistant in turn after an optional system message, contents text."""
    fault = None
    if not isinstance(messages, list) or not messages:
        fault = "is no list of messages"
    else:
        expected = "user"
        for number, message in enumerate(messages, 1):
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                fault = f"message {number} has no text under `content`"
            elif message.get("role") == "system" and number == 1:
                continue
            elif message.get("role") != expected:
                fault = f"message {number} has the role {message.get('role')!r:.60} where {expected!r} is due"
            elif not message["content"].strip():
                fault = f"message {number} is empty"
            if fault:
                break
            expected = "assistant" if expected == "user" else "user"
    if fault:
        raise UsageError(
            f"{where}: {fault}",
            '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}',
            "fix the line or remove it",
        )


def _messages(row: dict, names: tuple[str, ...], origin: str) -> list[dict]:
    lost = [name for name in BESIDE_TURNS if name not in names and _means_something(row.get(name))]
    if _means_something(weight := row.get("weight")) and str(weight) not in ("1", "1.0"):
        lost.append("weight")
    marks = ROW_MARKS if names == ("prompt", "completion") else ROW_MARKS[:-1]
    lost += [name for name in marks if str(row.get(name)).lower() == "false"]
    if lost:
        raise _lost(origin, "the row", lost)
    if len(names) == 1:
        if not isinstance(row[names[0]], list):
            raise _no_text(row[names[0]], names[0], origin)
        messages = _turns(row[names[0]], origin)
    else:
        question, answer = names
        if question == "prompt" and isinstance(row[question], str) and WRITTEN_TURNS.match(row[question]):
            raise _written(question, origin)
        messages = [*_said(row[question], "user", question, origin), *_said(row[answer], "assistant", answer, origin)]
        extra = row.get("input") if question == "instruction" else None
        if extra is not None and not isinstance(extra, str):
            raise _no_text(extra, "input", origin)
        if extra and extra.strip():
            if isinstance(row[question], list):
                raise _lost(origin, "the row", ["input"])
            messages[0]["content"] += f"\n\n{extra}"
    check_messages(messages, origin)
    return messages


def _refuse_written(text: str, name: str, origin: str, chosen: bool) -> None:
    """Refuse a string in a column of conversations; where a column was `chosen` by name, only what looks like turns."""
    if (name,) in CONVERSATIONS:
        refused = not chosen or WRITTEN.match(text)
    else:
        refused = chosen and (name,) not in SHAPES and WRITTEN_TURNS.match(text)
    if refused:
        raise _written(name, origin)


def _written(name: str, origin: str) -> UsageError:
    return BrokenConversation(
        f"{origin} holds a string under {name}",
        "a conversation, as a list of messages",
        "store it as a list, in .jsonl or .parquet (plain text: name its column with --text_column)",
    )


def _lost(origin: str, where: str, names: list[str]) -> UsageError:
    fields = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
    return UsageError(
        f"{origin}: {where} has {fields}",
        "only role and content in each turn: nothing else would be read",
        "write it into the turns (a system prompt is the first message) or remove it; prepare-corpus drops and counts such rows",
    )


def _means_something(value) -> bool:
    """Would anything be lost with this value? Not with an empty one, nor with one whose parts are all empty."""
    if isinstance(value, str):
        return value.strip().lower() not in NOTHING
    if isinstance(value, (list, dict)):
        try:
            return any(map(_means_something, value.values() if isinstance(value, dict) else value))
        except RecursionError:
            return True
    if isinstance(value, float):
        return not math.isnan(value)  # a table's word for nothing
    return value is not None and value is not False


def _no_text(value, name: str, origin: str) -> UsageError:
    return UsageError(f"{origin} holds a {type(value).__name__} under {name}", "text", "name another --text_column")


def _said(value, role: str, name: str, origin: str) -> list[dict]:
    if isinstance(value, list):
        return _turns(value, origin)
    if not isinstance(value, str):
        raise _no_text(value, name, origin)
    if not value.strip():
        raise UsageError(f"{origin}: `{name}` is empty", "text in every turn", "fill the row or remove it")
    return [{"role": role, "content": value}]


def _turns(value: list, origin: str) -> list[dict]:
    """Turn ShareGPT's turns into messages; messages stay as they are. A turn of which more would be lost is refused."""
    for number, turn in enumerate(value, 1):
        if isinstance(turn, dict) and len(turn) > 2:
            lost = [name for name in turn if name in IN_TURNS and _means_something(turn[name])]
            lost += [name for name in turn if name in MARKS and not _is_kept(name, turn)]
            if lost:
                raise _lost(origin, f"message {number}", lost)
    if not all(isinstance(turn, dict) and "from" in turn and "role" not in turn for turn in value):
        return value
    for number, turn in enumerate(value, 1):
        if not isinstance(turn.get("value"), str):
            raise UsageError(f"{origin}: message {number} has no text under `value`", "text", "fix or remove it")
    return [{"role": _speaker(turn), "content": turn["value"]} for turn in value]


def _is_kept(mark: str, turn: dict) -> bool:
    """Does the mark say what is done anyway? Answers are learnt with the weight 1, all else is not learnt."""
    value = turn[mark]
    if value is None:
        return True
    if _speaker(turn) == "assistant" or mark == "weight" and value == 1:
        return value == 1
    return value == 0


def _speaker(turn: dict):
    """The role of a turn, in messages or by ShareGPT's name."""
    speaker = turn.get("role", turn.get("from"))
    return SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
