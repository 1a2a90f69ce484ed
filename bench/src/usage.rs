//! How much CPU time and memory a process uses.

use std::time::Duration;

/// Between two looks at a process that is measured.
const LOOK: Duration = Duration::from_millis(20);
/// Of `/proc/PID/stat` on Linux, whatever the kernel's own rate is.
const TICKS: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of CPU time.
    pub(crate) cpu: f64,
    /// The most memory it has had at once since its start, or since that was forgotten, in bytes.
    pub(crate) peak: u64,
    /// The memory it has now, in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may hold anything.
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

    /// The most memory a process has had counts from now on (proc(5), `clear_refs`). Where the system does not allow
    /// that, it still counts from its start.
    pub(crate) fn forget_peak_of(process: &str) {
        let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self::of("self").unwrap_or_default()
    }
}

/// Looks at a process until it ends; what it had used when it was last seen.
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
