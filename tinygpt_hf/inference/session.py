"""Hold a conversation with a model: its messages, its sampling settings and its seed.

    session = Session(model, tokenizer, ChatArguments(seed=1))
    for step in session.ask("Who are you?"):
        print(step.text, end="")                     # the answer joins the history when the loop ends or is closed
    session.steps[0].candidates                      # the alternatives of the answer's first token

A chat model gets the history through its chat template; the oldest turns are dropped when the context is full. A base
model continues each line alone. Text that a user types or loads never becomes a control token or a role.
"""

import contextlib
import difflib
import itertools
import json
import os
import secrets
from collections.abc import Generator
from dataclasses import fields, replace
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.engine import Engine, PlainEngine, open_engine
from tinygpt_hf.inference.generation import (
    Step,
    check_prompt,
    context_length,
    encode_prompt,
    generate_steps,
    read_sampling,
    room_for_answer,
)
from tinygpt_hf.reading.schemas import row_content
from tinygpt_hf.reading.turns import document_texts, message_texts
from tinygpt_hf.settings.inference import ChatArguments
from tinygpt_hf.settings.parsing import convert
from tinygpt_hf.tokenizing.chat_template import check_template, encode_chat

SETTABLE = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "stop", "seed", "explain",
)  # fmt: skip
CANDIDATES = 5  # alternatives kept for each token of an answer
MAX_FILE_BYTES = 2**24  # of a conversation to load


def knows_turns(name_or_path: str, tokenizer) -> bool:
    """Tell whether a model was trained on chat turns: it has a chat template and its run.json does not say `"chat": false`.

    Raises a `UsageError` if rendering the template takes too long or needs too much memory.
    """
    if not tokenizer.chat_template:
        return False
    check_template(tokenizer)
    folder = Path(os.path.expanduser(name_or_path))
    for place in (folder, folder.parent):  # best/ and checkpoint-*/ lie inside the run folder
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads((place / "run.json").read_text(encoding="utf-8"))
            return not (isinstance(facts, dict) and facts.get("chat") is False)
    return True


