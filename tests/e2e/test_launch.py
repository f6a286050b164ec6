"""The launcher gives a script what ``python script`` gives it, and its exit code back."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.conftest import write_distribution

UTILS = """
def epoch(mode, dataloader, net, optimizer, criterion, args, aug): pass
def evaluate_synset(it_eval, net, images_train, labels_train, testloader, args): pass
"""
# One loss call on real data, as the adapter expects of these arguments.
GUARDED_ONCE = """
    args, num_classes = argparse.Namespace(num_exp=1, Iteration=0, outer_loop=1), 1
    net = torch.nn.Linear(2, 2)
    loss = torch.nn.CrossEntropyLoss()(net(torch.randn(3, 2)), torch.tensor([0, 1, 1]))
"""
# The same, but the loss is not on what a network returned.
NOT_GUARDED = GUARDED_ONCE.replace("net(torch.randn(3, 2))", "torch.randn(3, 2)")
SETTINGS = ["--strength", "1", "--h", "0.5"]


def host(folder: Path, body: str = GUARDED_ONCE, after: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "utils.py").write_text(UTILS)
    script = folder / "main.py"
    script.write_text(
        "import argparse, json, os, sys, torch\nfrom utils import epoch, evaluate_synset\n"
        f"def main():{body}\nmain()\n{after}\n"
    )
    return script


def test_the_script_sees_what_python_gives_it(guard_process, python_process, tmp_path):
    after = (
        "import pickle, __main__\nclass Local: pass\n"
        "pickle.loads(pickle.dumps(Local()))\n"
        "print(json.dumps([sys.argv, sys.path[0], __name__, __file__, os.getcwd(), __main__.__dict__ is globals(), "
        "__doc__, __spec__ is None, __package__]))"
    )
    host(tmp_path / "host", after=after)
    arguments = ["host/main.py", "--help", "--h", "3", "", "--", "-x", "--strength=7", "a b"]
    plain = python_process(*arguments)
    guarded = guard_process("run", *SETTINGS, "dc", *arguments)
    assert guarded.returncode == 0, guarded.stderr
    assert json.loads(guarded.stdout) == json.loads(plain.stdout)


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("sys.exit(0)", 0, "1 of 1 expected guarded"),
        ("sys.exit()", 0, "1 of 1 expected guarded"),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('unknown data set')", 1, "unknown data set"),
        ("raise ValueError('broken host')", 1, "ValueError: broken host"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
def test_the_exit_code_is_the_scripts_and_the_ledger_is_written(guard, tmp_path, end, code, words):
    script = host(tmp_path / "host", after=end)
    done = guard("run", *SETTINGS, "--ledger", "ledger.json", "dc", script)
    assert done.returncode == code and words in done.stderr
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["loss_calls"]["guarded"] == 1
    assert ledger["outcome"] == ("complete" if code == 0 else "failed")
    assert "launch.py" not in done.stderr  # the traceback is the script's alone


@pytest.mark.parametrize(
    ("body", "end", "code", "outcome", "words"),
    [
        (GUARDED_ONCE, "", 2, "complete", "error: hook run_ended of Bad 1.0 failed: SystemExit: 0"),
        (NOT_GUARDED, "", 3, "incomplete", "error: expected loss calls .*; further, hook run_ended of Bad 1.0 failed"),
        (GUARDED_ONCE, "raise GuardError('ours')", 2, "failed", "error: ours; further, hook run_ended of Bad 1.0"),
        (GUARDED_ONCE, "sys.exit(7)", 7, "failed", "error: hook run_ended of Bad 1.0 failed: SystemExit: 0"),
    ],
)
def test_a_plugin_that_ends_the_process_at_the_end_hides_nothing(guard, tmp_path, body, end, code, outcome, words):
    write_distribution(tmp_path / "plugins", "Bad", "[guard_plugin]\nbad = bad\n")
    hook = "import guard_plugin\n@guard_plugin.hookimpl\ndef run_ended():\n    raise SystemExit(0)\n"
    (tmp_path / "plugins" / "bad.py").write_text(hook)
    script = host(tmp_path / "host", body, f"from guard_plugin.errors import GuardError\n{end}")
    plugins = os.pathsep.join(filter(None, (str(tmp_path / "plugins"), os.environ.get("PYTHONPATH"))))
    done = guard("run", *SETTINGS, "--ledger", "ledger.json", "dc", script, PYTHONPATH=plugins)
    assert done.returncode == code and re.search(words, done.stderr), done.stderr
    assert json.loads((tmp_path / "ledger.json").read_text())["outcome"] == outcome


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("raise KeyboardInterrupt", 130)])
def test_a_process_of_its_own_has_the_scripts_exit_code(guard_process, tmp_path, end, code):
    assert guard_process("run", *SETTINGS, "dc", host(tmp_path / "host", after=end)).returncode == code


def test_a_script_ended_by_its_argument_parser_is_untouched(guard, tmp_path, baseline):
    done = guard("run", *SETTINGS, "dc", baseline / "main.py", "--help")
    assert done.returncode == 0 and "--Iteration" in done.stdout and "guard:" not in done.stderr
    done = guard("run", *SETTINGS, "dc", baseline / "main.py", "--no-such-option")
    assert done.returncode == 2 and "unrecognized arguments" in done.stderr


@pytest.mark.parametrize("end", ["", "sys.exit(0)"])
def test_a_script_that_ends_well_with_nothing_guarded_exits_with_3(guard, tmp_path, end):
    script = host(tmp_path / "host", body=" pass", after=end)
    done = guard("run", *SETTINGS, "--ledger", "ledger.json", "dc", script)
    assert done.returncode == 3 and "this was a plain run" in done.stderr
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["loss_calls"]["guarded"] == 0 and ledger["outcome"] == "incomplete"


def test_cwd_is_where_the_script_runs_and_where_it_may_be(guard, tmp_path):
    host(tmp_path / "host", after="print(os.getcwd()); open('mark', 'w')")
    (tmp_path / "work").mkdir()
    for options in (["--cwd", "work", "dc", "host/main.py"], ["--cwd", "host", "dc", "main.py"]):
        done = guard("run", *SETTINGS, "--ledger", "ledger.json", *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / options[1])
        assert (tmp_path / "ledger.json").exists()
    (tmp_path / "main.py").write_text("")
    assert guard("run", *SETTINGS, "--cwd", "host", "dc", "main.py").returncode == 2


def test_the_argument_parser_does_not_excuse_a_run_that_guarded_nothing(guard, tmp_path):
    script = host(tmp_path / "host", body=NOT_GUARDED, after="argparse.ArgumentParser().exit(0)")
    done = guard("run", *SETTINGS, "dc", script)
    assert done.returncode == 3 and "this was a plain run" in done.stderr


def test_an_error_of_ours_in_the_scripts_own_code_is_shown(guard, tmp_path):
    script = host(tmp_path / "host", after="import guard_plugin; guard_plugin.attach('dc')")
    done = guard("run", *SETTINGS, "dc", script)
    assert done.returncode == 2 and "guarding is on already" in done.stderr


def test_a_link_to_the_script_is_followed_as_python_does(guard, tmp_path):
    host(tmp_path / "host")
    (tmp_path / "link.py").symlink_to(tmp_path / "host" / "main.py")
    done = guard("run", *SETTINGS, "dc", "link.py")
    assert done.returncode == 0 and "1 of 1 expected guarded" in done.stderr


def test_the_ledger_may_go_to_a_pipe_and_an_existing_file_is_kept_until_it_is_written(guard, tmp_path):
    script = host(tmp_path / "host")
    done = guard("run", *SETTINGS, "--ledger", "/dev/stdout", "dc", script)
    assert done.returncode == 0 and json.loads(done.stdout)["loss_calls"]["guarded"] == 1
    (tmp_path / "empty.json").touch()
    assert guard("run", "--h", "0", "--ledger", "empty.json", "dc", script).returncode == 2
    assert (tmp_path / "empty.json").exists()


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(5)", 5), ("sys.exit('no')", 1), ("sys.exit(0)", 3), ("", 3), ("raise ValueError", 1)]
)
def test_an_attached_script_keeps_its_own_exit_code_and_its_open_files(python, tmp_path, end, code):
    attached_script_ends(python, tmp_path, end, code)


@pytest.mark.parametrize(("end", "code"), [("sys.exit(5)", 5), ("", 3)])
def test_so_it_does_in_a_process_of_its_own(python_process, tmp_path, end, code):
    attached_script_ends(python_process, tmp_path, end, code)


def attached_script_ends(python, tmp_path, end, code):
    script = host(tmp_path / "host", body=NOT_GUARDED)
    line = "import guard_plugin, atexit; guard_plugin.attach('dc'); log = open('log.txt', 'w'); log.write('kept')\n"
    script.write_text(line + script.read_text() + end + "\n")
    done = python(script)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "log.txt").read_text() == "kept"


def test_help_of_an_attached_script_is_untouched(python, forks):
    main = forks / "dc" / "main.py"
    main.write_text(
        main.read_text().replace("\nEVALUATE_EVERY", "\nimport guard_plugin\nguard_plugin.attach('dc')\nEVALUATE_EVERY")
    )
    for option, code in (("--help", 0), ("--nope", 2)):
        assert python("main.py", option, cwd=main.parent).returncode == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope", "main.py"], "unknown adapter 'nope': expected one of cda, dc, mtt, sre2l, tesla; 'auto' guards"),
        (["dc", "nope.py"], "expected one script nope.py, found 0"),
        (["dc", "-"], "expected a script in a file, found -, the standard input"),
        (["dc", "other.py"], "unknown script 'other.py': expected one of CL_DM.py, main.py, main_DM.py"),
        (["dc", "main_DM.py"], "main_DM.py cannot be guarded: it matches feature distributions"),
        (["--h", "0", "dc", "main.py"], "expected h, "),
        (["--strength", "-1", "dc", "main.py"], "expected strength"),
        (["--penalty", "tradess", "dc", "main.py"], "unknown penalty 'tradess'"),
        (["--form", "both", "dc", "main.py"], "'both' is not one of"),
        (["--lamda", "1", "dc", "main.py"], "No such option"),
        (["--ledger", "no/such/folder/l.json", "dc", "main.py"], "the ledger cannot be written"),
        (["--cwd", "nowhere", "dc", "main.py"], "nowhere"),
        (["dc"], "Missing argument 'SCRIPT'"),
    ],
)
def test_unusable_input_ends_with_2_before_the_script_runs(guard, tmp_path, arguments, words):
    host(tmp_path, after="open('ran', 'w')")
    for name in ("main_DM.py", "other.py"):
        (tmp_path / name).write_text("open('ran', 'w')")
    done = guard("run", *arguments)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "ran").exists()


def test_doctor_reports_in_json_and_refuses_other_folders(guard, tmp_path, baseline):
    done = guard("doctor", "--json", "dc", baseline)
    (main,) = json.loads(done.stdout)["scripts"]
    assert done.returncode == 0 and main["ok"]
    for seam in main["seams"]:
        line = Path(seam["file"]).read_text().splitlines()[seam["line"] - 1]
        assert line.startswith(f"def {seam['seam'].split('.')[1]}(")
    assert {seam["seam"] for seam in main["seams"]} == {"main.main", "utils.epoch", "utils.evaluate_synset"}
    done = guard("doctor", "dc", tmp_path)
    assert done.returncode == 2 and "expected main.py in" in done.stderr


def test_a_module_imported_under_a_hosts_name_is_refused(guard, tmp_path):
    """One host per process: a plugin that imported another ``utils`` would hand it to the script."""
    plugin = tmp_path / "plugin"
    write_distribution(plugin, "other", "[guard_plugin]\nother = utils\n")
    (plugin / "utils.py").write_text("")
    done = guard("run", *SETTINGS, "dc", host(tmp_path / "host"), PYTHONPATH=str(plugin))
    assert done.returncode == 2 and "one host per process" in done.stderr


def test_a_count_that_no_variable_told_is_no_proof(guard, forks):
    """A fork that trains outside of the function whose variables tell how many loss calls there must be."""
    main = forks / "mtt" / "buffer.py"
    source = main.read_text().replace("def main(args: argparse.Namespace) -> None:\n", "def train(args):\n")
    source = source.replace("\n\nif __name__", "\n\ndef main(args):\n    return args\n\n\nif __name__")
    main.write_text(source.replace("    main(parse_args())", "    train(main(parse_args()))"))
    arguments = [
        "--dataset",
        "digits",
        "--model",
        "MLP",
        "--num_experts",
        "1",
        "--train_epochs",
        "1",
        "--save_interval",
        "1",
    ]
    done = guard("run", *SETTINGS, "mtt", main, *arguments)
    assert done.returncode == 3 and "expected loss calls under buffer.main" in done.stderr


LOCALS = "    config = locals()\n"


def test_the_hosts_own_locals_keep_what_they_hold(guard, tmp_path):
    body = LOCALS + GUARDED_ONCE.replace("\n", "", 1) + "    print('CONFIG', 'args' in config or sorted(config))\n"
    done = guard("run", "--strength", "0", "dc", host(tmp_path / "host", body="\n    args = 1\n" + body))
    assert done.returncode == 0 and "CONFIG True" in done.stdout


THREAD = """
import threading, time
def later():
    time.sleep(0.5)
    main()
