"""Encode conversations: special tokens, the one chat template, and which tokens are trained on.

Text a person wrote can never become a control token. A template is rendered with a marker in place of each content; its own
pieces are encoded with special tokens, the contents without:

    <|im_start|>user\\n  Hi <|im_end|>  <|im_end|>\\n       the middle one was typed: it is encoded as plain characters

`encode_chat` returns the ids and one mask bit per id: 1 on the assistant's tokens and its end of turn, which are trained on.
"""

import contextlib
import itertools
import re
import secrets

from tinygpt_hf.errors import UsageError
from tinygpt_hf.tokenizing.template_sandbox import RefusedError, invalid_template, render

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)
_MARK = re.compile("\x02([0-9a-f]{16}):([0-9]{1,9})\x03")  # what a template gets in place of a content
MOST_COPIES = 8  # how often a template may write a message: some repeat the first question

# ChatML; what stands between the generation marks is what the assistant learns to say.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{%- else -%}"
    "{{ message['content'] + '<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def encode_chat(tokenizer, messages: list[dict], add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
    """Encode a conversation as (ids, mask), both (T,): mask is 1 on what the assistant says and on its end of turn.

    Works with every tokenizer that has a chat template; without generation marks, the assistant's text and the special token
    after it count as what it says.
    """
    pieces = chat_pieces(tokenizer, messages, add_generation_prompt)
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


def chat_pieces(tokenizer, messages: list[dict], add_generation_prompt: bool = False) -> list[tuple[str, bool, bool]]:
    """Cut a conversation into (text, is_target, typed): `typed` ones come from a message, the others from the template.

    A template other than ours is rendered within the limits of template_sandbox.py.
    """
    template = _template(tokenizer)
    if template == CHAT_TEMPLATE:
        return _own_pieces(tokenizer, messages, add_generation_prompt)
    secret = secrets.token_hex(8)  # nobody can write it into a message beforehand
    marked = [{**message, "content": f"\x02{secret}:{k}\x03"} for k, message in enumerate(messages)]
    has_marks = re.search(r"\{%[-+]?\s*generation\b", template) is not None
    special = tokenizer.special_tokens_map
    text, spans = render(template, marked, add_generation_prompt, special, has_marks, tokenizer.name_or_path)
    if max(text.count(secret), len(spans)) > MOST_COPIES * len(messages):
        raise invalid_template(tokenizer.name_or_path, "repeats the messages without end")

    pieces: list[tuple[str, bool, bool]] = []
    position, answering = 0, False
    marks = [mark for mark in _MARK.finditer(text) if mark[1] == secret and int(mark[2]) < len(messages)]
    for mark in [*marks, None]:
        piece = text[position : mark.start() if mark else len(text)]
        if not has_marks:  # the end of turn is the first special token after the content
            end_of_turn = _end_of_turn(tokenizer, piece) if answering else 0
            spans = [(position, position + end_of_turn)]
        pieces += [(part, is_target, False) for part, is_target in _cut(piece, position, spans)]
        if mark:
            message, position = messages[int(mark[2])], mark.end()
            answering = message["role"] == "assistant"
            parts = [message["content"]] if answering else _without_marks(tokenizer, message["content"])
            pieces += [(part, answering, True) for part in parts]
    if any("\x02" in piece or "\x03" in piece for piece, _, typed in pieces if not typed):
        raise invalid_template(tokenizer.name_or_path, "changes what the messages say")
    return [piece for piece in pieces if piece[0]]


def check_template(tokenizer) -> None:
    """Render a short conversation within the limits, before others render without them.

    A tokenizer without a template passes, and so does one that refuses these messages: it may take others.
    """
    template = tokenizer.chat_template
    for each in template.values() if isinstance(template, dict) else [template] if template else []:
        if each != CHAT_TEMPLATE:
            with contextlib.suppress(RefusedError):
                hello = [{"role": "user", "content": "Hello"}]
                render(each, hello, True, tokenizer.special_tokens_map, False, tokenizer.name_or_path)


def _template(tokenizer) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str) or not template:
        raise UsageError(
            "the tokenizer has no chat template", "one, for conversations", "use a chat model, or plain text"
        )
    return template


def _own_pieces(tokenizer, messages: list[dict], add_generation_prompt: bool) -> list[tuple[str, bool, bool]]:
    """Write out what our own template renders: rendering it takes twenty times as long as encoding the text."""
    pieces, before = [], ""
    for message in messages:
        answer = message["role"] == "assistant"
        pieces.append((f"{before}{TURN_START}{message['role']}\n", False, False))
        parts = [message["content"]] if answer else _without_marks(tokenizer, message["content"])
        pieces += [(part, answer, True) for part in parts]
        if answer:
            pieces.append((TURN_END, True, False))
        before = "\n" if answer else f"{TURN_END}\n"
    if add_generation_prompt:
        before += f"{TURN_START}assistant\n"
    return [piece for piece in [*pieces, (before, False, False)] if piece[0]]


def _without_marks(tokenizer, content: str) -> list[str]:
    """Cut a content so that no part holds a control token that its tokenizer does not call special (`<tool_call>`).

    The tokenizer would encode it as one token, whoever wrote it. Added words such as `naïve` are not cut.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.special]
    marks = [re.escape(text) for text in added if re.fullmatch(r"<.+>|\[.+\]", text, re.DOTALL)]
    cuts = [match.start() + 1 for match in re.finditer(f"(?={'|'.join(marks)})", content)] if marks else []
    return [content[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(content)])]


def _cut(piece: str, position: int, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Cut a piece of the rendered text at the ends of `spans`, which the assistant says."""
    borders = {0, len(piece)} | {b - position for span in spans for b in span if 0 < b - position < len(piece)}
    parts = []
    for begin, end in itertools.pairwise(sorted(borders)):
        parts.append((piece[begin:end], any(a <= position + begin < b for a, b in spans)))
    return parts


def _end_of_turn(tokenizer, piece: str) -> int:
    """Return where the first special token in `piece` ends; 0: there is none."""
    ends = [piece.find(token) + len(token) for token in tokenizer.all_special_tokens if token in piece]
    return min(ends, default=0)