class Session:
    """A conversation: its `messages`, its `arguments` (sampling settings) and the `steps` of the last answer."""

    def __init__(self, model, tokenizer, arguments: ChatArguments, chats: bool = True):
        self.model, self.tokenizer, self.chats = model, tokenizer, chats
        self.arguments = arguments
        self._engine: Engine | PlainEngine | None = None
        if arguments.system:
            self._check_system(arguments.system)
        self.reset()

    def reset(self) -> None:
        """Start over. With a fixed seed, the same messages get the same answers again."""
        self.messages: list[dict] = []  # each exchange begins with a user's message and ends with an assistant's
        self.tools: list[dict] | None = None  # of a loaded conversation
        self.steps: list[Step] = []
        self.forgotten = 0  # number of oldest messages that no longer fit into the context
        self.dropped = 0  # turns that the last question pushed out of the context
        self._answers = 0
        self._seed = self.arguments.seed if self.arguments.seed is not None else secrets.randbits(63)

    @property
    def system(self) -> list[dict[str, str]]:
        """System message of the conversation, as a list of one message or none."""
        return [{"role": "system", "content": self.arguments.system}] if self.arguments.system else []

    def ask(self, text: str) -> Generator[Step]:
        """Answer `text`, yielding one step per token. Raises a `UsageError` at once if it does not fit into the context."""
        return self._answer(text, self.messages)

    def retry(self) -> Generator[Step]:
        """Answer the last question again with other random numbers, replacing its answer."""
        self._check_begun()
        begin = exchanges(self.messages)[-1]
        return self._answer(self.messages[begin]["content"], self.messages[:begin])

    def undo(self) -> str:
        """Remove the last question and its answer; return the question."""
        self._check_begun()
        begin = exchanges(self.messages)[-1]
        question = self.messages[begin]["content"]
        self.messages, self.steps = self.messages[:begin], []
        self.forgotten = 0  # older turns may fit into the context again
        return question

    def set_system(self, text: str) -> None:
        """Replace the system message; "" removes it."""
        if text:
            self._check_system(text)
        self.arguments = replace(self.arguments, system=text or None)

    def set(self, name: str, words: list[str]) -> None:
        """Change one setting; values are parsed as on the command line."""
        if name not in SETTABLE:
            near = difflib.get_close_matches(name, SETTABLE, 1)
            hint = f"did you mean {near[0]}?" if near else "see /help"
            raise UsageError(f"there is no setting {name!r} to change here", f"one of {', '.join(SETTABLE)}", hint)
        if not words or (len(words) > 1 and name != "stop"):
            raise UsageError(f"/set {name} has {len(words)} values", "one", f"try /set {name} VALUE")
        kind = next(f.type for f in fields(ChatArguments) if f.name == name)
        value = convert(words if name == "stop" else words[0], kind, f"/set {name}")
        changed = replace(self.arguments, **{name: value})
        read_sampling(changed)
        self.arguments = changed
        if name == "seed":
            self._seed = changed.seed if changed.seed is not None else secrets.randbits(63)
            self._answers = 0

    def tokens_used(self) -> int:
        """Count the tokens of the conversation in the context."""
        if not self.chats or not self.messages:
            return 0
        return len(encode_chat(self.tokenizer, [*self.system, *self.messages[self.forgotten :]], tools=self.tools)[0])

    def save(self, path: Path) -> None:
        """Write the conversation as JSON lines of training data, without questions whose answer is blank.

        Raises a `UsageError` if the file exists.
        """
        begins = [*exchanges(self.messages), len(self.messages)]
        pairs = [self.messages[begin:end] for begin, end in itertools.pairwise(begins)]
        pairs = [pair for pair in pairs if not _is_blank(pair[0]) and not _is_blank(pair[-1])]
        if not pairs:
            raise UsageError("nothing has been said yet", "a conversation", "talk first")
        if path.exists() or not path.absolute().parent.is_dir():
            what = "exists already" if path.exists() else "lies in a folder that does not exist"
            raise UsageError(f"{path} {what}", "a new file", "choose another name")
        if self.chats:
            tools = {"tools": self.tools} if self.tools else {}
            lines: list[dict] = [{"messages": self.system + [message for pair in pairs for message in pair]} | tools]
        else:
            lines = [{"text": question["content"] + answer["content"]} for question, answer in pairs]
        storage.write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def load(self, path: Path) -> None:
        """Replace the conversation by the one that `save` wrote to `path`. An error leaves the session unchanged.

        With the same seed, the next answer is the one the saved conversation would have got.
        """
        self._check_chats("a conversation to go on with")
        document = _read_conversation(path)
        messages, tools = document["messages"], document.get("tools")
        if messages[-1]["role"] != "assistant":
            raise UsageError(f"the last message in {path} has no answer", "whole turns", "remove it")
        encode_chat(self.tokenizer, messages, tools=tools)
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        self.arguments = replace(self.arguments, system=system)
        self.reset()
        self.messages, self.tools, self._answers = messages, tools, len(exchanges(messages))

    def _check_begun(self) -> None:
        if not self.messages:
            raise UsageError("nothing has been said yet", "a question with its answer", "talk first")

    def _check_chats(self, what: str) -> None:
        if not self.chats:
            name = self.arguments.model or "this model"
            raise UsageError(
                f"{what} is given", f"a chat model: {name} is a base model, which knows no turns", "leave it out"
            )

    def _check_system(self, text: str) -> None:
        self._check_chats("a system message")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError("the system message is no valid UTF-8", "text", "check the encoding") from None
        turns = [{"role": "system", "content": text}, {"role": "user", "content": "."}]
        room_for_answer(self.model, len(encode_chat(self.tokenizer, turns, add_generation_prompt=True)[0]))

    def _encode(self, text: str, before: list[dict]) -> tuple[list[int], int]:
        """Return (prompt ids, number of oldest messages left out to keep room for an answer)."""
        check_prompt(text)
        if not self.chats:
            ids = encode_prompt(self.tokenizer, text)
            room_for_answer(self.model, len(ids))
            return ids, len(before)
        context = context_length(self.model)
        room = min(self.arguments.max_new_tokens, context // 4) if context else 0
        forgotten = self.forgotten
        while True:
            turns = [*self.system, *before[forgotten:], {"role": "user", "content": text}]
            ids, _ = encode_chat(self.tokenizer, turns, add_generation_prompt=True, tools=self.tools)
            if context is None or len(ids) + room <= context or forgotten >= len(before):
                break
            forgotten = next((k for k in exchanges(before) if k > forgotten), len(before))
        room_for_answer(self.model, len(ids))
        return ids, forgotten

    def _answer(self, text: str, before: list[dict]) -> Generator[Step]:
        ids, forgotten = self._encode(text, before)
        self.dropped, self.forgotten = len(exchanges(before[self.forgotten : forgotten])), forgotten
        return self._steps(text, ids, before)

    def _steps(self, text: str, ids: list[int], before: list[dict]) -> Generator[Step]:
        arguments = self.arguments
        # keep the engine: the next prompt begins with this conversation
        self._engine = self._engine or open_engine(self.model)
        steps = generate_steps(
            self.model,
            self.tokenizer,
            ids,
            read_sampling(arguments),
            max_new_tokens=arguments.max_new_tokens,
            stop=arguments.stop,
            seed=self._seed,
            number=self._answers,
            num_candidates=CANDIDATES,
            engine=self._engine,
        )
        taken: list[Step] = []
        try:
            for step in steps:
                taken.append(step)
                yield step
        finally:
            if taken:  # an interrupted answer stays in the history
                answer = "".join(step.text for step in taken)
                self.messages = [*before, {"role": "user", "content": text}, {"role": "assistant", "content": answer}]
                self.steps = taken
                self._answers += 1


def exchanges(messages: list[dict]) -> list[int]:
    """Return the index of the user's message that begins each exchange."""
    return [k for k, message in enumerate(messages) if message["role"] == "user"]


def _is_blank(message: dict) -> bool:
    return not any(map(str.strip, message_texts(message)))


def _read_conversation(path: Path) -> dict:
    """Read a file with one conversation as `--train_file` does; raise a `UsageError` if it holds anything else."""
    expected = "a conversation as /save writes it"
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no file", expected, "check the path")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path} has {path.stat().st_size} bytes", f"at most {MAX_FILE_BYTES}", "cut it")
        text = path.read_bytes().decode("utf-8")
        lines = [line for line in text.split("\n") if line.strip()]
        found = [json.loads(line) for line in lines]
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", expected, "check the path") from None
    except (ValueError, RecursionError):  # JSON errors and UTF-8 errors are ValueErrors
        raise UsageError(f"{path} holds no JSON lines", expected, "name a file that /save wrote") from None
    if len(found) != 1 or not isinstance(found[0], dict) or "messages" not in found[0]:
        problem = f"{path} holds {len(found)} lines" if len(found) != 1 else f"{path} holds no messages"
        raise UsageError(problem, expected, "keep one line with one conversation")
    try:
        document = row_content(found[0], None, str(path))
        "".join(document_texts(document)).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path} holds unpaired surrogates (\\ud800 to \\udfff)", expected, "remove them") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply", expected, "name a file that /save wrote") from None
    if "messages" not in document:
        raise UsageError(f"{path} holds no messages", expected, "keep one line with one conversation")
    return document
