"""Test conversations in the terminal: commands, interruption, exit, use in scripts, and what is never shown."""

import fcntl
import io
import json
import math
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from test_session import session, small_model, small_tokenizer  # noqa: F401 - the last two are fixtures

from tinygpt_hf.cli import main
from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.chat import Conversation, chat
from tinygpt_hf.inference.generation import step_table, steps_table
from tinygpt_hf.inference.session import Session
from tinygpt_hf.inference.terminal import NOTE, safe_text
from tinygpt_hf.settings.inference import ChatArguments
from tinygpt_hf.tokenizing import template_sandbox as template_limits
from tinygpt_hf.tokenizing.chat_template import encode_chat
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def talk(session, *lines, interactive=True, stdout=None, stderr=None):
    """Run a conversation over these lines; return (exit status, standard output, standard error)."""
    stdout, stderr = stdout or io.StringIO(), stderr or io.StringIO()
    stdin = lines[0] if lines and not isinstance(lines[0], str) else io.StringIO("".join(f"{line}\n" for line in lines))
    status = Conversation(session, stdin, stdout, stderr, interactive).run()
    return status, stdout.getvalue(), stderr.getvalue()


def test_a_conversation_with_its_commands(model, tokenizer, tmp_path):
    talker = session(model, tokenizer)
    status, out, err = talk(
        talker, "the cat", "", "/help", "/set temperature 0.5", "/set", f"/save {tmp_path / 'a b.jsonl'}", "/rest",
        "/reset", "//slash", "/exit", "never",
    )  # fmt: skip
    assert status == 0
    assert re.search(r"\[8 tokens, \d+\.\d tokens/s\]", err)
    assert "[the answer ends here: max_new_tokens was reached]" in err
    assert "/save FILE" in err and "temperature 0.5" in err and "min_p 0.05" in err
    assert json.loads((tmp_path / "a b.jsonl").read_text())["messages"][0]["content"] == "the cat"
    assert "error: there is no command /rest (expected a command of /help, or // before" in err
    assert [m["content"] for m in talker.messages[::2]] == ["/slash"]
    assert talker.messages[1]["content"] in out and "never" not in out


def test_the_output_of_a_conversation(model, tokenizer):
    talker = session(model, tokenizer, max_new_tokens=3)
    _, out, err = talk(
        talker, "/show", "/system be a cat", "the mat", "/show", "/top", "/system", '/system ""', "/top 2"
    )
    assert "context: 0 of 96 tokens used" in err and "system: be a cat\nuser: the mat\nassistant: " in err
    used = len(encode_chat(tokenizer, [{"role": "system", "content": "be a cat"}, *talker.messages])[0])
    assert f"context: {used} of 96 tokens used" in err
    assert err.count("system: be a cat") == 3 and err.count("system: (none)") == 1
    every, _, one = err.partition("system: (none)")
    assert steps_table(talker.steps) in every
    bits = [step.bits for step in talker.steps]
    for number, (step, cost) in enumerate(zip(talker.steps, bits, strict=True), 1):
        assert cost == pytest.approx(-math.log2(step.model_probability))
        assert re.search(rf"^ *{number}  +{cost:.2f}  █* +{step.model_probability:.2%} ", every, re.M)
    assert f"[3 tokens, {sum(bits) / 3:.2f} bits of surprisal each on average; /top N shows token N]" in every
    assert step_table(2, talker.steps[1]).strip() in one  # as `generate --show_steps` shows it
    assert one.count("bits, entropy") == 1 and "surprise" not in out
    starts = {line.index(" '") for line in step_table(2, talker.steps[1]).splitlines() if "%" in line}
    assert len(starts) == 1  # aligned


def test_an_explained_answer_has_its_bits_behind_each_token(model, tokenizer):
    talker = session(model, tokenizer, max_new_tokens=6, explain=True)
    _, out, err = talk(talker, "the cat", "/set explain false", "the mat")
    first, second = talker.messages[1]["content"], talker.messages[3]["content"]
    marks = re.compile("[₀-₉↵]")
    assert NOTE in err and second in out and first not in out
    assert safe_text(first) in marks.sub("", out) and marks.search(out) and "\x1b" not in out


