"""A folder that holds a part of the run already, or another one."""

from models import tiny_llava
from sweep_inputs import deterministic_results, deterministic_samples, sweep


def test_cut_in_the_middle_of_a_batch_it_goes_on_as_if_it_never_stopped(model, tmp_path):
    arguments = ["--method", "random", "--token-budget", "0.5", "--no-report"]
    code = sweep(model, tmp_path / "run", *arguments)
    path = tmp_path / "run" / "samples.jsonl"
    whole, expected, cells = path.read_bytes(), deterministic_samples(path.parent), deterministic_results(path.parent)
    (path.parent / "results.json").unlink()
    path.write_bytes(whole[: whole.index(b"\n") + 40])
    assert sweep(model, tmp_path / "run", *arguments) == code
    assert deterministic_samples(path.parent) == expected
    assert deterministic_results(path.parent) == cells


def test_another_configuration_is_refused(model, tmp_path, capsys):
    sweep(model, tmp_path, "--method", "random", "--token-budget", "0.5")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert sweep(model, tmp_path, "--method", "random", "--token-budget", "0.5", "--seed", "1") == 2
    message = capsys.readouterr().err
    assert "--seed was 0 and is 1" in message
    assert "--output" in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_weights_under_the_same_name_are_refused(tmp_path, capsys):
    for seed in (0, 1):
        tiny_llava(tmp_path / "model", adapters=False, seed=seed)
        code = sweep(str(tmp_path / "model"), tmp_path / "run", "--method", "full")
    assert code == 2
    assert "SHA-256 of the weights was" in capsys.readouterr().err


def test_ctrl_c_says_that_the_same_command_resumes(model, tmp_path, capsys, monkeypatch):
    from adallava.model import AdaLlava

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(AdaLlava, "generate", interrupted)
    assert sweep(model, tmp_path, "--method", "random") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("the same command resumes")
