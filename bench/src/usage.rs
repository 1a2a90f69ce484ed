//! The CPU time and memory of a process.

use std::time::Duration;

/// The pause between two readings of a process.
const LOOK: Duration = Duration::from_millis(20);
/// Ticks per second in `/proc/PID/stat` on Linux. They do not depend on the rate of the kernel.
const TICKS: f64 = 100.0;

/// The CPU time and memory that a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of CPU time.
    pub(crate) cpu: f64,
    /// The peak memory since the start or the last reset, in bytes.
    pub(crate) peak: u64,
    /// The current memory in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may contain any character.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<f64>().ok();
        let cpu = (ticks()? + ticks()?) / TICKS;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let kibibytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Self {
            cpu,
            peak: kibibytes("VmHWM:")? * 1024,
            resident: kibibytes("VmRSS:")? * 1024,
        })
    }

    /// Resets the peak memory of a process (proc(5), `clear_refs`). If the system does not allow this, the peak still counts
    /// from the start.
    pub(crate) fn forget_peak_of(process: &str) {
        let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    }

    /// The usage of this process.
    pub(crate) fn own() -> Self {
        Self::of("self").unwrap_or_default()
    }
}

/// Watches a process until it ends. Returns its last known usage.
pub(crate) async fn watch(process: Option<u32>) -> Usage {
    let mut usage = Usage::default();
    let Some(process) = process else {
        return usage;
    };
    while let Some(seen) = Usage::of(&process.to_string()) {
        usage = seen;
        tokio::time::sleep(LOOK).await;
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_lives_uses_memory_and_one_that_does_not_is_nothing() {
        assert!(Usage::own().resident > 0);
        assert!(Usage::of("0").is_none());
    }
}
