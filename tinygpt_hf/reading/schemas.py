"""Turn a row of a table into a text or a conversation, recognized by its columns.

| columns                                          | read as                                               |
|---|---|
| messages: [{role, content}, ...]                 | that conversation                                     |
| conversations: [{from, value}, ...]              | ShareGPT: human is user, gpt is assistant, and so on  |
| prompt, completion: texts, or lists of messages  | a question and its answer                             |
| instruction, output, and perhaps input, history  | a question (the input below it) and its answer        |
| text, else content                               | that text                                             |

The first complete shape is used; a null column counts as absent. `--text_column` names the one column to read.

Columns beside the turns become part of the conversation (turns.py). A column with a meaning that a conversation cannot
represent is an error that names it.
"""

import re

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.turns import (
    CALLS,
    MEDIA,
    THOUGHTS,
    TOOLS,
    BrokenConversation,
    BrokenRow,
    check_messages,
    has_meaning,
    lost_fields,
    parse_string,
    read_tools,
    read_turns,
)  # fmt: skip

CONVERSATIONS = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"))
SHAPES = (*CONVERSATIONS, ("text",), ("content",))
COLUMNS = tuple(dict.fromkeys([*(name for names in SHAPES for name in names), "input"]))  # all that may be read
SYSTEMS = ("system", "system_prompt")
# Columns that a conversation cannot represent, by the names of OpenAI, TRL, Axolotl and LLaMA-Factory
UNREAD = (*CALLS, *THOUGHTS, "documents", "chat_template_kwargs", "chosen", "rejected", *MEDIA)
ROW_MARKS = ("weight", "train", "kto_tag", "label")  # `label` counts only beside prompt and completion
# columns to read beside a conversation
MEANINGFUL = (*SYSTEMS, "history", *TOOLS, *UNREAD, *ROW_MARKS, "mask", "context")
# A list written as JSON or Python, perhaps quoted twice: any list, and a list of turns
LIST_LITERAL = re.compile(r"""[\s"']*(array\()?[\[{][\s\[{]*\\?["']""")
TURNS_LITERAL = re.compile(r"""[\s"']*(array\()?\[\s*\{\s*\\?["'](role|content|from|value)\\?["']\s*:""")


def row_content(row: dict, text_column: str | None, origin: str) -> dict:
    """Convert a row into a document with `text`, or with checked `messages` and optional `tools`.

    Raises `BrokenConversation` for a row that has the columns of a conversation but no valid one.
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
            if not _holds_turns(value, names[0], text_column is not None):
                return {"text": value}
            value = _parse_turns(value, names[0], origin)
        if not isinstance(value, list):
            raise _no_text(value, names[0], origin, BrokenConversation if names in CONVERSATIONS else UsageError)
        messages = read_turns(value, origin)
    else:
        messages = _exchange(row, *names, origin)
    document = _with_columns(row, names, messages, origin)
    check_messages(document["messages"], origin)
    return document


def _exchange(row: dict, question: str, answer: str, origin: str) -> list[dict]:
    """Build messages from two columns, each a text or a list of messages; `input` is appended to the instruction."""
    messages: list[dict] = []
    for name, role in ((question, "user"), (answer, "assistant")):
        value = row[name]
        if isinstance(value, str) and TURNS_LITERAL.match(value):
            value = _parse_turns(value, name, origin)
        if isinstance(value, list):
            messages += read_turns(value, origin)
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
        if messages[0]["role"] != "user" or isinstance(row[question], list):
            raise lost_fields(f"{origin}: the row", ["input"])
        messages[0]["content"] += f"\n\n{extra}"
    return messages


def _with_columns(row: dict, names: tuple[str, ...], messages: list[dict], origin: str) -> dict:
    """Add the other columns to a conversation: history, system prompt and tools; raises if one cannot be represented."""
    is_exchange, given = len(names) == 2, {n: row[n] for n in MEANINGFUL if n not in names and has_meaning(row.get(n))}
    lost = [name for name in UNREAD if name in given]
    if str(given.get("weight", 1)) not in ("1", "1.0"):
        lost.append("weight")
    lost += [n for n in ROW_MARKS[: None if names[0] == "prompt" else -1] if str(row.get(n)).lower() == "false"]
    if str(given.get("mask", "user")).lower() not in ("user", "human"):  # NeMo: the role that is not learned
        lost.append("mask")
    if is_exchange:
        more = ("context", "input") if names[0] == "prompt" else ("context",)
        lost += [name for name in more if has_meaning(row.get(name))]
    if "history" in given:
        pairs = parse_string(row["history"]) if isinstance(row["history"], str) else row["history"]
        if is_exchange and _is_history(pairs):
            roles = ("user", "assistant")
            history = [{"role": r, "content": text} for pair in pairs for r, text in zip(roles, pair, strict=True)]
            messages = history + messages
        else:
            lost.append("history")
    for name in SYSTEMS:
        if name in given:
            (system,) = read_turns([{"role": "system", "content": row[name]}], f"{origin}: `{name}`")
            if messages and messages[0].get("role") != "system":
                messages = [system, *messages]
            elif messages and messages[0]["content"].strip() != system["content"].strip():
                lost.append(name)
    tools = [name for name in TOOLS if name in given]
    if lost := lost + tools[1:]:
        raise lost_fields(f"{origin}: the row", lost)
    return {"messages": messages} | ({"tools": read_tools(row[tools[0]], tools[0], origin)} if tools else {})


def _is_history(value) -> bool:
    """Check for a list of (question, answer) pairs of strings."""
    return isinstance(value, list) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in value
    )


def _holds_turns(text: str, name: str, is_chosen: bool) -> bool:
    """Check whether a string should hold turns: in a column of conversations, or if a chosen column looks like it."""
    if (name,) in CONVERSATIONS:
        return not is_chosen or bool(LIST_LITERAL.match(text))
    return is_chosen and (name,) not in SHAPES and bool(TURNS_LITERAL.match(text))


def _parse_turns(text: str, name: str, origin: str) -> list:
    """Parse a string into a list of turns; raises BrokenConversation if it holds none."""
    value = parse_string(text) if LIST_LITERAL.match(text) else None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise BrokenConversation(
            f"{origin} holds a string under {name} that is not a conversation",
            "a list of messages, or one written as JSON or Python",
            "fix the row (plain text: name its column with --text_column)",
        )
    return value


def _no_text(value, name: str, origin: str, kind: type[UsageError] = BrokenConversation) -> UsageError:
    return kind(f"{origin} holds a {type(value).__name__} under {name}", "text", "name another --text_column")
