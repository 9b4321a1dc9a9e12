"""Convert conversations of the common formats to the messages that Transformers' chat templates take.

Roles are `system` (or developer), `user` (human), `assistant` (gpt, model) and `tool` (function, observation). A message has
its `content` as text and optionally `reasoning_content`, `tool_calls`, `name`, `tool_call_id`, and `weight: 0` on an answer
that is not learned. A list or an object may be written as a string of JSON or Python. A field with a meaning that a message
cannot represent raises `BrokenConversation` naming it, so that nothing is lost silently. Empty fields are ignored.
"""

import ast
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from tinygpt_hf.errors import UsageError

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "assistant": "assistant", "function_call": "assistant", "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip
# The roles that may follow each role, the usual one first.
DUE = {
    None: ("user", "system"), "system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"),
    "tool": ("assistant", "tool", "user"),
}  # fmt: skip
# Fields by the names of OpenAI, Anthropic, ShareGPT, LLaMA-Factory and ms-swift.
TOOLS, CALLS = ("tools", "functions"), ("tool_calls", "function_call")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
TEXT_BLOCKS, PICTURES = ("text", "input_text", "output_text"), ("image", "image_url", "input_image")
# Fields that a message cannot represent.
UNREAD = (*TOOLS, "documents", "refusal", "train_detail", "mask", *MEDIA)
# Fields that tell what is learned: they select answers; on other messages they may only state the default.
MARKS = ("weight", "train", "training", "loss", "loss_weight")
MARKED = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
EMPTY = ("", "[]", "{}", "null", "none", "nan")  # empty values as strings, in text tables
LONGEST_LITERAL = 2**24  # characters; Python's parser needs a hundred times that memory
RESULT_BEGINS, RESULT_ENDS = "<tool_response>\n", "\n</tool_response>"  # around tool results in Hermes' data


class BrokenRow(UsageError):
    """An error for a row without text; prepare-corpus drops the row and counts it under `rule`."""

    rule = "no_text"


class BrokenConversation(BrokenRow):
    """An error for a row whose conversation is invalid or has fields that cannot be represented."""

    rule = "conversation"


def check_messages(messages, where: str) -> None:
    """Raise BrokenConversation unless user and assistant alternate, after an optional system message; tools may be called."""
    if fault := _message_fault(messages):
        raise broken_conversation(f"{where}: {fault}")


def _message_fault(messages) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "is not a list of messages"
    before = None
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return f"message {number} has no text under `content`"
        role, due = message.get("role"), DUE[before]
        if role not in due:
            return f"message {number} has the role {role!r:.60} where {due[0]!r} is due"
        if role in ("user", "assistant") and not message["content"].strip() and "tool_calls" not in message:
            return f"message {number} is empty"
        before = role
    return None


def message_texts(message: dict) -> list[str]:
    """List the texts of a message: its content, then its other fields, as JSON if they are not strings."""
    more = (value for name, value in message.items() if name not in ("role", "content", "weight", "tool_call_id"))
    return [message["content"], *(value if isinstance(value, str) else as_json(value) for value in more)]


def document_texts(document: dict) -> list[str]:
    """List the texts of a document: its text, or those of its messages and the tools beside them."""
    if "text" in document:
        return [document["text"]]
    tools = [as_json(document["tools"])] if "tools" in document else []
    return [text for message in document["messages"] for text in message_texts(message)] + tools


