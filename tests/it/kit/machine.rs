//! Disks that tests can fill or freeze, and a clock that tests can set. Mounting a disk needs root.

use crate::kit::Origin;
use std::process::Command;

/// A small tmpfs that a test can fill up.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub fn of(size: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path());
        assert!(mount.status().expect("mount runs").success(), "a tmpfs is mounted (needs root)");
        Self(directory)
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let mount = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(mount.expect("mount runs").success());
    }
}

/// An ext4 file system in an image file (64 MiB), which a test can freeze.
pub struct LoopDisk {
    directory: tempfile::TempDir,
    _image: tempfile::NamedTempFile,
}

impl LoopDisk {
    pub fn new() -> Self {
        let image = tempfile::NamedTempFile::new().expect("a file");
        image.as_file().set_len(64 << 20).expect("a sparse file");
        let directory = tempfile::tempdir().expect("a directory");
        let run = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).arg(image.path());
            if program == "mount" {
                command.arg(directory.path());
            }
            assert!(command.status().expect("it runs").success(), "{program} (needs root)");
        };
        run("mkfs.ext4", &["-q"]);
        run("mount", &["-o", "loop"]);
        Self { directory, _image: image }
    }

    pub fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Freezes the file system: every write blocks until the returned value is dropped.
    pub fn freeze(&self) -> Frozen<'_> {
        self.fsfreeze("-f");
        Frozen(self)
    }

    fn fsfreeze(&self, what: &str) {
        let status = Command::new("fsfreeze").arg(what).arg(self.path()).status();
        assert!(status.expect("fsfreeze runs").success());
    }
}

/// A frozen disk; dropping it thaws the disk. It must be dropped before the processes that wait for
/// the disk, because they cannot end earlier. The borrow ensures this also where a test fails.
pub struct Frozen<'a>(&'a LoopDisk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.fsfreeze("-u");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // With `-l`, the mount stays usable for a process that has a file open, until the process
        // ends.
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// A clock, set by libfaketime, that child processes follow and that a test can change.
pub struct SteppedClock(tempfile::NamedTempFile);

impl SteppedClock {
    pub fn new() -> Self {
        let clock = Self(tempfile::NamedTempFile::new().expect("a file"));
        clock.set("+0");
        clock
    }

    pub fn set(&self, off: &str) {
        std::fs::write(self.0.path(), off).expect("it is written");
    }

    /// The words to put before the command of a process that follows this clock.
    pub fn wrapper(&self) -> Vec<String> {
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.0.path().display());
        // libc is preloaded too: with jemalloc, which Redis is linked to, libfaketime would
        // otherwise call itself in an endless recursion.
        let library = "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1:libc.so.6";
        let fixed = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
        ["env", library, &file, fixed[0], fixed[1]].map(str::to_owned).into()
    }

    pub fn origin(&self, flags: &[&str]) -> Origin {
        let wrapper = self.wrapper();
        Origin::wrapped(&wrapper.iter().map(String::as_str).collect::<Vec<_>>(), flags)
    }
}
