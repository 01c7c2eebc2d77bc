//! What this machine has for containers.

use engine::{Capacity, EngineError};

use super::Host;
use crate::disk;
use crate::error::Fault;

impl Host {
    pub(crate) fn capacity(&self) -> Result<Capacity, EngineError> {
        let failed = |fault: Fault| EngineError::Failed(fault.to_string());
        let disk = disk::size_below(&self.settings.home).map_err(failed)?;
        Ok(Capacity {
            memory: memory().map_err(failed)?,
            disk,
            containers: u64::from(self.settings.subnet.instances()),
            demand: self.lock().demand(),
        })
    }
}

/// Bytes of memory of this machine.
fn memory() -> Result<u64, Fault> {
    let path = std::path::Path::new("/proc/meminfo");
    let text = std::fs::read_to_string(path).map_err(Fault::on("read", path))?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes.map(|number| number << 10).ok_or_else(|| Fault::Refused("/proc/meminfo names no MemTotal".to_owned()))
}
