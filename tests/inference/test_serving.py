"""`tinygpt serve` answers OpenAI's client with what the model says and nothing else, and ends when it is told to; the same
model exported is served by plain `transformers serve`, in a process that cannot import this package."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import openai
import psutil
import pytest
import torch
from talker import ANSWERS, CONTEXT, STORY, greedy, train_talker
from transformers import GenerationConfig

from tinygpt_hf import cli
from tinygpt_hf.export import stock as stock_format
from tinygpt_hf.inference import loading, serving

QUESTION, ANSWER = next(iter(ANSWERS.items()))
PLAIN_SERVE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tinygpt_hf":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
from transformers.cli.transformers import main
main()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(address: str, seconds: float = 250) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except OSError:
            assert time.monotonic() < end, f"{address} does not answer"
            time.sleep(0.1)


def post(address: str, body: dict) -> str:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=250).read().decode()


def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=250)


def ask(server, text: str, **options):
    messages = [{"role": "user", "content": text}]
    return client(server.address).chat.completions.create(
        model=server.name, messages=messages, temperature=0, **options
    )


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    home = tmp_path_factory.mktemp("talker")
    model, tokenizer = train_talker(home / "own")
    stock_format.write(model, tokenizer, home / "qwen3")
    return SimpleNamespace(home=home, folder=home / "own", model=model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def servers(talker):
    """Start our server and Transformers' own; ours gets a Hub address at which a test server records any request."""
    trap = socket.create_server(("127.0.0.1", 0))
    trap.setblocking(False)
    online = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    online |= {"HF_HOME": str(talker.home / "none"), "HF_ENDPOINT": f"http://127.0.0.1:{trap.getsockname()[1]}"}
    offline = online | {"HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "tinygpt_hf.cli", "serve", "own/", "--port", "0", "--device", "cpu"]
    own = subprocess.Popen(words, cwd=talker.home, env=online, stdout=subprocess.PIPE, text=True)
    port = free_port()
    words = [sys.executable, "-c", PLAIN_SERVE, "serve", "qwen3", "--device", "cpu", "--dtype", "float32"]
    words += ["--port", str(port), "--host", "127.0.0.1"]
    stock = subprocess.Popen(words, cwd=talker.home, env=offline, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        lines = [own.stdout.readline(), own.stdout.readline()]
        assert lines[1], "the server ended before it answered"
        threading.Thread(target=own.stdout.read, daemon=True).start()
        address = lines[0].split(" answers at ")[1].split("/v1")[0]
        wait_for(address)
        own_side = SimpleNamespace(address=address, name="own", lines=lines, process=own, trap=trap)
        wait_for(f"http://127.0.0.1:{port}")
        yield own_side, SimpleNamespace(address=f"http://127.0.0.1:{port}", name="qwen3")
    finally:
        own.kill()
        stock.kill()
        own.wait(), stock.wait(), trap.close()


@pytest.fixture(scope="module")
def server(servers):
    return servers[0]


def test_the_line_it_prints_can_be_copied(server):
    words = shlex.split(server.lines[1])
    assert words[0] == "curl" and words[1] == f"{server.address}/v1/chat/completions"
    answer = json.loads(post(words[1], json.loads(words[words.index("-d") + 1])))
    assert answer["choices"][0]["message"]["content"] == ANSWER


def test_the_models_are_the_one(server):
    assert [model.id for model in client(server.address).models.list()] == ["own"]


@pytest.mark.parametrize("question", ANSWERS)
@pytest.mark.parametrize("which", [0, 1], ids=["tinygpt serve", "transformers serve of the export"])
def test_chat_is_what_generate_says_without_its_control_tokens(servers, talker, which, question):
    turns = [{"role": "user", "content": question}]
    ids = talker.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    expected, margin = greedy(talker.model, ids, 60)
    assert talker.tokenizer.decode(expected) == ANSWERS[question] + "<|im_end|>" and margin > 1
    done = ask(servers[which], question)
    assert done.choices[0].message.content == ANSWERS[question]
    assert done.choices[0].finish_reason == "stop"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (len(ids), len(expected))
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(servers[which], question, stream=True)]
    assert "".join(pieces) == ANSWERS[question] and sum(map(bool, pieces)) > 3


@pytest.mark.parametrize("which", [0, 1], ids=["tinygpt serve", "transformers serve of the export"])
def test_completions_continue_a_text_to_its_end(servers, which):
    completions = client(servers[which].address).completions
    asked = {"model": servers[which].name, "prompt": "One day", "temperature": 0}
    assert completions.create(**asked).choices[0].text == STORY.removeprefix("One day")
    short = completions.create(**asked, max_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3
    assert "".join(chunk.choices[0].text for chunk in completions.create(**asked, stream=True)) == STORY[7:]


@pytest.mark.parametrize(
    ("stop", "said", "reason"),
    [
        (", I am", "Hi", "stop"),  # over several tokens
        (["Pip", "never", ""], "Hi, I am ", "stop"),
        ([], ANSWER, "stop"),
        (["Pip!"], ANSWER, "stop"),  # held back for a while
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [{}, {"logit_bias": {"0": -1000.0}}], ids=["by our engine", "by the library"])
def test_a_stop_string_is_left_out_of_the_answer(server, stop, said, reason, more):
    done = ask(server, QUESTION, stop=stop, **more)
    assert (done.choices[0].message.content, done.choices[0].finish_reason) == (said, reason)
    chunks = [chunk.choices[0] for chunk in ask(server, QUESTION, stop=stop, stream=True, **more)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == said and chunks[-1].finish_reason == reason
    length = done.usage.completion_tokens  # found with the last token there may be, it is still the reason
    assert (
        ask(server, QUESTION, stop=stop, max_tokens=length, **more).choices[0].finish_reason == "stop" or said == ANSWER
    )


def test_a_stop_string_ends_a_text_too(server):
    completions = client(server.address).completions
    asked = {"model": "own", "prompt": "One day", "temperature": 0, "stop": "Pip"}
    assert completions.create(**asked).choices[0].text == " a small dog named "
    pieces = [chunk.choices[0] for chunk in completions.create(**asked, stream=True)]
    assert "".join(piece.text for piece in pieces) == " a small dog named " and pieces[-1].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="stop is"):
        completions.create(**asked | {"stop": [5]})


def test_a_stream_ends_as_openai_says(server):
    hello = {"model": "own", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    for route, body in {
        "chat/completions": hello,
        "completions": {"model": "own", "stream": True, "prompt": "One day"},
        "chat/completions?": hello | {"messages": [{"role": "user", "content": "Pip " * CONTEXT}]},
    }.items():
        events = post(f"{server.address}/v1/{route}", body).split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""] and "[DONE]" not in "".join(events[:-2])
        parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        assert ("error" in parsed[-1]) == ("?" in route)


def test_a_seed_gives_the_same_answer_however_many_ask(server):
    def say(seed, **options):
        made = client(server.address).completions.create(
            model="own", prompt="One day", max_tokens=12, temperature=3.0, seed=seed, **options
        )
        if "stream" in options:
            return "".join(chunk.choices[0].text for chunk in made)
        return made.choices[0].text

    alone = [say(seed) for seed in range(3)]
    assert len(set(alone)) == 3 and say(1, stream=True) == alone[1] and say(1, stop="\0") == alone[1]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(say, [0, 1, 2, 0, 1, 2])) == alone * 2


def test_a_request_samples_only_with_a_temperature(server):
    completions = client(server.address).completions
    asked = {"model": "own", "prompt": "One day", "max_tokens": 12}
    greedy_text = completions.create(**asked).choices[0].text
    assert STORY.startswith(f"One day{greedy_text}")
    assert {completions.create(**asked, temperature=3.0).choices[0].text for _ in range(3)} != {greedy_text}


def test_a_frequency_penalty_is_the_repetition_penalty_of_transformers(server, talker):
    completions = client(server.address).completions
    asked = {"model": "own", "prompt": "One day", "temperature": 0, "max_tokens": 40}
    ids = talker.tokenizer("One day", return_tensors="pt")["input_ids"]
    expected = talker.model.generate(ids, max_new_tokens=40, do_sample=False, repetition_penalty=2.5)
    text = talker.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert text != STORY.removeprefix("One day")
    assert completions.create(**asked, frequency_penalty=1.5).choices[0].text == text
    with pytest.raises(openai.BadRequestError, match="penalty"):
        completions.create(**asked, frequency_penalty=-1.0)


def test_an_answer_without_end_ends_with_the_context(server, talker):
    never = dict.fromkeys(map(str, talker.model.generation_config.eos_token_id), -1000.0)
    done = ask(server, QUESTION, logit_bias=never)
    assert done.usage.total_tokens == CONTEXT and done.choices[0].finish_reason == "length"
    last = list(ask(server, QUESTION, logit_bias=never, stream=True))[-1]
    assert last.usage.total_tokens == CONTEXT and last.choices[0].finish_reason == "length"


def test_what_cannot_be_answered_is_a_400_with_its_reason(server):
    def refused(text, **options):
        with pytest.raises(openai.BadRequestError) as refusal:
            ask(server, text, **options)
        return refusal.value.body["message"]

    assert "context is 192" in refused("Pip " * CONTEXT)
    assert "'own'; requested 'gpt2'" in refused(QUESTION, extra_body={"model": "gpt2"})
    assert "KeyError: 'role'" in refused(QUESTION, extra_body={"messages": [{"content": "Hello!"}]})
    with pytest.raises(openai.APIError) as broken_off:
        list(ask(server, "Pip " * CONTEXT, stream=True))
    assert "context is 192" in broken_off.value.body
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        client(server.address).completions.create(model="own", prompt="")


def test_a_request_may_have_all_fields_of_training_data_and_others_are_refused(server):
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "Rain"}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "Hm.", "reasoning_content": "Look up.", "tool_calls": [call]},
        {"role": "tool", "content": "dry", "tool_call_id": "a"},
    ]

    def read(messages, **more) -> int:
        """Return the number of tokens that the server has read."""
        answer = client(server.address).chat.completions.create(
            model=server.name, messages=messages, max_tokens=1, **more
        )
        return answer.usage.prompt_tokens

    plain = [
        {"role": "user", "content": "Rain?"},
        {
            "role": "assistant",
            "content": "<think>\nLook up.\n</think>\n\nHm.\n"
            '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>',
        },
        {"role": "user", "content": "<tool_response>\ndry\n</tool_response>"},
    ]
    assert read(talk) == read(plain)
    with pytest.raises(openai.BadRequestError, match="context is 192"):  # the tools are read too
        read(talk, tools=tools)
    for messages, words in (
        ([{"role": "user", "content": "Hi", "name": "Bob"}], "no place for `name` of message 1"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}],
            "message 1 has `image_url`",
        ),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            read(messages)


