"""Turn a row of a table into its text or its conversation, recognized by the columns it has.

| columns                                          | read as                                               |
|---|---|
| messages: [{role, content}, ...]                 | that conversation                                     |
| conversations: [{from, value}, ...]              | ShareGPT: human is user, gpt is assistant, and system |
| prompt, completion: texts, or lists of messages  | a question and its answer                             |
| instruction, output, and perhaps input   | a question (the input below it) and its answer        |
| text, else content                               | that text                                             |

The first that is complete wins; a column that is null is not there. `--text_column` names one column and leaves no choice.

A field beside the turns or in one of them that has a meaning and is not read here (a `system` column, `tool_calls`, a `weight` of
0) makes the row a `BrokenConversation` that names the field: it is refused, or dropped and counted, but not lost. So does a
conversation stored as a string. An empty field means nothing and passes.
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
# Marks of what is trained on: lost if they differ from what is done, which is to train on answers.
MARKS = frozenset(("weight", "train", "training", "loss"))
ROW_MARKS = ("weight", "train", "kto_tag", "label")  # the last: of a prompt and its completion only
MEANINGFUL = (*BESIDE_TURNS, *ROW_MARKS)  # columns to read beside a conversation
EMPTY = ("", "[]", "{}", "null", "none", "nan")  # in a table of text
# A list as JSON or Python writes it, perhaps quoted twice: any, and one of turns
WRITTEN = re.compile(r"""[\s"']*(array\()?[\[{][\s\[{]*\\?["']""")
WRITTEN_TURNS = re.compile(r"""[\s"']*(array\()?\[\s*\{\s*\\?["'](role|content|from|value)\\?["']\s*:""")


class BrokenRow(UsageError):
    """Report a row that holds nothing where text is expected: prepare-corpus drops it under `rule`, and counts it."""

    rule = "no_text"


class BrokenConversation(BrokenRow):
    """Report a row with the columns of a conversation that holds none: turns out of order, an empty one, no text."""

    rule = "conversation"


def row_content(row: dict, text_column: str | None, origin: str) -> str | list[dict]:
    """Return the text or the checked messages of a row; raise with `origin` if it has neither.

    A row that has the columns of a conversation and holds none raises a `BrokenConversation`.
    """
    shapes = ((text_column,),) if text_column else SHAPES
    present = [names for names in shapes if all(name in row for name in names)]
    names = next((names for names in present if all(row[name] is not None for name in names)), None)
    if names is None and present:
        empty = next(name for name in present[0] if row[name] is None)
        kind = BrokenConversation if present[0] in CONVERSATIONS else BrokenRow
        action = "name another --text_column, or let prepare-corpus drop and count such rows"
        raise kind(f"{origin} holds nothing under {empty}", "text", action)
    if names is None:
        known = ", ".join(" with ".join(names) for names in SHAPES)
        raise UsageError(
            f"{origin} has the columns {', '.join(map(str, row))[:300]}",
            f"the column {text_column!r}" if text_column else f"one of {known}",
            "name one with --text_column",
        )
    if len(names) == 1:
        value = row[names[0]]
        if isinstance(value, str):
            _check_text(value, names[0], origin, is_chosen=text_column is not None)
            return value
        if not isinstance(value, list):
            raise _no_text(value, names[0], origin, BrokenConversation if names in CONVERSATIONS else UsageError)
    _check_columns(row, names, origin)
    messages = _turns(row[names[0]], origin) if len(names) == 1 else _exchange(row, *names, origin)
    check_messages(messages, origin)
    return messages


def check_messages(messages, where: str) -> None:
    """Refuse what is no conversation: roles user/assistant in turn after an optional system message, contents text."""
    if fault := _message_fault(messages):
        raise BrokenConversation(
            f"{where}: {fault}",
            '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}',
            "fix the line or remove it",
        )


def _message_fault(messages) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "is no list of messages"
    due = "user"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return f"message {number} has no text under `content`"
        if message.get("role") == "system" and number == 1:
            continue
        if message.get("role") != due:
            return f"message {number} has the role {message.get('role')!r:.60} where {due!r} is due"
        if not message["content"].strip():
            return f"message {number} is empty"
        due = "assistant" if due == "user" else "user"
    return None


def _check_text(text: str, name: str, origin: str, is_chosen: bool) -> None:
    """Refuse a string in a column of conversations; in a column chosen by name, only one that looks like turns."""
    if (name,) in CONVERSATIONS:
        refused = not is_chosen or WRITTEN.match(text)
    else:
        refused = is_chosen and (name,) not in SHAPES and WRITTEN_TURNS.match(text)
    if refused:
        raise _written(name, origin)


def _check_columns(row: dict, names: tuple[str, ...], origin: str) -> None:
    """Refuse a conversation with columns beside it that would be lost."""
    lost = [name for name in BESIDE_TURNS if name not in names and _has_meaning(row.get(name))]
    if _has_meaning(weight := row.get("weight")) and str(weight) not in ("1", "1.0"):
        lost.append("weight")
    marks = ROW_MARKS if names == ("prompt", "completion") else ROW_MARKS[:-1]
    lost += [name for name in marks if str(row.get(name)).lower() == "false"]
    if lost:
        raise _lost(origin, "the row", lost)


def _exchange(row: dict, question: str, answer: str, origin: str) -> list[dict]:
    """Make messages of two columns, each a text or a list of messages; an `input` goes below its instruction."""
    if question == "prompt" and isinstance(row[question], str) and WRITTEN_TURNS.match(row[question]):
        raise _written(question, origin)
    messages: list[dict] = []
    for name, role in ((question, "user"), (answer, "assistant")):
        value = row[name]
        if isinstance(value, list):
            messages += _turns(value, origin)
            continue
        if not isinstance(value, str):
            raise _no_text(value, name, origin)
        if not value.strip():
            raise BrokenConversation(f"{origin}: `{name}` is empty", "text in every turn", "fill the row or remove it")
        messages.append({"role": role, "content": value})
    extra = row.get("input") if question == "instruction" else None
    if extra is not None and not isinstance(extra, str):
        raise _no_text(extra, "input", origin)
    if extra and extra.strip():
        if isinstance(row[question], list):
            raise _lost(origin, "the row", ["input"])
        messages[0]["content"] += f"\n\n{extra}"
    return messages


def _turns(value: list, origin: str) -> list[dict]:
    """Turn ShareGPT's turns into messages; messages stay as they are. A turn of which more would be lost is refused."""
    for number, turn in enumerate(value, 1):
        if isinstance(turn, dict) and len(turn) > 2:
            lost = [name for name in turn if name in IN_TURNS and _has_meaning(turn[name])]
            lost += [name for name in turn if name in MARKS and not _is_redundant(name, turn)]
            if lost:
                raise _lost(origin, f"message {number}", lost)
    if not all(isinstance(turn, dict) and "from" in turn and "role" not in turn for turn in value):
        return value
    for number, turn in enumerate(value, 1):
        if not isinstance(turn.get("value"), str):
            raise BrokenConversation(
                f"{origin}: message {number} has no text under `value`", "text", "fix or remove it"
            )
    return [{"role": _speaker(turn), "content": turn["value"]} for turn in value]


def _has_meaning(value) -> bool:
    """Tell whether anything would be lost with this value: not if it is empty, or all of its parts are."""
    if isinstance(value, str):
        return value.strip().lower() not in EMPTY
    if isinstance(value, (list, dict)):
        try:
            return any(map(_has_meaning, value.values() if isinstance(value, dict) else value))
        except RecursionError:
            return True
    if isinstance(value, float):
        return not math.isnan(value)  # how a table says nothing
    return value is not None and value is not False


def _is_redundant(mark: str, turn: dict) -> bool:
    """Tell whether a mark says what is done anyway: answers are trained on with weight 1, the rest is not."""
    value = turn[mark]
    if value is None:
        return True
    if _speaker(turn) == "assistant" or mark == "weight" and value == 1:
        return value == 1
    return value == 0


def _speaker(turn: dict):
    """Return the role of a turn, by the name messages or ShareGPT give it."""
    speaker = turn.get("role", turn.get("from"))
    return SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker


def _written(name: str, origin: str) -> UsageError:
    return BrokenConversation(
        f"{origin} holds a string under {name}",
        "a conversation, as a list of messages",
        "store it as a list, in .jsonl or .parquet (plain text: name its column with --text_column)",
    )


def _lost(origin: str, where: str, names: list[str]) -> UsageError:
    fields = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
    return BrokenConversation(
        f"{origin}: {where} has {fields}",
        "only role and content in each turn: nothing else would be read",
        "write it into the turns (a system prompt is the first message) or remove it; prepare-corpus drops and counts such rows",
    )


def _no_text(value, name: str, origin: str, kind: type[UsageError] = BrokenConversation) -> UsageError:
    return kind(f"{origin} holds a {type(value).__name__} under {name}", "text", "name another --text_column")
