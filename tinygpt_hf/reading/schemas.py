"""A row of a table -> its text or its conversation, recognised by the columns it has.

| columns                                          | read as                                               |
|---|---|
| messages: [{role, content}, ...]                 | that conversation                                     |
| conversations: [{from, value}, ...]              | ShareGPT: human is user, gpt is assistant, and system |
| prompt, completion: texts, or lists of messages  | a question and its answer                             |
| instruction, output, and input where it has one  | a question (the input below it) and its answer        |
| text, else content                               | that text                                             |

The first that is complete wins; a column that is null is not there. `--text_column` names one column and leaves no choice.
"""

from tinygpt_hf.errors import UsageError
from tinygpt_hf.tokenizing.chat_template import check_messages

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
CONVERSATIONS = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"))
SHAPES = (*CONVERSATIONS, ("text",), ("content",))
COLUMNS = tuple(dict.fromkeys([*(name for names in SHAPES for name in names), "input"]))  # all that may be read


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
        raise kind(f"{origin} holds nothing under {empty}", "text was wanted", "name another --text_column")
    if names is None:
        known = ", ".join(" with ".join(names) for names in SHAPES)
        wanted = f"the column {text_column!r}" if text_column else f"one of {known}"
        raise UsageError(
            f"{origin} has the columns {', '.join(map(str, row))[:300]}",
            f"{wanted} was wanted",
            "name one with --text_column",
        )
    if len(names) == 1 and isinstance(row[names[0]], str):
        return row[names[0]]
    if len(names) == 1 and names not in CONVERSATIONS and not isinstance(row[names[0]], list):
        raise _no_text(row[names[0]], names[0], origin)
    try:
        return _messages(row, names, origin)
    except UsageError as error:
        raise BrokenConversation(error.seen, error.wanted, error.what_to_do) from None


def _messages(row: dict, names: tuple[str, ...], origin: str) -> list[dict]:
    if len(names) == 1:
        if not isinstance(row[names[0]], list):
            raise _no_text(row[names[0]], names[0], origin)
        messages = _turns(row[names[0]], origin)
    else:
        question, answer = names
        messages = [*_said(row[question], "user", question, origin), *_said(row[answer], "assistant", answer, origin)]
        extra = row.get("input") if question == "instruction" else None
        if extra is not None and not isinstance(extra, str):
            raise _no_text(extra, "input", origin)
        if extra and extra.strip() and len(messages) == 2:
            messages[0]["content"] += f"\n\n{extra}"
    check_messages(messages, origin)
    return messages


def _no_text(value, name: str, origin: str) -> UsageError:
    return UsageError(
        f"{origin} holds a {type(value).__name__} under {name}", "text was wanted", "name another --text_column"
    )


def _said(value, role: str, name: str, origin: str) -> list[dict]:
    if isinstance(value, list):
        return _turns(value, origin)
    if not isinstance(value, str):
        raise _no_text(value, name, origin)
    if not value.strip():
        raise UsageError(f"{origin}: `{name}` is empty", "no turn may be empty", "fill the row or remove it")
    return [{"role": role, "content": value}]


def _turns(value: list, origin: str) -> list[dict]:
    """ShareGPT's turns as messages; messages as they are."""
    if not all(isinstance(turn, dict) and "from" in turn and "role" not in turn for turn in value):
        return value
    for number, turn in enumerate(value, 1):
        if not isinstance(turn.get("value"), str):
            raise UsageError(
                f"{origin}: message {number} has no text under `value`", "text was wanted", "mend or remove it"
            )
    speaker = lambda turn: SPEAKERS.get(turn["from"], turn["from"]) if isinstance(turn["from"], str) else turn["from"]  # noqa: E731
    return [{"role": speaker(turn), "content": turn["value"]} for turn in value]