def test_retry_and_undo(model, tokenizer):
    talker = session(model, tokenizer, max_new_tokens=5)
    _, out, err = talk(talker, "the cat", "/retry", "the mat", "/undo", "/set temperature 0", "/retry")
    assert "[removed: the mat]" in err and len(talker.messages) == 2
    assert "[at temperature 0 there is only one answer; /set temperature 0.7 makes others]" in err
    assert talker.messages[1]["content"] in out
    base = session(model, tokenizer, chats=False, max_new_tokens=5)
    _, out, err = talk(base, "the cat", "/retry", "/show")
    assert out.count("the cat") == 2 and "a base model does not see earlier lines" in err


def test_a_saved_conversation_comes_back(model, tokenizer, tmp_path):
    path = tmp_path / "talk.jsonl"
    stayed = session(model, tokenizer)
    talk(stayed, "/system be a cat", "the cat", "the mat", f"/save {path}")
    back = session(model, tokenizer)
    _, _, err = talk(back, f"/load {path}", "/show", "/top")
    assert back.messages == stayed.messages and f"[{path}: 2 turns; /show shows them]" in err
    assert "user: the mat" in err and "error: there is no answer to look at" in err
    assert list(tmp_path.iterdir()) == [path]  # nothing else was written


@pytest.mark.parametrize("last", ["exit", "quit", "/exit", "/quit", " exit ", None])
def test_the_ways_to_leave(model, tokenizer, last):
    talker = session(model, tokenizer)
    assert talk(talker, *([last, "the cat"] if last else ()))[0] == 0
    assert talker.messages == []


def test_mistakes_do_not_end_the_conversation(model, tokenizer):
    talker = session(model, tokenizer)
    mistakes = [
        "the cat " * 90, "/set top_k x", "/set 'a", "/save", "/save /no/such/folder/x", "/load", "/load /no/such/file",
        "/save ~nobody-of-this-name/x", "/retry", "/undo", "/top", "/top x", "/system " + "cat " * 90, "/sho", "caf\udce9",
        "/undo 2", "/exit now",
    ]  # fmt: skip
    _, _, err = talk(talker, InputLines(mistakes + ["the mat", "/top 0", "/top " + "9" * 5000]))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(mistakes) + 2 and all(" (expected " in line for line in errors)
    assert talker.messages[0]["content"] == "the mat" and len(talker.messages) == 2


def test_a_failing_model_does_not_lose_the_conversation(model, tokenizer):
    talker = session(model, tokenizer)

    def break_it(module, inputs, output):
        output.logits.fill_(float("nan"))

    class Breaking(InputLines):
        def readline(self):
            if len(self.lines) == 1:
                model.register_forward_hook(break_it)
            return super().readline()

    try:
        _, _, err = talk(talker, Breaking(["the cat", "the mat"]))
    finally:
        model._forward_hooks.clear()
    assert "error: the model's logits are no numbers" in err
    assert [m["content"] for m in talker.messages[::2]] == ["the cat"]


class InputLines:
    """Standard input whose lines may contain unpaired surrogates."""

    def __init__(self, lines):
        self.lines = [f"{line}\n" for line in lines]

    def readline(self):
        return self.lines.pop(0) if self.lines else ""


def test_dropped_turns_are_reported(model, tokenizer):
    _, _, err = talk(session(model, tokenizer), *["the cat sat on the mat"] * 8)
    assert "[the context is full: the oldest 1 turn no longer reach" in err.replace("turns", "turn")


def test_a_base_model_continues_and_says_so_in_one_line(model, tokenizer):
    talker = session(model, tokenizer, chats=False)
    _, out, err = talk(talker, "the cat", interactive=False)
    assert out == "the cat" + talker.messages[1]["content"] + "\n"
    assert err.count("base model") == 1 and "it continues what you write" in err
    assert "base model" not in talk(session(model, tokenizer), "the cat")[2]


