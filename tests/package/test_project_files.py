"""What surrounds the code: citation, conda recipe, workflows, which call the Makefile and nothing else, forms."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import vae_fast as vf

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
in_a_checkout = pytest.mark.skipif(not GITHUB.is_dir(), reason="needs the source tree: .github is missing")
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
FORMS = [path for path in sorted(GITHUB.glob("ISSUE_TEMPLATE/*.yml")) if path.name != "config.yml"]


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {*re.findall(r"^([a-z][a-z0-9-]*):(?!=)", makefile, re.M)}


def jobs():
    return [job for path in WORKFLOWS for job in read(path)["jobs"].values()]


def test_the_makefile_s_targets_are_phony():
    """None is the name of a file that would stand in its way."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    assert {*phony.split()} == targets() >= {"help", "test", "lint", "docs", "wheel", "release"}


@in_a_checkout
def test_there_are_workflows():
    assert [path.stem for path in WORKFLOWS] == ["docs", "lint", "tests", "wheels"]


@in_a_checkout
def test_workflows_call_the_makefile():
    """Nothing is done there that cannot be done here by the same command."""
    commands = [step["run"] for job in jobs() for step in job["steps"] if "run" in step]
    assert len(commands) == 4
    for command in commands:
        make, target, *variables = shlex.split(command)
        assert make == "make" and target in targets()
        assert all(re.fullmatch("(PYTHON|JOBS)=.+", variable) for variable in variables)


@in_a_checkout
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"} and workflow["name"] == path.stem
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 350
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@in_a_checkout
def test_the_pythons_that_are_tested():
    """All from the oldest that the package says on, and the wheel has a front for each."""
    (tested,) = (job["strategy"]["matrix"]["python"] for job in jobs() if "strategy" in job)
    oldest = re.search(r'requires-python = ">=(.*)"', (ROOT / "pyproject.toml").read_text()).group(1)
    assert tested[0] == oldest and tested == [f"3.{minor}" for minor in range(10, 10 + len(tested))]
    (wheels,) = (job["env"]["PYTHONS"] for job in jobs() if "PYTHONS" in job.get("env", {}))
    assert re.findall(r"/cp3(\d+)-", wheels) == [version.partition(".")[2] for version in tested]


@in_a_checkout
@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_takes(path):
    """By the rules of its documentation: what a form and each kind of element must have, and may."""
    form = read(path)
    assert {"name", "description", "body"} <= {*form} <= {"name", "description", "body", "labels", "title"}
    named = [element["id"] for element in form["body"] if element["type"] != "markdown"]
    labels = [element["attributes"]["label"] for element in form["body"]]
    assert len({*named}) == len(named) and len({*labels}) == len(labels)
    for element in form["body"]:
        may = {"textarea": {"render", "placeholder", "value"}, "input": {"placeholder"}, "checkboxes": {"options"}}
        assert {*element} <= {"type", "id", "attributes", "validations"}
        assert {*element["attributes"]} <= {"label", "description"} | may[element["type"]]
        assert {*element.get("validations", {})} <= {"required"}


@in_a_checkout
def test_a_report_has_what_info_prints():
    (form,) = (read(path) for path in FORMS if path.stem == "bug")
    (info,) = (element for element in form["body"] if element["id"] == "info")
    assert info["attributes"]["label"] == "python -m vae_fast info" and info["validations"]["required"]


def test_the_citation_is_of_this_version():
    """And has what CFF 1.2.0 asks for; `cffconvert --validate` says the same of its whole schema."""
    citation = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= {*citation} and citation["cff-version"] == "1.2.0"
    assert citation["version"] == vf.__version__ and citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "the vae_fast developers"}]


class TestCondaRecipe:
    """It says again what the package says of itself; `make conda-recipe` renders it."""

    @pytest.fixture
    def recipe(self):
        return read(ROOT / "conda" / "recipe.yaml")

    def test_version_and_licence(self, recipe):
        assert recipe["context"]["version"] == vf.__version__ and recipe["about"]["license"] == "MIT"
        assert (ROOT / recipe["about"]["license_file"]).is_file()

    def test_it_asks_for_what_the_package_asks_for(self, recipe):
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        quoted = re.search(r"^dependencies = \[(.*)\]$", project, re.M).group(1).replace("torch", "pytorch ")
        asked = {
            "python " + re.search(r'requires-python = "(.*)"', project).group(1),
            *re.findall('"(.*?)"', quoted),
        }
        assert {*recipe["requirements"]["run"]} == asked

    @in_a_checkout
    def test_it_is_for_the_pythons_of_the_wheel(self):
        pythons = read(ROOT / "conda" / "variants.yaml")["python"]
        wheels = (GITHUB / "workflows" / "wheels.yml").read_text(encoding="utf-8")
        assert pythons == [f"3.{minor}" for minor in re.findall(r"^ +/opt/python/cp3(\d+)-", wheels, re.M)]
