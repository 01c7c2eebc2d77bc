//! Sizes: what a dyno may use, and that its neighbours do not notice when it wants more.

use crate::load::{Load, Seen};
use crate::platform::shared;

/// Takes what there is of the disk, then goes on writing.
const FILL_BYTES: &str = "
import errno, os
def fill():
    number = 0
    while True:
        with open(f'/tmp/big{number}', 'wb') as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 28)
        number += 1
def write():
    with open('/tmp/more', 'wb') as file:
        while True:
            file.write(b'x' * 4096)
            file.flush()
for work in fill, write:
    try:
        work()
    except OSError as error:
        print(errno.errorcode[error.errno])
taken = os.statvfs('/tmp')
print((taken.f_blocks - taken.f_bfree) * taken.f_frsize >> 20)";

const FILL_FILES: &str = "
import errno, os
number = 0
try:
    while True:
        os.close(os.open(f'/tmp/file{number}', os.O_CREAT))
        number += 1
except OSError as error:
    print(errno.errorcode[error.errno])
print(number)";

#[test]
fn who_fills_its_disk_meets_its_own_limit_and_nobody_elses() {
    let neighbour = shared().app("probe-app");
    neighbour.push().expect_ok();
    let filler = shared().app("probe-app");
    filler.cli(&["ps:type", "web=eco"]).expect_ok();
    filler.push().expect_ok();
    let inside = |script: &str| filler.cli(&["ps:exec", "--dyno", "web.1", "--", "python3", "-c", script]).expect_ok();
    let number = |line: &str| line.trim().parse::<u64>().unwrap_or_else(|_| panic!("{line:?} is no number"));
    let Seen { failure, answered, .. } = Load::around(&neighbour, || {
        let text = inside(FILL_BYTES).text;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["ENOSPC", "ENOSPC"], "{text}");
        assert!((2040..=2110).contains(&number(lines[2])), "an eco dyno has 2 GiB: {text}");
        inside("import glob, os\nfor file in glob.glob('/tmp/*'): os.remove(file)");
        let text = inside(FILL_FILES).text;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ENOSPC", "{text}");
        assert!((131_000..=135_000).contains(&number(lines[1])), "an eco dyno has 131,072 files: {text}");
        assert!(filler.get("/").body.starts_with("version 1"), "it goes on itself");
    });
    assert_eq!(failure, None, "of {answered} requests none was lost");
    // A new dyno begins with an empty disk.
    filler.cli(&["ps:restart"]).expect_ok();
    crate::until("its disk is empty", || {
        filler.cli(&["ps:exec", "--dyno", "web.1", "--", "sh", "-c", "ls /tmp | wc -l"]).text.trim() == "0"
    });
}
