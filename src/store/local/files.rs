//! The file layer of the log: a directory on a disk, or the same in memory.
//!
//! Everything that the log asks of an operating system stands in these two traits, so that a test
//! can put a disk in their place that tears, drops or refuses writes.

use rustix::fs::{FlockOperation, flock, statvfs};
use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The file whose lock says that a process uses the directory.
const LOCK_NAME: &str = "lock";

/// Named files in one flat place.
pub trait Files: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file; one of the same name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// A file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of the file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a file away. A handle that is still open can be read from.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names durable: what was created, renamed and removed.
    fn sync_names(&self) -> io::Result<()>;
    /// Free space in bytes; `None` where there is no such limit.
    fn free_bytes(&self) -> io::Result<Option<u64>>;
    /// Fails once the place is not the one that was opened, for example a directory that was
    /// removed.
    fn still_there(&self) -> io::Result<()>;
    /// Whether files survive the process. Where they do not, nothing is written ahead.
    fn is_durable(&self) -> bool;
}

/// One file. All offsets are in bytes.
pub trait File: Send + Sync + 'static {
    /// Its length.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on. A file that ends before is [`ErrorKind::UnexpectedEof`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`; the file grows where it must.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off at a length.
    fn cut_at(&self, length: u64) -> io::Result<()>;
    /// Makes all that was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads a whole file.
pub fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Writes a file under its final name only once all of it is durable.
pub fn write_whole(files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    write_named(files, name, |file| file.write_at(bytes, 0))
}

/// As [`write_whole`]; `write` writes what is in the file.
pub fn write_named(
    files: &dyn Files,
    name: &str,
    write: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<Arc<dyn File>> {
    let draft = format!("{name}.tmp");
    let file = files.create(&draft)?;
    write(&*file)?;
    file.sync()?;
    files.rename(&draft, name)?;
    files.sync_names()?;
    Ok(file)
}

/// A directory that this process alone uses.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked for as long as it is open.
    lock: Option<fs::File>,
}

impl Directory {
    /// Opens a directory, and creates it for its owner alone where there is none.
    ///
    /// # Errors
    /// When it cannot be created or written, and when another process uses it: the error names it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path)?;
        // One that an earlier version or a person created for everybody.
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        let lock = path.join(LOCK_NAME);
        let mut lock = private().create(true).truncate(false).open(lock)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            lock.read_to_string(&mut holder)?;
            let holder = match holder.trim() {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            let why = format!("another process{holder} has it open; give each its own --store");
            return Err(io::Error::new(ErrorKind::ResourceBusy, why));
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// A directory that exists, which no other process uses.
    ///
    /// # Errors
    /// As [`Directory::open`], and when there is none.
    pub fn existing(path: &Path) -> io::Result<Self> {
        fs::metadata(path)?;
        Self::open(path)
    }

    /// A directory that another process may be writing.
    ///
    /// # Errors
    /// When there is none.
    pub fn unlocked(path: &Path) -> io::Result<Self> {
        fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), lock: None })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let is_other = |name: &io::Result<String>| !name.as_ref().is_ok_and(|n| n == LOCK_NAME);
        names.filter(is_other).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = private().create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(private().open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let space = statvfs(&self.path)?;
        Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
    }

    fn still_there(&self) -> io::Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let ours = lock.metadata()?;
        let there = fs::metadata(self.path.join(LOCK_NAME))?;
        match (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::NotFound, "another directory is in its place")),
        }
    }

    fn is_durable(&self) -> bool {
        true
    }
}

impl File for fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut_at(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Files in this process's memory; gone with it.
#[derive(Debug, Default)]
pub struct Memory {
    files: Mutex<HashMap<String, Arc<MemoryFile>>>,
    /// In tests: to be treated as files that survive the process.
    is_durable: bool,
}

/// One of them.
#[derive(Debug, Default)]
pub struct MemoryFile(RwLock<Vec<u8>>);

#[cfg(test)]
impl Memory {
    /// Files that survive the process, as far as the log knows.
    pub fn durable(files: HashMap<String, Vec<u8>>) -> Self {
        let files = files.into_iter();
        let files = files.map(|(name, bytes)| (name, Arc::new(MemoryFile(RwLock::new(bytes)))));
        Self { files: Mutex::new(files.collect()), is_durable: true }
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> HashMap<String, Vec<u8>> {
        let bytes = |file: &MemoryFile| file.0.read().unwrap().clone();
        self.with(|files| files.iter().map(|(name, file)| (name.clone(), bytes(file))).collect())
    }
}

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Arc<MemoryFile>>) -> T) -> T {
        act(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Files for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|files| files.keys().cloned().collect()))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = Arc::new(MemoryFile::default());
        self.with(|files| files.insert(name.to_owned(), file.clone()));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.with(|files| files.get(name).cloned());
        file.map(|file| file as Arc<dyn File>).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|files| {
            let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
            files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.with(|files| files.remove(name));
        removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn still_there(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        self.is_durable
    }
}

impl File for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let found = bytes.get(from..from.saturating_add(buffer.len()));
        buffer.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[from..end].copy_from_slice(bytes);
        Ok(())
    }

    fn cut_at(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut file = self.0.write().unwrap_or_else(PoisonError::into_inner);
        file.truncate(length);
        file.shrink_to_fit();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
