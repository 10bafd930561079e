"""States of trainings on their way: kept whole or not at all."""

from lossbench.store.paused import States


def test_a_state_is_read_as_it_was_written_until_it_is_cleared(tmp_path):
    states = States(tmp_path)
    assert states.read("a") is None and not states.folder.exists()
    assert states.write("a", b"one") and states.write("a", b"two")
    assert states.read("a") == b"two"
    states.clear("a")
    assert states.read("a") is None and not states.folder.exists()


def test_a_damaged_state_is_forgotten(tmp_path):
    states = States(tmp_path)
    states.write("a", b"whole")
    for damaged in (states.path("a").read_bytes()[:-1], b"", b"\0\0\0\0whole"):
        states.folder.mkdir(exist_ok=True)
        states.path("a").write_bytes(damaged)
        assert states.read("a") is None and not states.path("a").exists()


def test_a_folder_without_room_stops_nothing(tmp_path):
    states = States(tmp_path)
    (tmp_path / "states").write_text("a file where the folder would be")
    assert states.write("a", b"state") is False
    assert states.read("a") is None