def read_turns(turns: list, origin: str) -> list[dict]:
    """Convert a list of turns to messages: OpenAI's, Anthropic's with content blocks, or ShareGPT's."""
    messages: list[dict] = []
    for number, turn in enumerate(turns, 1):
        where = f"{origin}: message {number}"
        if not isinstance(turn, dict):
            raise broken_conversation(f"{where} has no text under `content`")
        speaker = turn.get("role", turn.get("from"))
        name = "value" if "from" in turn and "role" not in turn else "content"
        message = {
            "role": SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker,
            "content": turn.get(name),
        }
        results: list[dict] = []
        if speaker == "function_call":
            message |= {"tool_calls": _calls(message["content"], where), "content": ""}
        if len(turn) > 2 or not isinstance(message["content"], str) or message["role"] == "tool":
            _read_fields(turn, message, where)
            results = _read_content(message, where, name)
        if message["content"] is None:
            if not results and "tool_calls" not in message:
                raise broken_conversation(f"{where} has no text under `{name}`")
            message["content"] = ""
        before = messages[-1] if messages else {}
        if speaker == "function_call" and before.get("role") == "assistant":
            # in ShareGPT each call is a separate turn
            more = {n: part for n, part in message.items() if n not in ("role", "content", "tool_calls")}
            if more != {n: before[n] for n in ("weight",) if n in before}:
                raise lost_fields(where, [*more, "weight"])
            before["tool_calls"] = before.get("tool_calls", []) + message["tool_calls"]
            continue
        messages += results
        if message["content"] or not results:
            messages.append(message)
    _order_results(messages)
    return messages


def _read_fields(turn: dict, message: dict, where: str) -> None:
    """Read the other fields of a turn into its message; raises for fields that cannot be represented."""
    is_answer = message["role"] == "assistant"
    lost = [name for name in UNREAD if has_meaning(turn.get(name))]
    for name in THOUGHTS:
        if has_meaning(thought := turn.get(name)):
            known = message.setdefault("reasoning_content", thought)
            if not is_answer or known != thought or not isinstance(thought, str):
                lost.append(name)
    for name in CALLS:
        if has_meaning(turn.get(name)):
            if is_answer and "tool_calls" not in message:
                message["tool_calls"] = _calls(turn[name], where)
            else:
                lost.append(name)
    for name in ("name", "tool_call_id"):
        if has_meaning(turn.get(name)):
            message[name] = str(turn[name])
    marks = {n: MARKED.get(str(turn[n]).lower()) for n in MARKS if turn.get(n) is False or has_meaning(turn.get(n))}
    if not is_answer:  # OpenAI weights only answers
        lost += [name for name, value in marks.items() if value is None or value and "weight" not in name]
    elif marks and (None in marks.values() or len(set(marks.values())) > 1):
        lost += marks
    elif False in marks.values():
        message["weight"] = 0
    if lost:
        raise lost_fields(where, lost)


def _read_content(message: dict, where: str, name: str = "content") -> list[dict]:
    """Convert a message's content blocks to text and fields; returns tool results among them as messages."""
    value, results, texts = message["content"], [], []
    if message["role"] == "tool" and value is not None:
        blocks = value if isinstance(value, list) else [value]
        kinds = [block.get("type") if isinstance(block, dict) else None for block in blocks]
        if not isinstance(value, str) and not all(kind in (*TEXT_BLOCKS, *PICTURES) for kind in kinds):
            value = as_json(value)  # a tool result, not content blocks
        if isinstance(value, str):
            message["content"] = value.removeprefix(RESULT_BEGINS).removesuffix(RESULT_ENDS)
    if value is None or isinstance(value, str):
        return results
    if not isinstance(value, list) or not all(map(_is_block, value)):
        raise broken_conversation(f"{where} has no text under `{name}`")
    for block in value:
        kind = "text" if isinstance(block, str) else str(block.get("type") or "text")
        content = block if isinstance(block, str) else block.get(kind, block.get("text", block.get("value")))
        is_answer = message["role"] == "assistant"
        if kind in TEXT_BLOCKS and isinstance(content, str):
            texts.append(content)
        elif kind in THOUGHTS and is_answer and isinstance(content, str):
            message["reasoning_content"] = message.get("reasoning_content", "") + content
        elif kind in ("tool_use", "tool_call") and is_answer:
            calls = _calls(block if kind == "tool_use" else content, where)
            message["tool_calls"] = message.get("tool_calls", []) + calls
        elif kind == "tool_result" and message["role"] == "user":
            result = {"role": "tool", "content": block.get("content") or ""}
            result["tool_call_id"] = str(block.get("tool_use_id"))
            _read_content(result, where)
            results.append(result)
        else:
            raise lost_fields(where, [kind[:60]])
    message["content"] = "".join(texts) if texts else None
    return results


def _is_block(value) -> bool:
    return isinstance(value, str) or isinstance(value, dict) and ("type" in value or "text" in value)


