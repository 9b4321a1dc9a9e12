"""Talking to a model: the session, which keeps the history, and the conversation in the terminal, which shows it.

    session = Session(model, tokenizer, ChatArguments(seed=1))
    for step in session.ask("Who are you?"):
        print(step.text, end="")                     # the answer joins the history when the loop ends, or is broken off

A model that has learnt turns gets the whole history through its chat template, whole oldest turns dropped where the
context is too short. A base model, which has not, is given each line alone and continues it. What a person types can
never become a control token, and what the model says never drives the terminal.
"""

import contextlib
import difflib
import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TextIO

from tinygpt_hf import safeio
from tinygpt_hf.data.chat_format import encode_chat
from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.generation import (
    FINISH,
    Step,
    check_prompt,
    encode_prompt,
    generate_steps,
    read_sampling,
    room_for_answer,
)
from tinygpt_hf.inference.loading import context_length, load_model
from tinygpt_hf.inference.terminal import safe_text
from tinygpt_hf.settings.inference import ChatArguments
from tinygpt_hf.settings.parsing import convert

SETTABLE = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "stop", "seed",
)  # fmt: skip
HELP = """\
/help             this list
/reset            forget the conversation and begin again
/set NAME VALUE   change a setting; /set alone shows them all
/save FILE        write the conversation as a line of JSON, as --train_file reads it
/exit             leave; so do exit, quit and the end of input
Ctrl-C stops an answer, a second Ctrl-C leaves. A line that begins with // is sent with one /."""


