//! The resources that this process uses, and those that the machine grants it.

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};
use std::path::{Path, PathBuf};

/// The resources that the process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads so far, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: i64,
    /// Virtual memory, in bytes.
    pub virtual_bytes: i64,
    /// The start of the process, in seconds since the Unix epoch.
    pub start_seconds: f64,
    /// The number of open file descriptors.
    pub open_files: i64,
    /// The most file descriptors that the process may open.
    pub max_files: i64,
}

/// Reads the usage from `/proc/self`. Most values are zero if it does not exist.
pub fn usage() -> Usage {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (ticks_per_second, page_bytes) = (clock_ticks_per_second(), page_size());
    let (own, memory) = (read("/proc/self/stat"), read("/proc/self/statm"));
    let usage = parse(&own, &memory, ticks_per_second, page_bytes);
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let max_files = rlimit::Resource::NOFILE.get_soft().unwrap_or(0);
    // `/proc/self/stat` has this time too, in whole ticks of 10 ms.
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Usage {
        cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        // The kernel counts the start from the boot.
        start_seconds: usage.start_seconds + boot_seconds(&read("/proc/stat")),
        open_files: files as i64,
        max_files: max_files as i64,
        ..usage
    }
}

/// Returns the time of the boot, in seconds since the Unix epoch.
fn boot_seconds(stat: &str) -> f64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0)
}

/// Returns the memory that this process may use, in bytes: that of the machine, or that of its
/// control groups (a container, a service of systemd) if it is less.
pub fn memory_limit() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let machine = memory_of_machine(&read(Path::new("/proc/meminfo")));
    let groups = read(Path::new("/proc/self/cgroup"));
    let limits = group_limits(Path::new("/sys/fs/cgroup"), &groups).into_iter();
    // "max" in version 2 and nearly 2^63 in version 1 stand for no limit.
    let limits = limits.filter_map(|path| read(&path).trim().parse::<u64>().ok());
    limits.chain([machine]).min().unwrap_or(machine)
}

/// Returns the files that may have a limit of the memory of a process: those of its control group
/// and of all groups above it. `groups` is the text of `/proc/self/cgroup`, and `root` is where the
/// groups are mounted. A container often sees its own group as the root.
fn group_limits(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (mount, names) = match kinds {
            "" => (root.to_owned(), &["memory.max", "memory.high"][..]),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                (root.join("memory"), &["memory.limit_in_bytes"][..])
            }
            _ => continue,
        };
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            files.extend(names.iter().map(|name| mount.join(group).join(name)));
        }
    }
    files
}

fn memory_of_machine(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}

/// Raises the limit of open files as far as the machine allows, and returns that limit.
pub fn raise_file_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024)
}

fn parse(stat: &str, statm: &str, ticks_per_second: u64, page_bytes: usize) -> Usage {
    // The second field is the name of the program in parentheses, and the name may contain
    // anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index| after_name.split_whitespace().nth(index)?.parse::<f64>().ok();
    let seconds = |index| field(index).unwrap_or(0.0) / ticks_per_second as f64;
    let pages = |index| statm.split_whitespace().nth(index)?.parse::<i64>().ok();
    let bytes = |index| pages(index).unwrap_or(0) * page_bytes as i64;
    // The field 22 of proc(5), counted from the third one.
    Usage {
        start_seconds: seconds(19),
        virtual_bytes: bytes(0),
        resident_bytes: bytes(1),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_known() {
        assert_eq!(memory_of_machine("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2 << 20);
        assert!(memory_limit() > 1 << 20);
    }

    #[test]
    fn the_limits_of_a_group_and_of_those_above_it_are_read() {
        let root = Path::new("/g");
        let files = |groups| group_limits(root, groups);
        let paths = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
        let service = "0::/system.slice/headwater.service\n";
        let expected = [
            "system.slice/headwater.service/memory.max",
            "system.slice/headwater.service/memory.high",
            "system.slice/memory.max",
            "system.slice/memory.high",
            "memory.max",
            "memory.high",
        ];
        assert_eq!(files(service), paths(&expected));
        // A container with version 2, and one with version 1.
        assert_eq!(files("0::/\n"), paths(&["memory.max", "memory.high"]));
        let version_1 = "12:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n1:name=systemd:/\n";
        let expected = ["docker/1f", "docker", ""].map(|group| root.join("memory").join(group));
        let expected = expected.map(|group| group.join("memory.limit_in_bytes"));
        assert_eq!(files(version_1), expected);
        assert_eq!(files(""), paths(&[]));
    }

    #[test]
    fn the_processor_time_is_more_precise_than_a_tick() {
        let before = usage().cpu_seconds;
        let after = usage().cpu_seconds;
        assert!(0.0 < before && before < after, "{before} and {after}");
    }

    #[test]
    fn proc_is_read_behind_the_name() {
        let stat = "42 (a) b) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        let usage = parse(stat, "100 25 10 1 0 2 0", 100, 65_536);
        assert_eq!(usage.resident_bytes, 25 * 65_536, "pages are larger on some machines");
        assert_eq!(usage.virtual_bytes, 100 * 65_536);
        assert_eq!(usage.start_seconds, 0.01);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), 1_700_000_000.0);
        assert_eq!(parse("", "", 100, 4_096).start_seconds, 0.0);
    }
}
