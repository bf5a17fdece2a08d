from __future__ import annotations

import pytest
import torch

from nasbench_at.cli import main
from nasbench_at.config.architecture import Architecture
from nasbench_at.networks.zoo import create_model, load_published_weights
from nasbench_at.records import read_record
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.networks.test_authors import authors_state
from tests.nasbench_at.networks.zoo.test_wide_resnet import TheirNetwork


def test_own_layout_is_loaded_in_place():
    net, other = (create_model("tiny_wrn", 10, (1, 8, 8)) for _ in range(2))
    assert load_published_weights(other, net.state_dict()) is other
    assert torch.equal(other.fc.weight, net.fc.weight)


def test_wide_resnet_of_trades_is_recognised():
    theirs, ours = TheirNetwork().eval(), create_model("wrn_16_2").eval()
    x = torch.rand(2, 3, 32, 32)
    assert load_published_weights(ours, theirs.state_dict()) is ours
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*attention logits")
def test_ds_net_of_its_authors_is_recognised():
    net = create_model("tiny_ds_net").eval()
    width = net.stem.out_channels
    arch = Architecture(num_modules=3, init_channels=width, widen_factor=2)
    loaded = load_published_weights(net, authors_state(net, arch))
    with torch.no_grad():
        net.attention.logits.zero_()  # their checkpoints have none
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*attention logits")
def test_ds_net_of_another_size_is_refused():
    net = create_model("tiny_ds_net")
    width = net.stem.out_channels
    arch = Architecture(num_modules=3, init_channels=width, widen_factor=2)
    with pytest.raises(ValueError, match="the checkpoint is of a DS-Net of another size"):
        load_published_weights(create_model("ds_net_4"), authors_state(net, arch))


def test_other_weights_are_refused_in_one_line():
    state = create_model("tiny_densenet").state_dict()
    with pytest.raises(ValueError, match="Missing key") as error:
        load_published_weights(create_model("tiny_resnet"), state)
    one_line(error)


def test_network_by_name_is_evaluated_with_a_file_of_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(create_model("tiny_densenet", 4, (1, 8, 8)).state_dict(), "w.pt")
    words = ["evaluate", "--model", "tiny_densenet", "--weights", "w.pt", "--data", "stripes"]
    words += ["--attacks", "fgsm", "--eps", "0.1", "--device", "cpu"]
    assert main(words) == 0
    record = read_record(capsys.readouterr().out.splitlines()[-1])
    assert record.run_id.startswith("tiny_densenet-")
    assert record.results["fgsm"].num_samples == 24
    assert main([*words, "--weights", "none.pt"]) == 2
    assert "weights must be an existing file, got 'none.pt'" in capsys.readouterr().err
