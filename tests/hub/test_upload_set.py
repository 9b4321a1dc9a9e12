"""Test what may be pushed to the Hub: valid names, files of the allow-list, no secrets, no links, snapshots."""

import json
import shutil

import pytest

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.hub import upload_set
from tinygpt_hf.settings.hub import check_also, check_repository, check_revision

pytest_plugins = ("hub_client",)


@pytest.mark.parametrize("name", ["alice/tiny", "A_1/x.y-z_2", "alice/" + "x" * 90])
def test_names_the_hub_can_have(name):
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    assert check_repository(name, "MODEL") == name


@pytest.mark.parametrize(
    "name",
    ["a/b/c", "../evil", "me/my model", "me/..", "/me", "me/", "me/a--b", "me/x.git", "-me/x", "me/x.", "me/" + "x" * 99,
     "me/é", "me/a\nb", "https://huggingface.co/me/x"],
)  # fmt: skip
def test_names_the_hub_cannot_have(name):
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with pytest.raises(UsageError, match="user/name"):
        check_repository(name, "--hub_model_id")
    if name not in ("/me", "me/", "me/.."):  # here it is laxer than the Hub itself
        with pytest.raises(HFValidationError):
            validate_repo_id(name)


def test_a_push_names_its_user_and_a_pull_need_not():
    assert check_repository("gpt2", "MODEL", owned=False) == "gpt2"
    with pytest.raises(UsageError, match="--hub_model_id is 'gpt2'"):
        check_repository("gpt2", "--hub_model_id")


def test_revisions_and_what_goes_along():
    for name in (None, "main", "v1.0", "a/b"):
        assert check_revision(name, branch=True) == name
    assert check_revision("0" * 40, branch=False) == "0" * 40
    for name in ("", "a..b", "-x", "a//b", "a b", "x.lock", "a/", "/a", "0" * 40):
        with pytest.raises(UsageError, match="branch"):
            check_revision(name, branch=True)
    assert check_also(["exports,dataset", "dataset"]) == ["dataset", "exports"]
    with pytest.raises(UsageError, match="weights"):
        check_also(["weights"])


def test_secrets_are_found_where_they_stand_and_words_of_a_vocabulary_are_none(model, monkeypatch):
    fine = upload_set.select_files(model, "alice/tiny", upload_set.RUN)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    words = "TOKEN SECRET = : abc Authorization :// x@y Bearer &key= sk- -----BEGIN".split() + [
        "-----BEGIN PRIVATE KEY"
    ]
    tokenizer["model"]["vocab"] |= {word: 1000 + k for k, word in enumerate(words)}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
    upload_set.check_secrets(fine)

    def place_of(name: str, text: str) -> str:
        before = (model / name).read_bytes()
        (model / name).write_text(text)
        with pytest.raises(UsageError, match=f"{name} holds a secret") as error:
            upload_set.check_secrets(fine)
        (model / name).write_bytes(before)
        return str(error.value)

    token = "hf_" + "Zq" * 17
    said = place_of("README.md", f"# Tiny\n\nlog in with {token} first\n")
    assert "(line 3, after 'hf_')" in said and "Zq" not in said
    tokenizer["model"]["vocab"][token] = 2000
    assert "Zq" not in place_of("tokenizer.json", json.dumps(tokenizer))
    config = json.loads((model / "config.json").read_text())
    assert "Zq" not in place_of("config.json", json.dumps(config | {"WANDB_API_KEY": "Zq" * 12}))
    assert "Zq" not in place_of("run.yaml", "data: {train_file: ['https://me:ZqZqZq@host/x']}\n")
    monkeypatch.setenv("DATABASE_PASSWORD", "ZqZqZqZqZq")
    assert "Zq" not in place_of("chat_template.jinja", "{# ZqZqZqZqZq #}")
    upload_set.check_secrets(fine)


def test_a_secret_in_the_notes_of_weights_is_found(model):
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    save_file(weights, model / "model.safetensors", {"format": "pt", "from": "hf_" + "Zq" * 17})
    with pytest.raises(UsageError, match="model.safetensors holds a secret"):
        upload_set.collect_files(model, "alice/tiny", [], {})


def test_an_export_goes_whole(model):
    names = ["config.json", "export.json", "model.gguf", "model.onnx", "model.onnx.data", "tokenizer.json"]
    (model / "exports" / "onnx").mkdir(parents=True)
    for name in names:
        (model / "exports" / "onnx" / name).write_bytes(b"{}")
    (_, export), _ = upload_set.collect_files(model, "alice/tiny", ["exports"], {})
    assert list(export.files) == names and export.left_out == []


def test_a_snapshot_does_not_change_with_the_folder(model):
    upload = upload_set.select_files(model, "alice/tiny", upload_set.RUN)
    before = {name: storage.file_hash(path) for name, path in upload.files.items()}
    snapshot = upload_set.snapshot(upload, model / "tmp-x")
    for name in ("model.safetensors", "README.md"):
        storage.write_file(model / name, b"later")
    assert {name: storage.file_hash(path) for name, path in snapshot.files.items()} == before
    assert snapshot.files["model.safetensors"].stat().st_nlink == 1  # no second copy was made while the first was there


def test_the_corpus_of_a_run_is_in_it_or_named_by_its_settings(model, tmp_path):
    assert upload_set.corpus_of(model) is None
    (model / "run.yaml").write_text("data: [1]\n")
    assert upload_set.corpus_of(model) is None
    corpus = tmp_path / "corpus"
    (corpus / "data").mkdir(parents=True)
    (corpus / "corpus.json").write_text("{}")
    (model / "run.yaml").write_text(f"data:\n  train_file: [{tmp_path / 'x.txt'}, {corpus}]\n")
    assert upload_set.corpus_of(model) == corpus
    shutil.copytree(corpus, model / "corpus")
    assert upload_set.corpus_of(model) == model / "corpus"