def test_no_request_brings_another_model_or_takes_this_one_away(server):
    assert '"error"' in post(f"{server.address}/load_model", {"model": "gpt2"})
    assert '"ready"' in post(f"{server.address}/load_model", {"model": "own"})
    post(f"{server.address}/reset", {})
    assert ask(server, QUESTION).choices[0].message.content == ANSWER


def test_it_listens_on_this_machine_alone_and_leaves_the_hub_alone(server):
    listening = [c.laddr for c in psutil.Process(server.process.pid).net_connections() if c.status == "LISTEN"]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    with pytest.raises(BlockingIOError):  # nobody knocked
        server.trap.accept()


def serve_here(folder, ending: signal.Signals, visit=lambda address: None) -> int:
    """Run `tinygpt serve` in this process, visit it, and send the signal; returns the exit status."""
    port, failures = free_port(), []

    def visitor():
        try:
            wait_for(f"http://127.0.0.1:{port}")
            visit(f"http://127.0.0.1:{port}")
        except BaseException as error:
            failures.append(error)
        os.kill(os.getpid(), ending)

    thread = threading.Thread(target=visitor)
    thread.start()
    status = cli.main(["serve", str(folder), "--port", str(port), "--device", "cpu"])
    thread.join()
    if failures:
        raise failures[0]
    return status