def _calls(value, where: str) -> list[dict]:
    """Convert tool calls to OpenAI's form, with the arguments as an object."""
    calls = []
    for call, function in _functions(value):
        if function is None:
            raise broken_conversation(f"{where} has a call of a tool without a name", "tool_calls")
        given = next((function[name] for name in ("arguments", "parameters", "input") if name in function), None)
        given = parse_string(given) if isinstance(given, str) and given.strip() else given or {}
        if not isinstance(given, dict):
            raise broken_conversation(
                f"{where} calls `{function['name'][:60]}` with arguments that are not an object", "tool_calls"
            )
        made = {"type": "function", "function": {"name": function["name"], "arguments": given}}
        calls.append(made | ({"id": str(call["id"])} if has_meaning(call.get("id")) else {}))
    return calls


def _functions(value) -> Iterator[tuple[Any, dict | None]]:
    """Yield (entry, its function) for each tool or tool call; the function is None if it has no name."""
    value = parse_string(value) if isinstance(value, str) else value
    for entry in value if isinstance(value, list) else [value]:
        entry = parse_string(entry) if isinstance(entry, str) else entry
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        is_named = isinstance(function, dict) and isinstance(function.get("name"), str)
        yield entry, function if is_named else None


def _order_results(messages: list[dict]) -> None:
    """Sort tool results by the order of their calls if all have ids, because templates rely on the order."""
    for begin, message in enumerate(messages):
        ids = [call.get("id") for call in message.get("tool_calls", ())]
        run = list(itertools.takewhile(lambda result: result["role"] == "tool", messages[begin + 1 :]))
        answered = sorted(str(each.get("tool_call_id")) for each in run)
        if len(set(ids)) == len(ids) > 1 and sorted(map(str, ids)) == answered:
            run.sort(key=lambda result: ids.index(result.get("tool_call_id")))
            messages[begin + 1 : begin + 1 + len(run)] = run


def read_tools(value, name: str, origin: str) -> list[dict]:
    """Convert tools to the JSON schemas that chat templates take."""
    tools = []
    for tool, function in _functions(value):
        if function is None:
            raise broken_conversation(f"{origin} has `{name}` that are not a list of JSON schemas with names", name)
        if function is tool:  # the form of OpenAI's `functions`, Anthropic and LLaMA-Factory
            renamed = {"input_schema": "parameters"}
            function = {renamed.get(key, key): part for key, part in tool.items() if key != "type"}
        tools.append({"type": "function", "function": function})
    return tools


def parse_string(text: str):
    """Parse a string as JSON or as a Python literal, also if quoted twice; returns None if it is neither."""
    for read in (json.loads, _literal):
        try:
            value = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return parse_string(value) if isinstance(value, str) else value
    return None


def _literal(text: str):
    if len(text) > LONGEST_LITERAL:
        raise ValueError("too long")
    text = re.sub(r"\}\s*\n\s*\{", "}, {", text.strip())  # NumPy prints lists of dicts without commas
    return ast.literal_eval(text.removeprefix("array(").removesuffix(", dtype=object)"))


def has_meaning(value) -> bool:
    """Check that a value is not empty, and that not all of its parts are empty."""
    if isinstance(value, str):
        return value.strip().lower() not in EMPTY
    if isinstance(value, (list, dict)):
        try:
            return any(map(has_meaning, value.values() if isinstance(value, dict) else value))
        except RecursionError:
            return True
    if isinstance(value, float):
        return not math.isnan(value)  # NaN is a missing cell
    return value is not None and value is not False


def as_json(value) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def broken_conversation(problem: str, field: str | None = None) -> BrokenConversation:
    example = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}'
    error = BrokenConversation(problem, example, "fix the line or remove it")
    error.rule = f"field {field}" if field else error.rule
    return error


def lost_fields(where: str, names: list[str]) -> UsageError:
    names = list(dict.fromkeys(names))
    error = BrokenConversation(
        f"{where} has {', '.join(f'`{name}`' for name in names)}",
        "fields that docs/data.md lists as read: the others would be lost",
        "remove the field or the row; prepare-corpus drops and counts such rows",
    )
    error.rule = f"field {names[0]}"
    return error
