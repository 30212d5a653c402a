import copy

import pytest
import torch
from torch import nn

from horinsight.capture import Call, capture, evaluation, replaced, running, wrapped_forward


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


def test_evaluation_of_a_model_built_in_inference_mode():
    with torch.inference_mode():
        model = nn.Linear(2, 2).train()
    with evaluation(model):
        assert not model.training
        model(torch.zeros(1, 2))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


class WritesIntoItsInput(nn.Module):
    def forward(self, x, mask=None):
        x += 1
        return 2 * x


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_input_is_kept_as_it_was_before_the_module_wrote_into_it(mode):
    module = WritesIntoItsInput()
    with mode(), capture({"m": module}) as calls:
        module(torch.zeros(2))
        module(x=torch.ones(2))
        module(mask=None, x=torch.full((2,), 5.0)[:1])  # a view of something larger
    assert [call.input.tolist() for call in calls["m"]] == [[0, 0], [1, 1], [5]]
    assert [call.output.tolist() for call in calls["m"]] == [[2, 2], [4, 4], [12]]
    assert [call.number for call in calls["m"]] == [1, 2, 3]


def test_an_input_that_nobody_writes_into_is_not_copied():
    module, x = nn.Linear(2, 2), torch.zeros(1, 2, requires_grad=True)
    with capture({"m": module}) as calls:
        module(x)
        module(input=x)
    assert all(call.input is x for call in calls["m"])


def test_calls_by_keyword():
    module = nn.Bilinear(2, 3, 1)
    left, right = torch.zeros(1, 2), torch.zeros(1, 3)
    with capture({"m": module}) as calls:
        module(left, input2=right)
        module(input2=right, input1=left)
    first, second = calls["m"]
    assert first.input is second.input is left
    assert first.inputs == (left,)
    assert first.kwargs == {"input2": right}
    assert (second.inputs, second.kwargs) == ((), {"input1": left, "input2": right})
    with pytest.raises(ValueError, match="called with a tensor, got list"):
        Call(([left],), left).input  # noqa: B018


def test_a_module_that_calls_itself():
    class Countdown(nn.Module):
        def forward(self, x):
            if x.item() > 0:
                y = self(x - 1)
                x -= 100
                return y
            return x

    module = Countdown()
    with capture({"m": module}) as calls:
        module(torch.tensor([2.0]))
    assert [call.input.item() for call in calls["m"]] == [0, 1, 2], "innermost first"


def test_copies_are_not_taken_for_the_module():
    module = nn.Linear(2, 2)
    with capture({"m": module}) as calls:
        copy.deepcopy(module)(torch.zeros(1, 2))
    assert calls["m"] == []


def test_replaced_inputs_and_outputs():
    class Adds(nn.Module):
        def forward(self, x, *, y=None):
            return x + y

    module, one = Adds(), torch.ones(1)
    with replaced(module, input=lambda x, call: 10 * call * x, output=lambda out, call: -out):
        assert module(one, y=one).item() == -11
        assert module(x=one, y=one).item() == -21, "the second call"
    assert module(one, y=one).item() == 2
    assert num_hooks(module) == 0
    with pytest.raises(RuntimeError, match="no"), replaced(Raises(), output=lambda out, call: out) as _:
        Raises()(one)


def test_what_is_running():
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
    model[1] = model[0]  # called twice
    seen = []
    with running(model) as inside, wrapped_forward(model[0][0], lambda _: lambda x: seen.append(list(inside)) or x):
        model(torch.zeros(1))
        assert inside == []
    assert seen == [[("", 1), ("0", 1), ("0.0", 1)], [("", 1), ("0", 2), ("0.0", 2)]]
    assert num_hooks(model) == 0
