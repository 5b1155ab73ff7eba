//! Files in memory that fail on purpose, for the tests of the log.
#![cfg(test)]

use super::files::{File, Files, Memory, MemoryFile};
use std::io;
use std::sync::Arc;

/// Is called before an operation. The operation fails with its error.
pub type Hook = Box<dyn Fn() -> io::Result<()> + Send + Sync>;
/// Is called with the name of a file.
pub type NameHook = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// Files in memory.
pub struct FaultyFiles {
    pub memory: Memory,
    /// Is called before the file with this name is created.
    pub create: NameHook,
    /// Returns what stands for the file with this name once it is open.
    pub open: fn(&str, Arc<dyn File>) -> Arc<dyn File>,
}

/// A file with a hook for reads and one for writes.
pub struct FaultyFile {
    pub file: Arc<dyn File>,
    pub read: Hook,
    pub write: Hook,
}

impl FaultyFiles {
    pub fn new(memory: Memory) -> Self {
        Self { memory, create: Box::new(|_| Ok(())), open: |_, file| file }
    }
}

impl FaultyFile {
    pub fn new(file: Arc<dyn File>) -> Self {
        Self { file, read: Box::new(|| Ok(())), write: Box::new(|| Ok(())) }
    }

    /// A file of 1,000 bytes that cannot be read.
    pub fn unreadable(error: fn() -> io::Error) -> Self {
        let file = MemoryFile::default();
        file.write_at(&[1; 1_000], 0).expect("it is in memory");
        Self { read: Box::new(move || Err(error())), ..Self::new(Arc::new(file)) }
    }
}

impl File for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (self.read)()?;
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.write)()?;
        self.file.write_at(bytes, offset)
    }
    fn cut_at(&self, length: u64) -> io::Result<()> {
        (self.write)()?;
        self.file.cut_at(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

impl Files for FaultyFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.memory.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        (self.create)(name)?;
        self.memory.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok((self.open)(name, self.memory.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.memory.sync_names()
    }
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.memory.free_bytes()
    }
    fn still_there(&self) -> io::Result<()> {
        self.memory.still_there()
    }
    fn is_durable(&self) -> bool {
        self.memory.is_durable()
    }
}
