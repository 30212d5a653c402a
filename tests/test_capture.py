import pytest
import torch
from torch import nn

from horinsight.capture import capture, evaluation


def num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_records_inputs_and_outputs_of_every_call():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    x = torch.randn(3, 2)
    with capture({"linear": shared, "relu": model[1]}) as calls:
        y = model(x)
    assert len(calls["linear"]) == 2
    assert calls["linear"][0].input is x
    assert calls["relu"][0].input is calls["linear"][0].output
    assert calls["linear"][1].output is y


def test_keep_reduces_what_is_stored():
    model = nn.Linear(2, 4)
    with capture({"m": model}, keep=lambda module, call: (module.out_features, call.output.shape)) as kept:
        model(torch.zeros(3, 2))
    assert kept["m"] == [(4, (3, 4))]


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no")


def test_hooks_go_home_after_success_and_after_errors():
    model = nn.Sequential(nn.Linear(2, 2), Raises())
    with capture({"a": model[0]}):
        assert num_hooks(model) == 2, "one before and one after"
    assert num_hooks(model) == 0
    with pytest.raises(RuntimeError, match="no"), capture({"a": model[0], "b": model[1]}) as calls:
        model(torch.zeros(1, 2))
    assert num_hooks(model) == 0
    assert len(calls["a"]) == 1
    with pytest.raises(KeyboardInterrupt), capture({"a": model[0]}):
        raise KeyboardInterrupt
    assert num_hooks(model) == 0
    with pytest.raises(TypeError, match="'b'"), capture({"a": model[0], "b": "not a module"}):
        pass
    assert num_hooks(model) == 0


def test_other_hooks_stay():
    model = nn.Linear(2, 2)
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    with capture({"m": model}):
        model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))
    assert len(seen) == 2


def test_evaluation_gives_every_flag_back():
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    model[2].eval()
    model[1].bias.requires_grad_(False)
    for error in (None, ValueError):
        try:
            with evaluation(model) as lent:
                assert not any(part.training for part in lent.modules())
                assert not any(p.requires_grad for p in lent.parameters())
                if error:
                    raise error
        except ValueError:
            pass
        assert [part.training for part in model.modules()] == [True, True, True, False]
        assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
