"""Pods for Gaudi cards: rendered, read back and checked; no cluster is needed."""

import importlib.util
import subprocess
import sys

import pytest
import yaml


@pytest.fixture(scope="module")
def renderer(repo_root):
    spec = importlib.util.spec_from_file_location("render", repo_root / "habana" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("cards", range(1, 9))
def test_resources_follow_from_the_number_of_cards(renderer, cards):
    pod = yaml.safe_load(yaml.safe_dump(renderer.render(cards)))
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {
        "habana.ai/gaudi": cards,
        "cpu": str(8 * cards),
        "memory": f"{48 * cards}Gi",
        "hugepages-2Mi": f"{12000 * cards}Mi",
    }
    command = container["command"]
    assert all(isinstance(word, str) for word in command)
    assert ("-m" in command) == (cards > 1)
    assert command[: command.index("mlpf")] == (
        [] if cards == 1 else ["mpirun", "--allow-run-as-root", "--bind-to", "none", "-np", str(cards)]
    )
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_what_is_asked_for_replaces_the_template(renderer):
    pod = renderer.render(
        2,
        image="registry/mlpf:7",
        command="mlpf train -m -g -c 'my file.yaml'",
        name="run-7",
        claim="scratch",
        memory="1000Mi",
        hugepages="4Gi",
        cpus=3,
    )
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["name"] == "run-7"
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "scratch"
    assert container["image"] == "registry/mlpf:7"
    assert container["command"][-6:] == ["mlpf", "train", "-m", "-g", "-c", "my file.yaml"]
    limits = container["resources"]["limits"]
    assert (limits["cpu"], limits["memory"], limits["hugepages-2Mi"]) == ("6", "2000Mi", "8Gi")


@pytest.mark.parametrize(
    ("cards", "options", "words"),
    [
        (0, {}, "expected 1 to 8"),
        (9, {}, "expected 1 to 8"),
        (1, {"name": "Run_7"}, "small letters"),
        (1, {"claim": "a/b"}, "small letters"),
        (1, {"image": "a b"}, "without spaces"),
        (1, {"command": ""}, "is empty"),
        (1, {"command": "mlpf train -c x.yaml"}, "add -g"),
        (2, {"command": "mlpf train -g -c x.yaml"}, "add -m"),
        (1, {"command": "mlpf 'train"}, "quotation"),
        (1, {"memory": "48"}, "Mi or Gi"),
        (1, {"hugepages": "0Mi"}, "Mi or Gi"),
    ],
)
def test_bad_values_are_refused(renderer, cards, options, words):
    with pytest.raises(ValueError, match=words):
        renderer.render(cards, **options)


def run(repo_root, *arguments):
    command = [sys.executable, str(repo_root / "habana" / "render.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=repo_root)


def test_the_script_prints_or_writes(repo_root, tmp_path):
    printed = run(repo_root, "--cards", "4")
    assert printed.returncode == 0, printed.stderr
    assert run(repo_root, "--cards", "4", "-o", str(tmp_path / "pod.yaml")).stdout == ""
    assert (tmp_path / "pod.yaml").read_text(encoding="utf-8") == printed.stdout
    assert (
        yaml.safe_load(printed.stdout)["spec"]["containers"][0]["resources"]["limits"]["habana.ai/gaudi"] == 4
    )


def test_the_script_ends_with_code_2_on_bad_values(repo_root):
    done = run(repo_root, "--command", "mlpf train -c x.yaml")
    assert done.returncode == 2
    assert "add -g" in done.stderr
    assert "Traceback" not in done.stderr