def chat(
    arguments: ChatArguments, stdin: TextIO | None = None, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> int:
    """`tinygpt chat`: one --prompt, the lines of standard input, or a conversation; returns the exit status.

    Only the answers go to standard output; everything said about them goes to standard error.
    """
    stdin, stdout, stderr = stdin or sys.stdin, stdout or sys.stdout, stderr or sys.stderr
    read_sampling(arguments)
    if arguments.prompt is not None:
        if not arguments.prompt.strip():
            raise UsageError("the prompt is empty", "a message was wanted", "give --prompt some text, or leave it out")
        check_prompt(arguments.prompt)
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    session = Session(model, tokenizer, arguments, chats=knows_turns(arguments.model, tokenizer))
    interactive = arguments.prompt is None and stdin.isatty() and stdout.isatty()
    terminal = Conversation(session, stdin, stdout, stderr, interactive)
    if arguments.prompt is not None:
        terminal.say_what_it_is()
        terminal.answer(arguments.prompt)
        return 0
    return terminal.run()


def knows_turns(name_or_path: str, tokenizer) -> bool:
    """Has the model learnt turns? No without a chat template, nor where its run's run.json says `"chat": false`."""
    if not tokenizer.chat_template:
        return False
    folder = Path(name_or_path).expanduser()
    for place in (folder, folder.parent):  # best/ and checkpoint-*/ lie inside the run folder
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads((place / "run.json").read_text(encoding="utf-8"))
            return not (isinstance(facts, dict) and facts.get("chat") is False)
    return True


class Session:
    """A conversation with a model: history, settings, and the seed that makes its answers come again."""

    def __init__(self, model, tokenizer, arguments: ChatArguments, chats: bool = True):
        self.model, self.tokenizer, self.chats = model, tokenizer, chats
        self.arguments = arguments
        self.reset()

    def reset(self) -> None:
        """Forget everything said. Under a fixed seed the same messages then get the same answers again."""
        opening = self.arguments.system if self.chats else None
        self.system = [{"role": "system", "content": opening}] if opening else []
        self.messages: list[dict[str, str]] = []  # all turns; user and assistant alternate
        self.forgotten = 0  # so many of the oldest messages no longer reach the model
        self.dropped = 0  # turns the last question cost
        self._answers = 0
        self._seed = self.arguments.seed if self.arguments.seed is not None else secrets.randbits(63)

    def ask(self, text: str) -> Iterator[Step]:
        """The answer to `text`, a step per token. Raises before anything changes if it cannot fit into the context."""
        ids, forgotten = self._encode(text)
        self.dropped, self.forgotten = (forgotten - self.forgotten) // 2, forgotten
        return self._steps(text, ids)

    def set(self, name: str, words: list[str]) -> None:
        """Change one setting, by the rules of the command line."""
        if name not in SETTABLE:
            near = difflib.get_close_matches(name, SETTABLE, 1)
            hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(SETTABLE)}"
            raise UsageError(f"there is no setting {name!r} to change here", hint, "see /help")
        if not words or (len(words) > 1 and name != "stop"):
            raise UsageError(f"/set {name} has {len(words)} values", "one was wanted", f"e.g. /set {name} VALUE")
        kind = next(f.type for f in fields(ChatArguments) if f.name == name)
        value = convert(words if name == "stop" else words[0], kind, f"/set {name}")
        changed = replace(self.arguments, **{name: value})
        read_sampling(changed)
        if changed.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {changed.max_new_tokens}", "at least 1 was wanted", "try 256")
        self.arguments = changed
        if name == "seed":
            self._seed = changed.seed if changed.seed is not None else secrets.randbits(63)
            self._answers = 0

    def save(self, path: Path) -> None:
        """Write the conversation as JSON lines of training data. An existing file is left alone."""
        if not self.messages:
            raise UsageError("nothing has been said yet", "a conversation was wanted", "talk first")
        if path.exists() or not path.absolute().parent.is_dir():
            what = "exists already" if path.exists() else "lies in a folder that does not exist"
            raise UsageError(f"{path} {what}", "a new file was wanted", "choose another name")
        if self.chats:
            lines = [{"messages": self.system + self.messages}]
        else:
            pairs = zip(self.messages[::2], self.messages[1::2], strict=True)
            lines = [{"text": question["content"] + answer["content"]} for question, answer in pairs]
        safeio.write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _encode(self, text: str) -> tuple[list[int], int]:
        """(ids of what the model is given, how many messages are left out), with room kept for an answer."""
        from jinja2 import TemplateError

        check_prompt(text)
        if not self.chats:
            ids = encode_prompt(self.tokenizer, text)
            room_for_answer(self.model, len(ids))
            return ids, len(self.messages)
        context = context_length(self.model)
        room = min(self.arguments.max_new_tokens, context // 4) if context else 0
        forgotten = self.forgotten
        while True:
            turns = [*self.system, *self.messages[forgotten:], {"role": "user", "content": text}]
            try:
                ids, _ = encode_chat(self.tokenizer, turns, add_generation_prompt=True)
            except TemplateError as error:
                seen = f"the model's chat template refuses the conversation ({error})"
                raise UsageError(seen, "turns it knows were wanted", "leave --system out, or /reset") from None
            if context is None or len(ids) + room <= context or forgotten >= len(self.messages):
                break
            forgotten += 2
        room_for_answer(self.model, len(ids))
        return ids, forgotten

    def _steps(self, text: str, ids: list[int]) -> Iterator[Step]:
        arguments = self.arguments
        steps = generate_steps(
            self.model,
            self.tokenizer,
            ids,
            read_sampling(arguments),
            max_new_tokens=arguments.max_new_tokens,
            stop=arguments.stop,
            seed=self._seed,
            number=self._answers,
        )
        pieces: list[str] = []
        begun = False
        try:
            for step in steps:
                begun = True
                pieces.append(step.text)
                yield step
        finally:
            if begun:  # an answer broken off stays in the history as far as it went
                self.messages.append({"role": "user", "content": text})
                self.messages.append({"role": "assistant", "content": "".join(pieces)})
                self._answers += 1


class Conversation:
    """The terminal side: reads lines, shows answers as they are made, obeys commands."""

    def __init__(self, session: Session, stdin: TextIO, stdout: TextIO, stderr: TextIO, interactive: bool):
        self.session, self.interactive = session, interactive
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._colour = stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._commands = {"/help": self._help, "/reset": self._reset, "/set": self._set, "/save": self._save}

    def run(self) -> int:
        """Until `exit` or the end of input; the exit status, 130 after a second Ctrl-C."""
        self.say_what_it_is()
        interrupted, anything = False, False
        while True:
            try:
                line = self._read()
                interrupted = False
                if line is None or line.strip() in ("exit", "quit", "/exit", "/quit"):
                    break
                if not line.strip():
                    continue
                anything = True
                if line.startswith("/") and not line.startswith("//"):
                    self._command(line)
                else:
                    self.answer(line[1:] if line.startswith("//") else line)
            except UsageError as error:
                if not self.interactive:
                    raise
                self._note(f"error: {error}")
            except KeyboardInterrupt:
                if not self.interactive or interrupted:
                    self._note("")
                    return 130
                interrupted = True
                self._note("\n[stopped; Ctrl-C again leaves]")
        if not anything and not self.interactive:
            raise UsageError("standard input is empty", "a message on a line was wanted", "or give --prompt")
        return 0

    def say_what_it_is(self) -> None:
        """One line about the model; a script hears it only when the model cannot chat."""
        name = self.session.arguments.model or "this model"
        if not self.session.chats:
            self._note(f"[{name} is a base model without a chat turn in its training: it continues what you write]")
        elif self.interactive:
            context = context_length(self.session.model)
            self._note(f"[{name}{f', context {context} tokens' if context else ''}; /help lists the commands]")

    def answer(self, text: str) -> None:
        """Show the answer to one message, and what is to be said about it."""
        steps = self.session.ask(text)
        if self.session.chats and self.session.dropped:
            turns = "turn" if self.session.dropped == 1 else "turns"
            self._note(f"[the context is full: the oldest {self.session.dropped} {turns} no longer reach the model]")
        shown = "" if self.session.chats else text
        self._write(shown)
        started, count, finish = time.perf_counter(), 0, None
        with contextlib.closing(steps):
            for step in steps:
                count, finish = count + 1, step.finish
                shown = step.text or shown
                self._write(step.text)
        seconds = max(time.perf_counter() - started, 1e-9)
        if not shown.endswith("\n"):
            self._write("\n")
        if finish in ("length", "context"):
            self._note(f"[the answer ends here: {FINISH[finish]}]")
        if self.interactive:
            self._note(f"[{count} tokens, {count / seconds:.1f} tokens/s]")

    def _command(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if word not in self._commands:
            near = difflib.get_close_matches(word, [*self._commands, "/exit"], 1)
            raise UsageError(
                f"there is no command {word}",
                f"did you mean {near[0]}?" if near else "see /help",
                "to send a line that begins with /, write //",
            )
        self._commands[word](rest.strip())

    def _help(self, rest: str) -> None:
        self._note(HELP)

    def _reset(self, rest: str) -> None:
        self.session.reset()
        self._note("[forgotten; we begin again]")

    def _set(self, rest: str) -> None:
        try:
            words = shlex.split(rest)
        except ValueError:
            raise UsageError(f"/set {rest} has an open quote", "NAME VALUE was wanted", "close the quotes") from None
        if words:
            self.session.set(words[0], words[1:])
        for name in words[:1] or SETTABLE:
            self._note(f"{name} {getattr(self.session.arguments, name)}")

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageError("/save names no file", "a new file was wanted", "e.g. /save talk.jsonl")
        path = Path(rest).expanduser()
        try:
            self.session.save(path)
        except OSError as error:
            seen = f"{path} cannot be written ({error.strerror})"
            raise UsageError(seen, "a new file was wanted", "try another") from None
        self._note(f"[saved to {path}]")

    def _read(self) -> str | None:
        """The next line without its end; None at the end of input."""
        if self.interactive and self._stdin is sys.stdin:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - line editing and history (in memory) for input()
            try:
                return input("> ")
            except EOFError:
                self._note("")  # the shell's prompt begins on a line of its own
                return None
            except UnicodeDecodeError:
                raise self._not_utf8() from None
        if self.interactive:
            self._write("> ")
        binary = getattr(self._stdin, "buffer", None)
        try:
            line = binary.readline().decode("utf-8") if binary else self._stdin.readline()
        except UnicodeDecodeError:
            raise self._not_utf8() from None
        return line.rstrip("\r\n") if line else None

    def _not_utf8(self) -> UsageError:
        return UsageError("a line of standard input is no UTF-8", "text was wanted", "check the encoding")

    def _write(self, text: str) -> None:
        # what a script reads is the plain text: only a terminal needs guarding
        _put(self._stdout, safe_text(text) if self._stdout.isatty() else text)

    def _note(self, text: str) -> None:
        self._stdout.flush()
        text = safe_text(text)
        _put(self._stderr, (f"\x1b[2m{text}\x1b[0m" if self._colour and text else text) + "\n")


def _put(stream: TextIO, text: str) -> None:
    """Write at once, with a sign for what the stream's encoding lacks (a Windows code page, say)."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, errors="replace").decode(encoding))
    stream.flush()