threading.Thread(target=later).start()
"""


def test_what_a_thread_does_after_the_script_is_accounted_for(guard_process, tmp_path):
    done = guard_process("run", *SETTINGS, "dc", host(tmp_path / "host", after=THREAD))
    assert done.returncode == 3 and "found one more" in done.stderr


@pytest.mark.parametrize("code", [0, 5])
def test_a_forked_copy_of_the_process_reports_nothing(guard, tmp_path, code):
    fork = f"\n    if os.fork() == 0:\n        sys.exit({code})\n    print(os.waitstatus_to_exitcode(os.wait()[1]))"
    done = guard("run", *SETTINGS, "--ledger", "ledger.json", "dc", host(tmp_path / "host", body=fork + GUARDED_ONCE))
    assert done.returncode == 0 and done.stdout.strip() == str(code), done.stderr
    assert done.stderr.count("guard: dc main.py") == 1


def test_the_scripts_name_leads_to_it_from_where_it_runs(guard, tmp_path):
    host(tmp_path / "host", after="print(os.path.isfile(sys.argv[0]))")
    (tmp_path / "work").mkdir()
    for cwd in ("work", "host"):
        script = "host/main.py" if cwd == "work" else "main.py"
        assert guard("run", *SETTINGS, "--cwd", cwd, "dc", script).stdout.strip() == "True"


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), 9)",
        *(pytest.param(end, marks=pytest.mark.long) for end in ("os._exit(0)", "torch.ops.aten.no_such")),
    ],
)
def test_a_run_that_is_killed_leaves_no_older_ledger_behind(guard_process, tmp_path, end):
    guard = ["run", *SETTINGS, "--ledger", "ledger.json", "dc"]
    assert guard_process(*guard, host(tmp_path / "host")).returncode == 0
    assert json.loads((tmp_path / "ledger.json").read_text())["outcome"] == "complete"
    guard_process(*guard, host(tmp_path / "host", after=end))
    outcome = json.loads((tmp_path / "ledger.json").read_text())["outcome"]
    assert outcome == ("failed" if "torch" in end else "running")


@pytest.mark.parametrize("place", ["host/main.py", "host/utils.py", "link", "host"])
def test_a_ledger_overwrites_nothing_of_the_hosts(guard, tmp_path, place):
    script = host(tmp_path / "host", after="open('ran', 'w')")
    (tmp_path / "link").symlink_to(script)
    before = script.read_bytes()
    for arguments in (["--ledger", place], ["--cwd", "host", "--ledger", place]):
        done = guard("run", *SETTINGS, *arguments, "dc", script)
        assert done.returncode == 2 and "ledger" in done.stderr and "Traceback" not in done.stderr
    assert script.read_bytes() == before and not list(tmp_path.rglob("ran"))


def test_a_ledger_that_cannot_be_written_ends_with_2_and_loses_nothing(guard, tmp_path):
    body = GUARDED_ONCE + "    import shutil; shutil.rmtree('folder'); open('result', 'w').write('kept')\n"
    for code, after in ((2, ""), (7, "sys.exit(7)")):
        (tmp_path / "folder").mkdir()
        script = host(tmp_path / "host", body=body, after=after)
        done = guard("run", *SETTINGS, "--ledger", "folder/l.json", "dc", script)
        assert done.returncode == code and "the ledger cannot be written" in done.stderr
        assert '"guarded": 1' in done.stderr and (tmp_path / "result").read_text() == "kept"
        assert not (tmp_path / "folder").exists()
    assert guard("run", *SETTINGS, "--ledger", "/dev/full", "dc", script).returncode == 2


HOOKS = {
    "its own": "def hook(*error): print('HOOK', error[0].__name__, sys.last_value is error[1])",
    "one that fails": "def hook(*error): raise KeyError('in the hook')",
    "one that exits": "def hook(*error): sys.exit(9)",
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("error", ["ValueError('broken')", "KeyboardInterrupt", "SystemExit(4)", "BaseException"])
def test_the_scripts_excepthook_is_called_as_python_calls_it(guard, python, tmp_path, hook, error):
    script = host(tmp_path / "host", after=f"{HOOKS[hook]}\nsys.excepthook = hook\nraise {error}")
    plain, guarded = python(script), guard("run", *SETTINGS, "dc", script)
    assert guarded.stdout == plain.stdout
    if hook == "one that fails" and "SystemExit" not in error:
        for words in ("Error in sys.excepthook:", "KeyError: 'in the hook'", "Original exception was:"):
            assert words in plain.stderr and words in guarded.stderr
    assert guarded.returncode % 256 == {-2: 130}.get(plain.returncode, plain.returncode)
    assert "launch.py" not in guarded.stderr


EXECUTOR = """
import concurrent.futures
executor = concurrent.futures.ThreadPoolExecutor(1)
print(executor.submit(int, "7").result())
"""


def test_an_executor_that_nobody_shut_down_ends_as_under_python(guard_process, tmp_path):
    done = guard_process("run", *SETTINGS, "dc", host(tmp_path / "host", after=EXECUTOR))
    assert done.returncode == 0 and done.stdout == "7\n", done.stderr


def test_doctor_says_which_adapters_fit_nearly_fit_or_that_none_does(guard, forks, tmp_path):
    done = guard("doctor", "--json", forks / "dc")
    assert done.returncode == 0 and json.loads(done.stdout)["fits"] == ["dc"]
    (forks / "dc" / "utils.py").write_text(
        (forks / "dc" / "utils.py").read_text().replace("def epoch(", "def one_epoch(")
    )
    done = guard("doctor", forks / "dc")
    assert done.returncode == 2 and "dc nearly fits:\n  main.py: adapter dc: seam utils.epoch: " in done.stdout
    assert "guard observe SCRIPT says where GUARD belongs" in done.stdout
    (tmp_path / "empty").mkdir()
    done = guard("doctor", tmp_path / "empty")
    assert done.returncode == 2 and done.stdout.startswith("no adapter fits")
    assert guard("doctor").returncode == 2 and guard("doctor", "dc", forks, "x").returncode == 2


def test_doctor_looks_for_the_seams_that_auto_is_given(guard, baseline):
    script = baseline / "main.py"
    done = guard("doctor", "--guard", "main:main", "--suspend", "utils:epoch", "auto", script)
    assert done.returncode == 0 and "suspends utils.epoch" in done.stdout
    done = guard("doctor", "auto", "--guard", "main:nowhere", script)
    assert done.returncode == 2 and "expected a function nowhere in" in done.stdout
    assert guard("doctor", "auto", "--guard", "main:main", baseline).returncode == 2
    assert "for adapter auto only" in guard("doctor", "dc", "--guard", "main:main", baseline).stderr
