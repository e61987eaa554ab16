//! What the process has used, as the kernel counts it; nothing where there is no `/proc`.

use std::time::Duration;

/// User and system time of all threads so far, to a hundredth of a second.
pub(crate) fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    // A tick is a hundredth of a second on every Linux that programs see.
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// What was used since an earlier [`cpu_time`].
pub(crate) fn cpu_since(earlier: Option<Duration>) -> Option<Duration> {
    Some(cpu_time()?.saturating_sub(earlier?))
}

/// Bytes of memory that the process holds.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}
