//! What the process has used, and what there is.

/// Largest resident memory of this process in bytes; 0 where the system does not say.
pub fn peak_rss_bytes() -> u64 {
    kilobytes("/proc/self/status", "VmHWM:").unwrap_or(0) * 1024
}

/// Memory that can be had without swapping; None where the system does not say.
pub fn available_bytes() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:").map(|number| number * 1024)
}

fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
