import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from capgap.cli import main
from capgap.distillation import DistillConfig, distill
from capgap.distillation.students.loading import fingerprint, loaded
from capgap.errors import ModelError
from capgap.models import parse_model
from capgap.models.checkpoint import locate
from tests.distillation.conftest import save_checkpoint, sums, write_jsonl
from tests.models.tiny_gguf import make_gguf, make_llama


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A checkpoint of the years before safetensors."""
    folder = save_checkpoint(tmp_path / "pickled", seed=3)
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_loaded_only_where_the_user_says_so(
    pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ModelError, match="--allow-pickle"):
        locate(parse_model(str(pickled)))
    spec = parse_model(f"{pickled},allow_pickle=on")
    model, _ = loaded(spec, locate(spec))
    assert model.num_parameters() > 1000

    file = tmp_path / "pilot.yaml"
    write_jsonl(tmp_path / "sums.jsonl", sums())
    file.write_text(
        f"name: pilot\nstudent: {pickled}\ndata: {{file: sums.jsonl}}\nsupervision: gold_answers\n"
        "training: {max_steps: 2, batch_size: 4, lr: 0.01}\n"
    )
    command = ["distill", str(file), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    assert "--allow-pickle" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--allow-pickle"])
    assert stopped.value.code == 0
    assert json.loads((tmp_path / "out/capgap.json").read_text())["base"].endswith(",allow_pickle=on")


def test_a_pickle_that_holds_more_than_tensors_is_refused_even_where_pickles_are_allowed(pickled: Path, tmp_path: Path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model.embed_tokens.weight": Hostile()}, pickled / "pytorch_model.bin")
    spec = parse_model(f"{pickled},allow_pickle=on")
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(spec, locate(spec))
    assert not (tmp_path / "ran").exists()


def test_a_change_of_pickled_weights_is_another_model(pickled: Path):
    spec = parse_model(f"{pickled},allow_pickle=on")
    before = fingerprint(spec, locate(spec))
    weights = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    torch.save({key: value + 1 for key, value in weights.items()}, pickled / "pytorch_model.bin")
    assert fingerprint(spec, locate(spec)) != before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_student_and_a_teacher_may_lie_in_gguf_files(tmp_path: Path, make_config: Callable[..., DistillConfig]):
    pytest.importorskip("gguf")
    plain = make_llama(tmp_path / "plain")
    packed = make_gguf(tmp_path / "packed.gguf", plain)
    from_file, _ = loaded(spec := parse_model(str(packed)), locate(spec))
    from_folder, _ = loaded(spec := parse_model(str(plain)), locate(spec))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(from_file(ids).logits, from_folder(ids).logits, atol=1e-4)
    config = make_config(
        student=str(packed),
        teacher=str(packed),
        supervision="logits",
        texts="gold_answers",
        training={"max_steps": 2, "batch_size": 4, "lr": 0.01},
    )
    made = distill(config, tmp_path / "out", device="cpu")
    assert (made / "model.safetensors").is_file()
    assert json.loads((made / "capgap.json").read_text())["base"] == "../packed.gguf"
