"""A conversation with a model: what was said, how answers are chosen, and the seed that makes them come again.

    session = Session(model, tokenizer, ChatArguments(seed=1))
    for step in session.ask("Who are you?"):
        print(step.text, end="")                     # the answer joins the history when the loop ends, or is broken off
    session.steps[0].candidates                      # what the last answer's first token could have been

A model that has learned turns gets the whole history through its chat template, whole oldest turns dropped where the
context is too short. A base model, which has not, is given each line alone and continues it. What a person types, or
brings in a file, can never become a control token or a role.
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
CANDIDATES = 5  # how many alternatives of each token of an answer are kept
LONGEST_FILE = 2**24  # bytes of a conversation to go on with


def knows_turns(name_or_path: str, tokenizer) -> bool:
    """Has the model learned turns? No without a chat template, nor where its run's run.json says `"chat": false`.

    A template that never ends or needs more memory than a template may is a UsageError.
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
    """A conversation: `messages`, the `arguments` its answers are chosen by, and the `steps` of the last answer."""

    def __init__(self, model, tokenizer, arguments: ChatArguments, chats: bool = True):
        self.model, self.tokenizer, self.chats = model, tokenizer, chats
        self.arguments = arguments
        self._engine: Engine | PlainEngine | None = None
        if arguments.system:
            self._check_system(arguments.system)
        self.reset()

    def reset(self) -> None:
        """Forget everything said. Under a fixed seed the same messages then get the same answers again."""
        self.messages: list[dict] = []  # all turns; a user's begins each exchange, an assistant's ends it
        self.tools: list[dict] | None = None  # of a conversation that was loaded
        self.steps: list[Step] = []
        self.forgotten = 0  # so many of the oldest messages no longer reach the model
        self.dropped = 0  # turns the last question cost
        self._answers = 0
        self._seed = self.arguments.seed if self.arguments.seed is not None else secrets.randbits(63)

    @property
    def system(self) -> list[dict[str, str]]:
        """The message that opens the conversation, in a list, or none."""
        return [{"role": "system", "content": self.arguments.system}] if self.arguments.system else []

    def ask(self, text: str) -> Generator[Step]:
        """The answer to `text`, a step per token. Raises before anything changes if it cannot fit into the context."""
        return self._answer(text, self.messages)

    def retry(self) -> Generator[Step]:
        """Another answer to the last question, by other random numbers; it takes the place of the first."""
        self._check_begun()
        begin = exchanges(self.messages)[-1]
        return self._answer(self.messages[begin]["content"], self.messages[:begin])

    def undo(self) -> str:
        """Take back the last question and its answer; returns the question."""
        self._check_begun()
        begin = exchanges(self.messages)[-1]
        question = self.messages[begin]["content"]
        self.messages, self.steps = self.messages[:begin], []
        self.forgotten = 0  # there may be room for older turns again
        return question

    def set_system(self, text: str) -> None:
        """Open the conversation, as far as it has gone, with another system message; "" with none."""
        if text:
            self._check_system(text)
        self.arguments = replace(self.arguments, system=text or None)

    def set(self, name: str, words: list[str]) -> None:
        """Change one setting, by the rules of the command line."""
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
        """How many tokens of the context the conversation takes before the next question."""
        if not self.chats or not self.messages:
            return 0
        return len(encode_chat(self.tokenizer, [*self.system, *self.messages[self.forgotten :]], tools=self.tools)[0])

    def save(self, path: Path) -> None:
        """Write the conversation as JSON lines of training data. An existing file is left alone.

        A question that got no word for an answer is left out: there is nothing to learn in it.
        """
        begins = [*exchanges(self.messages), len(self.messages)]
        pairs = [self.messages[begin:end] for begin, end in itertools.pairwise(begins)]
        told = [
            pair
            for pair in pairs
            if all(any(map(str.strip, message_texts(message))) for message in (pair[0], pair[-1]))
        ]
        if not told:
            raise UsageError("nothing has been said yet", "a conversation", "talk first")
        if path.exists() or not path.absolute().parent.is_dir():
            what = "exists already" if path.exists() else "lies in a folder that does not exist"
            raise UsageError(f"{path} {what}", "a new file", "choose another name")
        if self.chats:
            tools = {"tools": self.tools} if self.tools else {}
            lines: list[dict] = [{"messages": self.system + [message for pair in told for message in pair]} | tools]
        else:
            lines = [{"text": question["content"] + answer["content"]} for question, answer in told]
        storage.write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def load(self, path: Path) -> None:
        """Go on with the conversation in `path`, as `save` wrote it, instead of this one. A fault changes nothing.

        Under the same seed the next answer is the one it would have had there.
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
        """(ids of what the model is given, how many messages are left out), with room kept for an answer."""
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
        # kept: the next question begins with what was said before
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
            if taken:  # an answer broken off stays in the history as far as it went
                said = "".join(step.text for step in taken)
                self.messages = [*before, {"role": "user", "content": text}, {"role": "assistant", "content": said}]
                self.steps = taken
                self._answers += 1


def exchanges(messages: list[dict]) -> list[int]:
    """Return where each exchange of a conversation begins: with what the user says."""
    return [k for k, message in enumerate(messages) if message["role"] == "user"]


def _read_conversation(path: Path) -> dict:
    """Return the one conversation in a file as a document, read as `--train_file` reads it."""
    wanted = "a conversation as /save writes it"
    try:
        if not path.is_file():
            raise UsageError(f"{path} is no file", wanted, "check the path")
        if path.stat().st_size > LONGEST_FILE:
            raise UsageError(f"{path} has {path.stat().st_size} bytes", f"at most {LONGEST_FILE}", "cut it")
        text = path.read_bytes().decode("utf-8")
        lines = [line for line in text.split("\n") if line.strip()]
        found = [json.loads(line) for line in lines]
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", wanted, "check the path") from None
    except (ValueError, RecursionError):  # JSON errors and UTF-8 errors are ValueErrors
        raise UsageError(f"{path} holds no JSON lines", wanted, "name a file that /save wrote") from None
    if len(found) != 1 or not isinstance(found[0], dict) or "messages" not in found[0]:
        seen = f"{path} holds {len(found)} lines" if len(found) != 1 else f"{path} holds no messages"
        raise UsageError(seen, wanted, "keep one line with one conversation")
    try:
        document = row_content(found[0], None, str(path))
        "".join(document_texts(document)).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path} holds half characters (\\ud800 to \\udfff)", wanted, "remove them") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply", wanted, "name a file that /save wrote") from None
    if "messages" not in document:
        raise UsageError(f"{path} holds no messages", wanted, "keep one line with one conversation")
    return document
