//! Loop devices (loop(4)).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A device that shows a file, for as long as this or a mount holds it.
pub(super) struct Device {
    pub(super) path: PathBuf,
    _held: File,
}

/// `struct loop_config` of `linux/loop.h`, with its `struct loop_info64`.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    numbers: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u8; 64]; 2],
    key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// Goes with its last user.
const AUTOCLEAR: u32 = 4;
/// What is written is not kept in memory twice.
const DIRECT_IO: u32 = 16;

/// How often a device is asked for that somebody else takes first.
const RETRIES: u32 = 64;
/// Who asks for a free device has not got it yet.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

mod calls {
    nix::ioctl_none_bad!(get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, super::Config);
    // Their argument means nothing.
    nix::ioctl_write_int_bad!(set_capacity, 0x4C07);
    nix::ioctl_write_int_bad!(freeze, 0xC004_5877);
    nix::ioctl_write_int_bad!(thaw, 0xC004_5878);
}

/// Shows `file` as a block device.
pub(super) fn attach(file: &File) -> io::Result<Device> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let config = Config {
        file: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
        block_size: 0,
        numbers: [0; 5],
        number: 0,
        encryption: [0; 2],
        flags: AUTOCLEAR | DIRECT_IO,
        names: [[0; 64]; 2],
        key: [0; 32],
        init: [0; 2],
        reserved: [0; 8],
    };
    let mut left = RETRIES;
    loop {
        #[expect(unsafe_code, reason = "the kernel has no other way to loop devices")]
        // SAFETY: the call takes no argument and only returns a number.
        let number = unsafe { calls::get_free(control.as_raw_fd()) }?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        #[expect(unsafe_code, reason = "the kernel has no other way to loop devices")]
        // SAFETY: `config` is laid out as the kernel's struct, and both files are open for as long as the call takes.
        let configured = unsafe { calls::configure(device.as_raw_fd(), &raw const config) };
        match configured {
            Err(nix::Error::EBUSY) if left > 0 => left -= 1,
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(Device { path, _held: device }),
        }
    }
}

/// Lets a device see that its file has become larger.
pub(super) fn enlarge(device: &Path) -> io::Result<()> {
    let device = File::options().read(true).write(true).open(device)?;
    #[expect(unsafe_code, reason = "the kernel has no other way to loop devices")]
    // SAFETY: the call looks at no memory of ours, and the file is open.
    let done = unsafe { calls::set_capacity(device.as_raw_fd(), 0) };
    done.map(drop).map_err(io::Error::from)
}

/// Whether a device shows a file.
pub(super) fn shows(file: &Path) -> io::Result<bool> {
    for device in std::fs::read_dir("/sys/block")? {
        let backing = device?.path().join("loop/backing_file");
        if std::fs::read(backing).is_ok_and(|name| name.trim_ascii_end() == file.as_os_str().as_encoded_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes a file system out and holds up whoever writes to it, until [`thaw`].
pub(super) fn freeze(folder: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the kernel has no other way to do this")]
    // SAFETY: the call looks at no memory of ours, and the file is open.
    let done = unsafe { calls::freeze(folder.as_raw_fd(), 0) };
    done.map(drop).map_err(io::Error::from)
}

/// Ends [`freeze`].
pub(super) fn thaw(folder: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the kernel has no other way to do this")]
    // SAFETY: as above.
    let done = unsafe { calls::thaw(folder.as_raw_fd(), 0) };
    done.map(drop).map_err(io::Error::from)
}
