//! Resident memory of a process.

use anyhow::Context as _;

/// Bytes that a process has in memory, shared pages included: `Rss` of smaps_rollup, or of statm where the kernel has no
/// rollup.
pub(crate) fn resident(process: u32) -> anyhow::Result<u64> {
    if let Ok(text) = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))
        && let Some(bytes) = from_rollup(&text)
    {
        return Ok(bytes);
    }
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).context("memory of a process")?;
    from_statm(&text).context("statm without resident pages")
}

fn from_rollup(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

fn from_statm(text: &str) -> Option<u64> {
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read() {
        let rollup = "55d0-7fff ---p 00000000 00:00 0    [rollup]\nRss:             1516 kB\nPss:     143 kB\n";
        assert_eq!(from_rollup(rollup), Some(1_516 * 1_024));
        assert_eq!(from_rollup("Pss: 1 kB\n"), None);
        let page = u64::try_from(rustix::param::page_size()).unwrap();
        assert_eq!(from_statm("900 379 300 10 0 100 0\n"), Some(379 * page));
        assert_eq!(from_statm("900"), None);
    }

    #[test]
    fn this_process_is_somewhere() {
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
