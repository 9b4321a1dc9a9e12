"""Conversations as token ids: special tokens, the one chat template, and which tokens are learnt.

Text a person wrote can never become a control token. A template is rendered with a marker in the place of each content; its
own pieces are encoded with special tokens, the contents without:

    <|im_start|>user\\n  Hi <|im_end|>  <|im_end|>\\n       the middle one was typed: it is encoded as plain characters

`encode_chat` gives the ids and one mask bit per id: 1 on the assistant's tokens and its end of turn, which are learnt.
"""

import itertools
import re
import secrets

from tinygpt_hf.errors import UsageError

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)

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
                fault = f"message {number} has the role {message.get('role')!r} where {expected!r} is due"
            elif not message["content"].strip():
                fault = f"message {number} is empty"
            if fault:
                break
            expected = "assistant" if expected == "user" else "user"
    if fault:
        raise UsageError(
            f"{where}: {fault}",
            'conversations look like {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]}',
            "mend the line or remove it",
        )


def encode_chat(tokenizer, messages: list[dict], add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
    """A conversation as (ids, mask), both (T,): mask is 1 on what the assistant says and on its end of turn.

    Works with every tokenizer that has a chat template; one without generation marks is taken at its word that the
    assistant's text and the special token after it are what the assistant says.
    """
    pieces = chat_pieces(tokenizer, messages, add_generation_prompt)
    ids: list[int] = []
    mask: list[int] = []
    for piece, learnt, typed in pieces:
        (new,) = encode_texts(tokenizer, [piece], typed)
        ids.extend(new)
        mask.extend([int(learnt)] * len(new))
    return ids, mask


def encode_texts(tokenizer, texts: list[str], typed: bool = True) -> list[list[int]]:
    """The ids of each text, whole, without anything put around it, on all cores; the tokenizer is left as it was.

    `typed`: what looks like a special token is spelt out in characters.
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
    """A conversation as pieces (text, learnt, typed): `typed` ones come from a message, the others from the template."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    template = tokenizer.chat_template
    if not template:
        raise UsageError(
            "the tokenizer has no chat template", "a conversation needs one", "use a chat model, or plain text"
        )
    secret = secrets.token_hex(8)  # nobody can write it into a message beforehand
    marked = [{**message, "content": f"\x02{secret}:{k}\x03"} for k, message in enumerate(messages)]
    has_marks = re.search(r"\{%[-+]?\s*generation\b", template) is not None
    try:
        rendered = render_jinja_template(
            conversations=[marked],
            chat_template=template,
            return_assistant_tokens_mask=has_marks,
            add_generation_prompt=add_generation_prompt,
            **tokenizer.special_tokens_map,
        )
    except TemplateError as error:
        reason = " ".join(str(error).split())
        roles = ", ".join(message["role"] for message in messages[:4])
        raise UsageError(
            f"the chat template refuses the conversation ({reason})",
            f"its roles are {roles}",
            "change the messages or the tokenizer",
        ) from error
    text, spans = (rendered[0][0], rendered[1][0]) if has_marks else (rendered[0][0], [])

    pieces: list[tuple[str, bool, bool]] = []
    position, answering = 0, False
    while True:
        start = text.find(f"\x02{secret}:", position)
        piece = text[position : start if start >= 0 else len(text)]
        if not has_marks:  # the end of turn is the first special token after the content
            end = _end_of_turn(tokenizer, piece) if answering else 0
            spans = [(position, position + end)]
        pieces += [(part, learnt, False) for part, learnt in _cut(piece, position, spans)]
        if start < 0:
            return [piece for piece in pieces if piece[0]]
        end = text.index("\x03", start)
        message = messages[int(text[start:end].rpartition(":")[2])]
        answering = message["role"] == "assistant"
        pieces.append((message["content"], answering, True))
        position = end + 1


def _cut(piece: str, position: int, spans: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Cut a piece of the rendered text where what the assistant says begins and ends."""
    borders = {0, len(piece)} | {b - position for span in spans for b in span if 0 < b - position < len(piece)}
    parts = []
    for begin, end in itertools.pairwise(sorted(borders)):
        parts.append((piece[begin:end], any(a <= position + begin < b for a, b in spans)))
    return parts


def _end_of_turn(tokenizer, piece: str) -> int:
    ends = [piece.find(token) + len(token) for token in tokenizer.all_special_tokens if token in piece]
    return min(ends, default=0)