def test_a_script_gets_the_answers_and_nothing_else(model, tokenizer):
    talker = session(model, tokenizer, max_new_tokens=200, temperature=0.5)
    _, out, err = talk(talker, "the cat", "/set max_new_tokens 4", "the mat", interactive=False)
    answers = [m["content"] for m in talker.messages[1::2]]
    assert out == "".join(answer if answer.endswith("\n") else answer + "\n" for answer in answers)
    assert "\x1b" not in out + err and "> " not in out and "tokens/s" not in err


def test_a_script_that_errs_ends(model, tokenizer):
    with pytest.raises(UsageError, match="no command /nothing"):
        talk(session(model, tokenizer), "/nothing", interactive=False)
    marked = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf/help\n"))  # as PowerShell pipes it
    assert "this list" in talk(session(model, tokenizer), marked, interactive=False)[2]


class Speaker(Session):
    """A session that answers with given pieces."""

    pieces: tuple[str, ...] = ()

    def ask(self, text):
        from tinygpt_hf.inference.generation import Step

        for k, piece in enumerate(self.pieces):
            yield Step(0, piece, 1, 1, 0, 0, finish="eos" if k == len(self.pieces) - 1 else None)


def test_model_output_cannot_control_a_terminal_and_markdown_is_unchanged(model, tokenizer):
    speaker = Speaker(model, tokenizer, ChatArguments(model="\x1b[2J"), True)
    speaker.pieces = ("\x1b", "[31m", "red\x9b", "0m\x07")
    _, out, err = talk(speaker, "hi", stdout=Screen())
    assert "␛[31mred" in out and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out + err)
    assert talk(speaker, "hi", interactive=False)[1] == "\x1b[31mred\x9b0m\x07\n"  # to a script it is data
    speaker.pieces = ("# A **b", "**\n- `c`\n", "| d | [e](http://f) |")
    assert "# A **b**\n- `c`\n| d | [e](http://f) |\n" in talk(speaker, "hi", stdout=Screen())[1]


