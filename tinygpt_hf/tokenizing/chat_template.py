"""Encode conversations as token ids with a mask of the tokens to train on.

Text in a message never becomes a control token. Only text written by the template is encoded with special tokens:

    <|im_start|>user\\n  Hi <|im_end|>  <|im_end|>\\n       the first <|im_end|> is text of the message: plain characters

The mask is 1 on the assistant's tokens and its end-of-turn token.
"""

import contextlib
import hashlib
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.turns import as_json
from tinygpt_hf.tokenizing.rendering import (
    NoPlaceError,
    Rendering,
    answers_tool_call,
    has_extra_fields,
    is_trained_on,
    split_control_tokens,
)
from tinygpt_hf.tokenizing.template_sandbox import RefusedError, render

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)
# Written before and after the schemas of tools: the same words as in Qwen's and Hermes' templates.
TOOLS_BEGIN = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_END = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call>"
    ' XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
# ChatML with Qwen's format of tools and reasoning. The text between generation marks is trained on. The lines of the file are
# joined without surrounding white space.
CHAT_TEMPLATE = "".join(map(str.strip, Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8").splitlines()))
# The sha256 of our template before it had tools and reasoning; it renders plain messages the same.
FIRST_TEMPLATE = "c1a9d45368e3e05c445d56e5b2bf33bb22c9dca06c2a12da92f3b32298c53dff"


def encode_chat(
    tokenizer, messages: list[dict], add_generation_prompt: bool = False, tools: list[dict] | None = None
) -> tuple[list[int], list[int]]:
    """Encode a conversation as (ids, mask), two lists of equal length. The mask is 1 on tokens to train on.

    The tokenizer must have a chat template. `messages` and `tools` are in the format of turns.py. A message with `weight` 0
    is not trained on. Raises NoPlaceError if the template does not write a part of a message.
    """
    pieces = chat_pieces(tokenizer, messages, add_generation_prompt, tools)
    ids: list[int] = []
    mask: list[int] = []
    for piece, is_target, typed in pieces:
        (new,) = encode_texts(tokenizer, [piece], typed)
        ids.extend(new)
        mask.extend([int(is_target)] * len(new))
    return ids, mask


def control_tokens(tokenizer) -> tuple[list[int], int | None]:
    """Return the ids of special tokens that the template writes around turns, and the one that ends an answer or None."""
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    ids, mask = encode_chat(tokenizer, talk)
    special = set(tokenizer.all_special_ids)
    last = [i for i, bit in zip(ids, mask, strict=True) if bit][-1]
    return sorted(special.intersection(ids)), last if last in special else None


def add_chat_format(tokenizer) -> list[int]:
    """Set our chat template and add the turn tokens that are missing; return the ids of the added tokens."""
    known = tokenizer.get_vocab()
    special = {"additional_special_tokens": [TURN_START, TURN_END]}
    tokenizer.add_special_tokens(special, replace_extra_special_tokens=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    return sorted(number for token, number in tokenizer.get_vocab().items() if token not in known)


def encode_texts(tokenizer, texts: list[str], typed: bool = True) -> list[list[int]]:
    """Encode texts without adding special tokens, truncating or padding, on all cores.

    `typed`: special tokens in the texts are encoded as plain characters.
    """
    core = tokenizer.backend_tokenizer
    core.no_truncation()  # an earlier call or the tokenizer's file may have set it
    core.no_padding()
    before, core.encode_special_tokens = core.encode_special_tokens, typed
    try:
        return [encoding.ids for encoding in core.encode_batch_fast(texts, add_special_tokens=False)]
    finally:
        core.encode_special_tokens = before


def chat_pieces(
    tokenizer, messages: list[dict], add_generation_prompt: bool = False, tools: list[dict] | None = None
) -> list[tuple[str, bool, bool]]:
    """Split a conversation into (text, is_target, typed). `typed` text comes from a message, other text from the template.

    Templates other than ours are rendered by rendering.py, within the limits of template_sandbox.py.
    """
    template = _template(tokenizer, tools)
    if template == CHAT_TEMPLATE or _is_ours(template) and not tools and not any(map(has_extra_fields, messages)):
        return _chatml_pieces(tokenizer, messages, add_generation_prompt, tools)
    return Rendering(tokenizer, template, messages, tools).pieces(add_generation_prompt)


def unplaced(document: dict, tokenizer=None) -> NoPlaceError | None:
    """Return the error for a field of a conversation that the template (default: ours) does not write, or None."""
    try:
        if tokenizer is None or not tokenizer.chat_template:
            _chatml_turns(document["messages"], document.get("tools"))
        elif "tools" in document or any(map(has_extra_fields, document["messages"])):
            chat_pieces(tokenizer, document["messages"], tools=document.get("tools"))
    except NoPlaceError as error:
        return error
    return None


def check_template(tokenizer) -> None:
    """Render a short conversation in the sandbox, before the template is used outside of it.

    Raises UsageError for an invalid template. A template that rejects these messages passes: it may accept others.
    """
    template = tokenizer.chat_template
    templates = template.values() if isinstance(template, dict) else [template]
    for text in templates:
        if text and not _is_ours(text):
            with contextlib.suppress(RefusedError):
                hello = [{"role": "user", "content": "Hello"}]
                render(text, hello, True, tokenizer.special_tokens_map, False, tokenizer.name_or_path)


def _is_ours(template: str) -> bool:
    return template == CHAT_TEMPLATE or hashlib.sha256(template.encode(errors="replace")).hexdigest() == FIRST_TEMPLATE


def _template(tokenizer, tools: list[dict] | None) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = (template.get("tool_use") if tools else None) or template.get("default")
    if not isinstance(template, str) or not template:
        raise UsageError(
            "the tokenizer has no chat template", "one, for conversations", "use a chat model, or plain text"
        )
    return template


def _chatml_pieces(
    tokenizer, messages: list[dict], add_generation_prompt: bool, tools: list[dict] | None
) -> list[tuple[str, bool, bool]]:
    """Return the pieces that our template renders, without Jinja, which takes twenty times as long as encoding."""
    pieces, before = [], ""
    for role, content, is_target in _chatml_turns(messages, tools):
        is_answer = role == "assistant"
        pieces.append((f"{before}{TURN_START}{role}\n", False, False))
        parts = [content] if is_answer else split_control_tokens(tokenizer, content)
        pieces += [(part, is_target, True) for part in parts]
        if is_answer:
            pieces.append((TURN_END, is_target, False))
        before = "\n" if is_answer else f"{TURN_END}\n"
    if add_generation_prompt:
        before += f"{TURN_START}assistant\n"
    return [piece for piece in [*pieces, (before, False, False)] if piece[0]]


def _chatml_turns(messages: list[dict], tools: list[dict] | None) -> list[tuple[str, str, bool]]:
    """Return (role, text, is_target) of each turn that our template writes."""
    turns: list[tuple[str, str, bool]] = []
    if tools:
        system = f"{messages[0]['content']}\n\n" if messages[0]["role"] == "system" else ""
        schemas = "".join(f"\n{as_json(tool)}" for tool in tools)
        turns.append(("system", f"{system}{TOOLS_BEGIN}{schemas}{TOOLS_END}", False))
    for k, message in enumerate(messages):
        role, text = message["role"], message["content"]
        if "name" in message and not answers_tool_call(messages, k):
            raise NoPlaceError("name", k)
        if role == "system" and tools and k == 0:
            continue
        if role == "assistant":
            thought = f"<think>\n{message['reasoning_content']}\n</think>\n\n" if "reasoning_content" in message else ""
            calls = [
                f'<tool_call>\n{{"name": {as_json(call["name"])}, "arguments": {as_json(call["arguments"])}}}\n</tool_call>'
                for call in (each["function"] for each in message.get("tool_calls", ()))
            ]
            text = thought + "\n".join([*([text] if text else []), *calls])
        elif role == "tool":
            role, text = "user", f"<tool_response>\n{text}\n</tool_response>"
            if messages[k - 1]["role"] == "tool":
                text = f"{turns.pop()[1]}\n{text}"
        turns.append((role, text, is_trained_on(message)))
    return turns
