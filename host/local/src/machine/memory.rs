//! What a machine believes about its memory: the kernel's files tell of the whole host, so a machine sees other ones.

/// `/proc/meminfo` of a machine with so much memory: a snapshot in which everything else fits into the total. kubelet takes
/// the Node's capacity from the first line; what is in use it reads from the control group.
pub(super) fn meminfo(host: &str, limit_bytes: u64) -> String {
    let limit_kib = limit_bytes >> 10;
    let mut out = String::with_capacity(host.len());
    for line in host.lines() {
        let (name, rest) = line.split_once(':').unwrap_or((line, ""));
        let value: Option<u64> = rest
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        match value {
            Some(_) if name.starts_with("Swap") => out.push_str(&row(name, 0)),
            Some(value) if rest.trim_end().ends_with("kB") && !name.starts_with("Vmalloc") => {
                out.push_str(&row(name, value.min(limit_kib)));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

fn row(name: &str, kib: u64) -> String {
    let name = format!("{name}:");
    format!("{name:<15} {kib:>8} kB\n")
}

/// `/proc/swaps` of a machine: none, whatever the host has.
pub(super) const SWAPS: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_no_more_than_its_own_memory_and_no_swap() {
        let host = "MemTotal:       25276788 kB\nMemFree:         1048576 kB\nSwapTotal:       4194304 kB\n\
            VmallocTotal:   34359738367 kB\nHugePages_Total:       0\n";
        assert_eq!(
            meminfo(host, 4 << 30),
            "MemTotal:        4194304 kB\nMemFree:         1048576 kB\nSwapTotal:             0 kB\n\
             VmallocTotal:   34359738367 kB\nHugePages_Total:       0\n"
        );
        assert!(meminfo(host, 1 << 50).starts_with("MemTotal:       25276788 kB\n"));
    }
}