@pytest.mark.parametrize(
    ("screen", "environment", "is_colored"),
    [
        (Screen, {}, True),
        (Screen, {"NO_COLOR": "1"}, False),
        (Screen, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_color_only_on_a_terminal_that_takes_it(model, tokenizer, monkeypatch, screen, environment, is_colored):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _, out, err = talk(session(model, tokenizer), "the cat", stdout=Screen(), stderr=screen())
    assert ("\x1b" in err) == is_colored and "\x1b" not in out


class Interrupting(io.StringIO):
    """A terminal whose user presses Ctrl-C when the nth thing is read or written."""

    encoding = "utf-8"

    def __init__(self, *when, text=""):
        super().__init__(text)
        self.when, self.count = when, 0

    def _maybe(self):
        self.count += 1
        if self.count in self.when:
            raise KeyboardInterrupt

    def write(self, text):
        self._maybe()
        return super().write(text)

    def readline(self):
        self._maybe()
        return super().readline()


def test_ctrl_c_stops_the_answer_and_the_conversation_continues(model, tokenizer):
    talker = session(model, tokenizer, max_new_tokens=40)
    status, _, err = talk(talker, "the cat", "the mat", stdout=Interrupting(6))
    assert status == 0 and "[stopped; Ctrl-C again leaves]" in err
    lengths = [len(tokenizer(m["content"])["input_ids"]) for m in talker.messages[1::2]]
    assert len(lengths) == 2 and 0 < lengths[0] < 20 < lengths[1]


def test_a_second_ctrl_c_leaves(model, tokenizer):
    talker = session(model, tokenizer, max_new_tokens=40)
    stdin = Interrupting(2, text="the cat\nthe mat\n")
    assert talk(talker, stdin, stdout=Interrupting(6))[0] == 130
    stdin = Interrupting(1, 3, text="the cat\nthe mat\n")  # a line between them: the count begins again
    assert talk(session(model, tokenizer), stdin)[0] == 0
    stdin = Interrupting(1, 2, text="the cat\nthe mat\n")
    assert talk(session(model, tokenizer), stdin)[0] == 130


# The command


def test_one_prompt_one_answer_repeatable(folder):
    def answer(**options):
        out, err = io.StringIO(), io.StringIO()
        arguments = ChatArguments(model=str(folder), max_new_tokens=8, **options)
        assert chat(arguments, io.StringIO(), out, err) == 0
        return out.getvalue(), err.getvalue()

    first = answer(prompt="who are you?", seed=3)
    assert first[0].endswith("\n") and first[0].strip()
    assert answer(prompt="who are you?", seed=3) == first
    assert answer(prompt="who are you?", seed=4)[0] != first[0]
    greedy = {answer(prompt="who are you?", temperature=0.0)[0] for _ in range(2)}
    assert len(greedy) == 1


def test_a_template_that_refuses_the_conversation_is_one_line(model):
    strict = train_tokenizer(["x"], "byte")
    strict.chat_template = "{{ raise_exception('no system messages here') }}"
    with pytest.raises(UsageError, match="template refuses the conversation .no system messages here"):
        session(model, strict).ask("hi")


def bare(folder, target, *without):
    """Copy a model folder without these files."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*without))
    return target


def endless(folder, target):
    (bare(folder, target) / "chat_template.jinja").write_text(
        "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
    )
    return target


@pytest.mark.parametrize(
    ("make", "words", "stdin", "message"),
    [
        (None, ["--prompt", ""], b"", "the prompt is empty"),
        (None, ["--prompt", " \n"], b"", "the prompt is empty"),
        (None, ["--prompt", "hi", "--temperature", "-1"], b"", "temperature is -1.0"),
        (lambda *at: "no/such/model", ["--max_new_tokens", "0"], b"", "max_new_tokens is 0"),
        (None, ["--prompt", "the cat " * 90], b"", "context of 96"),
        (None, [], b"", "standard input is empty"),
        (None, [], b" \n\n", "standard input is empty"),
        (None, [], b"caf\xe9\n", "UTF-8"),
        (None, ["--prompt", "caf\udce9"], b"", "UTF-8"),
        (None, ["--prompt", "hi", "--system", "cat " * 200], b"", "context of 96"),
        (None, [], b"/load /no/such/file\n", "/no/such/file"),
        (lambda *at: bare(*at, "tokenizer*"), [], b"hi\n", "holds no tokenizer"),
        (lambda *at: bare(*at, "config.json"), [], b"hi\n", "config.json"),
        (lambda *at: bare(*at, "chat_template*"), ["--system", "a"], b"hi\n", "is a base model, which knows no turns"),
        (endless, [], b"hi\n", "ran longer than 0.5 s"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folder, tmp_path, monkeypatch, capsys, make, words, stdin, message):
    monkeypatch.setattr(template_limits, "_process", None)
    monkeypatch.setattr(template_limits, "SECONDS", 0.5)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
    model = make(folder, tmp_path / "model") if make else folder
    assert main(["chat", str(model), *words]) == 2
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if not line.startswith("[")]
    assert out == "" and len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0], errors


def test_without_a_model_the_newest_finished_run_answers(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["chat", "--prompt", "the cat", "--max_new_tokens", "4", "--seed", "1"]
    assert main(words) == 2
    line = "error: no MODEL is given, and there is no finished run below runs/ (expected a model folder or Hub id). "
    assert capsys.readouterr().err == f"{line}Name one, or make one with tinygpt quickstart.\n"
    records = ('{"finished": true}', '{"finished": true}', '{"finished": false}', "damaged", "[]")
    for k, record in enumerate(records):
        run = tmp_path / "runs" / ("sweep/of 1" if k == 1 else f"of {k}")
        run.mkdir(parents=True)
        if k == 1:
            shutil.copytree(folder, run, dirs_exist_ok=True)
        (run / "run.json").write_text(record)
        os.utime(run / "run.json", (1e9 + k, 1e9 + k))
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out and err.startswith("[the newest finished run: runs/sweep/of 1]\n")


def test_a_model_without_a_template_is_a_base_model(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n"), "utf-8"))
    words = ["--max_new_tokens", "4", "--seed", "1"]
    assert main(["chat", str(bare(folder, tmp_path / "model", "chat_template*")), *words]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("the cat") and "is a base model without a chat turn in its training" in err


class Terminal:
    """`chat` in a pseudo-terminal, with or without prompt_toolkit, with its output and a way to press keys."""

    def __init__(self, folder, home, editor: str):
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a test runner may ignore it
            + ("" if editor == "prompt_toolkit" else "sys.modules['prompt_toolkit'] = None;")
            + "from tinygpt_hf.inference.chat import chat;"
            "from tinygpt_hf.settings.inference import ChatArguments;"
            "sys.exit(chat(ChatArguments(model=sys.argv[1], seed=1, max_new_tokens=60)))"
        )
        self.seen = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        environment = os.environ | {"TERM": "xterm", "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
        environment |= {"HOME": str(home), "PROMPT_TOOLKIT_NO_CPR": "1"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdin=slave, stdout=slave, stderr=slave, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, pattern: bytes, seconds: float = 250) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < end, (pattern, self.seen)
            ready, _, _ = select.select([self._master], [], [], 0.2)
            if ready:
                try:
                    self.seen += os.read(self._master, 65536)
                except OSError:  # the other side is closed
                    break

    def press(self, keys: str) -> None:
        """Type once the program reads single keys; before that, the terminal driver would convert returns to newlines."""
        while termios.tcgetattr(self._master)[3] & termios.ICANON:
            assert self.process.poll() is None
            time.sleep(0.01)
        self.seen = b""
        os.write(self._master, keys.encode())


def test_in_a_real_terminal(folder, tmp_path):
    """Check typing, multi-byte characters, Ctrl-C at the prompt and exit, and that no typed text is written to disk."""
    with Terminal(folder, tmp_path, "input") as terminal:
        terminal.until(rb"/help\s+lists\s+the\s+commands\][^\n]*\n.*>")
        terminal.press("日本語, naïve?\r")
        terminal.until(rb"tokens/s\].*>")
        assert "日本語".encode() in terminal.seen  # the echo
        assert b"\x1b[2m[" in terminal.seen
        terminal.seen = b""
        # `input` gets a signal, which Python keeps until a key is pressed where it comes between printing the prompt and reading
        terminal.process.send_signal(signal.SIGINT)
        terminal.press("\r")
        terminal.until(rb"Ctrl-C again leaves")
        terminal.press("/show\r")
        terminal.until("user: 日本語, naïve\\?".encode())
        terminal.press("exit\r")
        terminal.until(rb"exit")
        assert terminal.process.wait(250) == 0
    assert list(tmp_path.iterdir()) == []


def test_lines_edited_together(folder, tmp_path):
    """Check Alt-Enter, pasted lines, Tab, the history, Ctrl-C and Ctrl-D with prompt_toolkit."""
    pytest.importorskip("prompt_toolkit")
    with Terminal(folder, tmp_path, "prompt_toolkit") as terminal:
        terminal.until(rb"/help\s+lists\s+the\s+commands\][^\n]*\n.*>")
        terminal.press("/set max_new_tokens 3\r")
        terminal.until(rb"max_new_tokens 3\x1b.*>")
        terminal.press("the café\x1b\rsat\r")
        terminal.until(rb"tokens/s\].*>")
        terminal.press("\x1b[200~on the\nmat\x1b[201~\r")
        terminal.until(rb"tokens/s\].*>")
        terminal.press("/sho\t")
        terminal.until(rb"/sho.*w")  # the completion comes from a thread, and alone where the rest was drawn before it
        terminal.press("\r")
        terminal.until("user: the café\r\nsat\x1b.*user: on the\r\nmat\x1b.*>".encode())
        terminal.press("\x1b[A\r")  # what was sent before: /show
        terminal.until("user: the café\r\nsat\x1b.*>".encode())
        terminal.press("\x03")
        terminal.until(rb"Ctrl-C again leaves.*>")
        terminal.press("\x04")
        terminal.until(rb"\n")
        assert terminal.process.wait(250) == 0
    assert list(tmp_path.iterdir()) == []
