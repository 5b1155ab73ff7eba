//! What a server costs: CPU and memory of its process and of all processes below it, from /proc.

use std::collections::HashMap;
use std::fs::{read_dir, read_to_string};

/// The unit of /proc/PID/stat on every platform of Linux that the servers run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process and all below it, such as the workers of nginx. Nothing where it has ended.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in read_dir("/proc").expect("Linux").flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = field(process, 1) {
            children.entry(parent as u32).or_default().push(process);
        }
    }
    let mut found = Vec::from_iter(field(root, 1).map(|_| root));
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(process).unwrap_or_default());
        next += 1;
    }
    found
}

/// Seconds of CPU, in user and system mode, with those of children that have ended.
pub fn cpu_seconds(processes: &[u32]) -> f64 {
    let ticks = |process: &u32| (11..15).filter_map(|index| field(*process, index)).sum::<u64>();
    processes.iter().map(ticks).sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// Seconds of CPU of the whole machine since it started, without idle time.
pub fn machine_cpu_seconds() -> f64 {
    let stat = read_to_string("/proc/stat").expect("Linux");
    let line = stat.lines().next().expect("a line");
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // User, nice, system, idle, waiting for I/O, interrupts, soft interrupts, stolen.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum::<u64>();
    busy as f64 / TICKS_PER_SECOND
}

/// Resident bytes. A page that several of the processes share counts once in all, not for each.
pub fn resident_bytes(processes: &[u32]) -> u64 {
    processes.iter().filter_map(|process| resident(*process)).sum()
}

fn resident(process: u32) -> Option<u64> {
    let text = read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A number of /proc/PID/stat, counted from the state behind the name, which is 0.
fn field(process: u32, index: usize) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio, id};

    #[test]
    fn cpu_is_counted_in_seconds() {
        let before = cpu_seconds(&[id()]);
        // The clock of this thread alone: other tests of the process only add to the count.
        let own = || {
            let stat = read_to_string("/proc/thread-self/schedstat").expect("Linux");
            let first = stat.split(' ').next().and_then(|number| number.parse::<f64>().ok());
            first.expect("a number") / 1e9
        };
        let begun = own();
        while own() - begun < 0.3 {}
        assert!((0.28..3.0).contains(&(cpu_seconds(&[id()]) - before)));
    }

    #[test]
    fn children_and_their_memory_count() {
        let script = "read line";
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn();
        let mut child = child.expect("a shell");
        let processes = tree(id());
        assert!(processes.contains(&child.id()) && processes[0] == id());
        assert!(resident_bytes(&processes) > resident_bytes(&processes[..1]));
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(tree(child.id()).is_empty());
    }
}
