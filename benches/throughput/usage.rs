//! What the process has used, as the kernel counts it; nothing where there is no `/proc`.

use std::time::Duration;

/// A line of the kernel's about a process.
pub(crate) struct Process {
    /// The name of its program, up to 15 bytes.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "servers are told by it"))]
    pub(crate) name: String,
    /// Who started it.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "servers are told by it"))]
    pub(crate) parent: u32,
    /// User and system time of all its threads so far, to a hundredth of a second.
    pub(crate) cpu: Duration,
    /// That of its children which have ended.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "only servers have children")
    )]
    pub(crate) ended_children_cpu: Duration,
}

/// What the kernel says of a process, by its id or as `self`.
pub(crate) fn process(id: &str) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name, in brackets, may contain anything.
    let (start, fields) = stat.rsplit_once(')')?;
    let name = start.split_once('(')?.1.to_owned();
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    // A tick is a hundredth of a second on every Linux that programs see.
    let time = |field| Some(Duration::from_millis(10 * (ticks(field)? + ticks(field + 1)?)));
    let parent = fields.get(1)?.parse().ok()?;
    Some(Process { name, parent, cpu: time(11)?, ended_children_cpu: time(13)? })
}

/// User and system time of all threads so far, to a hundredth of a second.
pub(crate) fn cpu_time() -> Option<Duration> {
    Some(process("self")?.cpu)
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
