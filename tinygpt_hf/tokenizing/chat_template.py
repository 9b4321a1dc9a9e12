"""Encode conversations: special tokens, the one chat template, and which tokens are trained on.

Text a person wrote can never become a control token. Pieces a template writes are encoded with special tokens, what was typed
without:

    <|im_start|>user\\n  Hi <|im_end|>  <|im_end|>\\n       the middle one was typed: it is encoded as plain characters

`encode_chat` returns the ids and one mask bit per id: 1 on the assistant's tokens and its end of turn, which are trained on.
"""

import contextlib
import hashlib
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.turns import as_json
from tinygpt_hf.tokenizing.rendering import NoPlaceError, Rendering, is_learned, is_link, says_more, without_marks
from tinygpt_hf.tokenizing.template_sandbox import RefusedError, render

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)
# What a model is told of its tools, before and behind their schemas: the words that Qwen's and Hermes' models know.
TOOLS_BEGIN = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_END = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call>"
    ' XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
# ChatML, with Qwen's form of tools and reasoning; what stands between the generation marks is what the assistant learns to say.
# Its lines are joined, without the white space around them.
CHAT_TEMPLATE = "".join(map(str.strip, Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8").splitlines()))
# The sha256 of our template in versions that knew contents alone: with those it writes the same.
FIRST_TEMPLATE = "c1a9d45368e3e05c445d56e5b2bf33bb22c9dca06c2a12da92f3b32298c53dff"


def encode_chat(
    tokenizer, messages: list[dict], add_generation_prompt: bool = False, tools: list[dict] | None = None
) -> tuple[list[int], list[int]]:
    """Encode a conversation as (ids, mask), both (T,): mask is 1 on what the assistant says and on its end of turn.

    Works with every tokenizer that has a chat template. `messages` and `tools` are as turns.py makes them; a message with a
    `weight` of 0 is not learned. What the template does not write is a `NoPlaceError`.
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
    """Return the special tokens the template writes around turns, and the one of them that ends an answer."""
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    ids, mask = encode_chat(tokenizer, talk)
    special = set(tokenizer.all_special_ids)
    last = [i for i, bit in zip(ids, mask, strict=True) if bit][-1]
    return sorted(special.intersection(ids)), last if last in special else None


def add_chat_format(tokenizer) -> list[int]:
    """Give a tokenizer without a chat template ours, and the turn tokens it lacks; return the ids of those."""
    known = tokenizer.get_vocab()
    special = {"additional_special_tokens": [TURN_START, TURN_END]}
    tokenizer.add_special_tokens(special, replace_extra_special_tokens=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    return sorted(number for token, number in tokenizer.get_vocab().items() if token not in known)


def encode_texts(tokenizer, texts: list[str], typed: bool = True) -> list[list[int]]:
    """Encode each full text without anything around it, on all cores; the tokenizer is left as it was.

    `typed`: what looks like a special token is encoded as characters.
    """
    core = tokenizer.backend_tokenizer
    core.no_truncation()  # what an earlier call or the tokenizer's own file may have set
    core.no_padding()
    before, core.encode_special_tokens = core.encode_special_tokens, typed
    try:
        return [encoding.ids for encoding in core.encode_batch_fast(texts, add_special_tokens=False)]
    finally:
        core.encode_special_tokens = before


def chat_pieces(
    tokenizer, messages: list[dict], add_generation_prompt: bool = False, tools: list[dict] | None = None
) -> list[tuple[str, bool, bool]]:
    """Cut a conversation into (text, is_target, typed): `typed` ones come from a message, the others from the template.

    A template other than ours is rendered (rendering.py) within the limits of template_sandbox.py.
    """
    template = _template(tokenizer, tools)
    if template == CHAT_TEMPLATE or _is_ours(template) and not tools and not any(map(says_more, messages)):
        return _own_pieces(tokenizer, messages, add_generation_prompt, tools)
    return Rendering(tokenizer, template, messages, tools).pieces(add_generation_prompt)


def unplaced(document: dict, tokenizer=None) -> NoPlaceError | None:
    """Return what of a conversation the template of a tokenizer, else our own, has no place for."""
    try:
        if tokenizer is None or not tokenizer.chat_template:
            _written_out(document["messages"], document.get("tools"))
        elif "tools" in document or any(map(says_more, document["messages"])):
            chat_pieces(tokenizer, document["messages"], tools=document.get("tools"))
    except NoPlaceError as error:
        return error
    return None


def check_template(tokenizer) -> None:
    """Render a short conversation within the limits, before others render without them.

    A tokenizer without a template passes, and so does one that refuses these messages: it may take others.
    """
    template = tokenizer.chat_template
    for each in template.values() if isinstance(template, dict) else [template] if template else []:
        if not _is_ours(each):
            with contextlib.suppress(RefusedError):
                hello = [{"role": "user", "content": "Hello"}]
                render(each, hello, True, tokenizer.special_tokens_map, False, tokenizer.name_or_path)


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


def _own_pieces(
    tokenizer, messages: list[dict], add_generation_prompt: bool, tools: list[dict] | None
) -> list[tuple[str, bool, bool]]:
    """Write out what our own template renders: rendering it takes twenty times as long as encoding the text."""
    pieces, before = [], ""
    for role, content, is_target in _written_out(messages, tools):
        answer = role == "assistant"
        pieces.append((f"{before}{TURN_START}{role}\n", False, False))
        parts = [content] if answer else without_marks(tokenizer, content)
        pieces += [(part, is_target, True) for part in parts]
        if answer:
            pieces.append((TURN_END, is_target, False))
        before = "\n" if answer else f"{TURN_END}\n"
    if add_generation_prompt:
        before += f"{TURN_START}assistant\n"
    return [piece for piece in [*pieces, (before, False, False)] if piece[0]]


def _written_out(messages: list[dict], tools: list[dict] | None) -> list[tuple[str, str, bool]]:
    """Return (role, text, is_target) of the turns our template makes of a conversation."""
    turns: list[tuple[str, str, bool]] = []
    if tools:
        system = f"{messages[0]['content']}\n\n" if messages[0]["role"] == "system" else ""
        told = "".join(f"\n{as_json(tool)}" for tool in tools)
        turns.append(("system", f"{system}{TOOLS_BEGIN}{told}{TOOLS_END}", False))
    for k, message in enumerate(messages):
        role, text = message["role"], message["content"]
        if "name" in message and not is_link(messages, k):
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
        turns.append((role, text, is_learned(message)))
    return turns
