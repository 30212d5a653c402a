"""Options as one value: described, checked, hashed, and derived into a command."""

from dataclasses import dataclass, fields, replace
from typing import Literal, get_type_hints

import click
import pytest
from click.testing import CliRunner

from horinsight.cli.value_options import value_options
from horinsight.interaction.spectrum_options import BlockSpectrumKeywords, SpectrumKeywords, SpectrumOptions
from horinsight.options import check_fields, fingerprint, made, option, options_of, settings


@dataclass(frozen=True, kw_only=True)
class Tea:
    """Options nobody else has."""

    minutes: int = option(4, "How long it draws.", flag="--minutes", metavar="M", least=1)
    sugar: int | None = option(None, "Lumps.", flag="--sugar", least=0, default_in_words="the guest's")
    kind: Literal["green", "black"] = option("black", "Which leaves.", flag="--kind")
    milk: bool = option(True, "Leave the milk out.", flag="--plain", negated=True)
    guests: tuple[str, ...] = option((), "Who drinks it.", flag="--guest", metavar="NAME")
    cups: int = option(2, "Poured at once.", changes_result=False)

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minutes": 0}, "minutes expects a whole number of at least 1, got 0."),
        ({"minutes": 2.5}, "minutes expects a whole number of at least 1, got 2.5."),
        ({"minutes": True}, "minutes expects a whole number of at least 1, got True."),
        ({"sugar": -1}, "sugar expects a whole number of at least 0, got -1."),
        ({"kind": "red"}, "kind expects one of green, black, got 'red'."),
        ({"milk": 1}, "milk expects True or False, got 1."),
    ],
)
def test_wrong_values_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Tea(**given)


def test_every_field_says_what_it_is():
    assert [(one.name, one.setting, one.optional, one.choices) for one in options_of(Tea)] == [
        ("minutes", "minutes", False, ()),
        ("sugar", "sugar", True, ()),
        ("kind", "kind", False, ("green", "black")),
        ("milk", "plain", False, ()),
        ("guests", "guest", False, ()),
        ("cups", "cups", False, ()),
    ]


def test_settings_are_named_as_the_command_line_names_them():
    assert settings(Tea(milk=False, guests=("Ann", int))) == {
        "minutes": 4,
        "sugar": None,
        "kind": "black",
        "plain": True,
        "guest": ["Ann", "int"],
        "cups": 2,
    }
    assert "cups" not in settings(Tea(), relevant=True)


def test_fingerprints_differ_where_results_can():
    whole = fingerprint(Tea())
    assert fingerprint(Tea(cups=9)) == whole
    others = [Tea(minutes=5), Tea(sugar=0), Tea(kind="green"), Tea(milk=False), Tea(guests=("Ann",))]
    assert len({whole, *map(fingerprint, others)}) == 6


def test_a_command_derives_its_options():
    @click.command()
    @value_options(Tea, name="tea")
    def serve(tea: Tea) -> None:
        click.echo(repr(tea))

    run = CliRunner().invoke
    assert run(serve, []).output.strip() == repr(Tea())
    given = ["--minutes", "3", "--sugar", "1", "--kind", "green", "--plain", "--guest", "Ann", "--guest", "Bob"]
    expected = Tea(minutes=3, sugar=1, kind="green", milk=False, guests=("Ann", "Bob"))
    assert run(serve, given).output.strip() == repr(expected)
    assert run(serve, ["--minutes", "0"]).exit_code == 2
    text = run(serve, ["--help"]).output
    for words in ("--minutes M", "How long it draws.", "[default: 4", "[default: the guest's]", "[green|black]"):
        assert words in text
    assert "--cups" not in text


def test_keyword_arguments_replace_what_the_options_say():
    tea = Tea(minutes=3)
    assert made(Tea, tea, {"kind": "green"}, caller="serve") == replace(tea, kind="green")
    assert made(Tea, None, {}, caller="serve") == Tea()
    with pytest.raises(TypeError, match=r"serve got an unexpected keyword argument 'lemon': its options are minutes"):
        made(Tea, tea, {"lemon": 1}, caller="serve")
    with pytest.raises(TypeError, match=r"serve expects options of class Tea, got SpectrumOptions\."):
        made(Tea, SpectrumOptions(), {}, caller="serve")


def test_the_keywords_for_type_checkers_are_the_fields():
    names = {field.name for field in fields(SpectrumOptions)}
    hints = get_type_hints(SpectrumOptions)
    assert set(get_type_hints(SpectrumKeywords)) == names - {"scope"}, "an operator is no block"
    assert set(get_type_hints(BlockSpectrumKeywords)) == names | {"model_name", "image_names"}
    for name, hint in get_type_hints(BlockSpectrumKeywords).items():
        assert name in ("nonlinear", "model_name", "image_names") or hint == hints[name], name


def test_one_declared_class_may_stand_alone():
    assert SpectrumOptions(nonlinear="MyNorm").nonlinear == ("MyNorm",)
    assert SpectrumOptions(nonlinear=["A", "B"]).nonlinear == ("A", "B")
    with pytest.raises(ValueError, match="nonlinear declares tangents"):
        SpectrumOptions(nonlinear=["A"], explicit=False)


def test_a_result_keeps_the_names_of_what_was_declared():
    class Norm:
        pass

    recorded = SpectrumOptions(nonlinear=[Norm, "Other", 3]).recorded()
    assert recorded.nonlinear == ("Norm", "Other", 3)
    assert recorded.recorded() == recorded