@pytest.mark.parametrize(
    ("ending", "status", "line"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "stopped by SIGTERM\n")],
)
def test_a_signal_ends_it_in_the_middle_of_an_answer(talker, capsys, monkeypatch, ending, status, line):
    steps, goes_on, waited = [], threading.Event(), []

    def stuck(module, inputs):
        steps.append(inputs)
        if len(steps) > 20:
            waited.append(goes_on.wait(200))

    def load_model(*arguments):
        model, tokenizer = loading.load_model(*arguments)
        model.model.norm.register_forward_pre_hook(stuck)
        return model, tokenizer

    def visit(address):
        here = SimpleNamespace(address=address, name=str(talker.folder))
        stream = iter(ask(here, QUESTION, logit_bias={"0": -1000.0, "3": -1000.0}, stream=True))
        assert [next(stream) for _ in range(3)][2].choices[0].delta.content

    monkeypatch.setattr(serving, "load_model", load_model)
    assert serve_here(talker.folder, ending, visit) == status
    assert not waited and steps  # the answer is still being made
    goes_on.set()
    assert capsys.readouterr().err == line


def test_a_model_that_has_not_learned_turns_says_so(talker, tmp_path, capsys):
    folder = shutil.copytree(talker.folder, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    refusals = []

    def visit(address):
        with pytest.raises(openai.BadRequestError, match="chat template") as refusal:
            ask(SimpleNamespace(address=address, name=str(folder)), QUESTION)
        refusals.append(refusal)

    assert serve_here(folder, signal.SIGINT, visit) == 130 and refusals
    lines = capsys.readouterr().out.splitlines()
    assert "/v1/completions -H" in lines[1] and '"prompt"' in lines[1]
    assert lines[2] == "It has not learned to converse: /v1/completions continues texts."


def failing(capsys, *words) -> str:
    assert cli.main(["serve", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_mistakes_are_one_line_before_anything_is_loaded(talker, tmp_path, capsys, monkeypatch):
    assert "no MODEL is given" in failing(capsys, "--port", 0)
    assert "it holds no config.json" in failing(capsys, tmp_path, "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failing(capsys, tmp_path, "--port", port)
        assert line.startswith(f"error: 127.0.0.1 port {port} cannot be served on (Address already in use")
    assert "port 70000 cannot be served on" in failing(capsys, talker.folder, "--port", 70000)
    assert "cannot be served on" in failing(capsys, talker.folder, "--port", 0, "--host", "192.0.2.1")
    assert ".. port 0 cannot be served on" in failing(capsys, talker.folder, "--port", 0, "--host", "..")
    endless = shutil.copytree(talker.folder, tmp_path / "endless")
    rounds = "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}"
    (endless / "chat_template.jinja").write_text(rounds)
    assert "chat template" in failing(capsys, endless, "--port", 0)
    monkeypatch.setattr("transformers.utils.import_utils.is_serve_available", lambda: False)
    assert "Run pip install 'tinygpt_hf[serve]'" in failing(capsys, talker.folder)


@pytest.mark.parametrize(
    "wishes",
    [
        {"do_sample": False, "max_new_tokens": 9},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 9},
        {"do_sample": False, "repetition_penalty": 1.5},
        {"do_sample": True, "temperature": -1.0},
        {"do_sample": False, "stop_strings": ["a"]},
        {"num_beams": 2, "max_new_tokens": 9},
    ],
    ids=str,
)
def test_the_engine_answers_what_it_can_as_the_library_does(talker, wishes, monkeypatch):
    model, tokenizer = loading.load_model(str(talker.folder))
    ids = torch.tensor([tokenizer("Once upon a time")["input_ids"]])
    heard, engine_used = [], []
    answer = serving.generate_with_engine
    monkeypatch.setattr(serving, "generate_with_engine", lambda *inputs: engine_used.append(1) or answer(*inputs))
    streamer = SimpleNamespace(
        put=lambda value: heard.append(value.flatten().tolist()), end=lambda: heard.append("end")
    )
    serving.limit_generation(model, tokenizer)
    options = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "tokenizer": tokenizer}

    def say(**more):
        return model.generate(**options, generation_config=GenerationConfig(**wishes), **more)

    if wishes.get("temperature") == -1.0:
        with pytest.raises(ValueError, match="temperature"):
            say()
        return
    torch.manual_seed(3)
    made = say(**({} if "num_beams" in wishes else {"streamer": streamer}))
    torch.manual_seed(3)
    assert torch.equal(say(), made)
    assert bool(engine_used) == ("num_beams" not in wishes)
    if "num_beams" not in wishes:
        assert [heard[0], *heard[-1:]] == [ids[0].tolist(), "end"]
        assert sum(heard[:-1], []) == made[0].tolist()
    if not wishes.get("do_sample") and engine_used:
        wishes |= {"output_scores": True}  # the library's own loop
        assert torch.equal(say(), made) and len(engine_used) == 2
