import signal

import pytest

from vit_tf import cli


def exit_code(main):
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    return caught.value.code


def failing(error):
    def main():
        raise error

    return main


def test_exit_codes(capsys):
    assert exit_code(lambda: None) in (None, 0)
    assert exit_code(lambda: 130) == 130
    assert exit_code(failing(ValueError("two\n  lines"))) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    assert exit_code(failing(OSError(28, "No space left on device", "a.h5"))) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert exit_code(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(failing(ZeroDivisionError()))


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("VIT_TF_TRACEBACK", "1")
    with pytest.raises(ValueError):
        cli.run(failing(ValueError("a")))


def test_sigterm_is_like_ctrl_c(capsys):
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert exit_code(lambda: signal.raise_signal(signal.SIGTERM)) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
