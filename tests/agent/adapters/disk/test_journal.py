"""The journal on disk: what was saved is there after any cut, and no new block is needed."""

import subprocess
import sys
from pathlib import Path

from wavegate_agent.adapters.disk.journal import Journal
from wavegate_agent.core.journal_format import SLOT_BYTES, Record


def saved(path: Path, *records: Record) -> None:
    journal = Journal(path)
    for record in records:
        journal.save(record)
    journal.close()


def loaded(path: Path) -> Record | None:
    journal = Journal(path)
    record = journal.load()
    journal.close()
    return record


def test_a_new_device_has_no_record(tmp_path: Path) -> None:
    assert loaded(tmp_path / "journal") is None
    assert (tmp_path / "journal").stat().st_size == 2 * SLOT_BYTES


def test_the_newest_record_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for boot in range(1, 6):
        saved(path, Record(boot=boot))
        assert loaded(path) == Record(boot=boot)


def test_a_torn_write_gives_the_record_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    saved(path, Record(boot=1), Record(boot=2), Record(boot=3))
    data = bytearray(path.read_bytes())
    data[(3 % 2) * SLOT_BYTES + 30] ^= 0xFF
    path.write_bytes(data)
    assert loaded(path) == Record(boot=2)
    saved(path, Record(boot=9))
    assert loaded(path) == Record(boot=9)


def test_saving_needs_no_room(tmp_path: Path) -> None:
    """With a file size limit of what is there already, and no free block asked for, saving goes on."""
    path = tmp_path / "journal"
    saved(path, Record(boot=1))
    blocks = path.stat().st_blocks
    code = (
        "import resource; from pathlib import Path; from wavegate_agent.adapters.disk.journal import Journal; "
        "from wavegate_agent.core.journal_format import Record; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({2 * SLOT_BYTES}, {2 * SLOT_BYTES})); "
        f"j = Journal(Path({str(path)!r})); [j.save(Record(boot=n)) for n in range(2, 50)]; j.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert loaded(path) == Record(boot=49)
    assert path.stat().st_blocks == blocks
