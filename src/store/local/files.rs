//! The file layer of the log: a directory on a disk, or files in memory.
//!
//! The traits `Files` and `File` contain every operation that the log needs from the operating
//! system. Tests can therefore replace the disk by one that tears, drops or refuses writes.

use parking_lot::{Mutex, RwLock};
use rustix::fs::{FlockOperation, flock, statvfs};
use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that the process locks while it uses the directory.
const LOCK_NAME: &str = "lock";

/// Named files in a flat directory.
pub trait Files: Send + Sync + 'static {
    /// Returns the names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file. An existing file of the same name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Renames a file and replaces the file that had the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. A handle that is still open can be read from.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the creation, renaming and removal of files durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Returns the free space in bytes, or `None` if there is no limit.
    fn free_bytes(&self) -> io::Result<Option<u64>>;
    /// Fails when the directory was removed or replaced since it was opened.
    fn still_there(&self) -> io::Result<()>;
    /// Whether the files survive the process. If they do not, the log writes no zeros ahead of its
    /// records.
    fn is_durable(&self) -> bool;
}

/// A file. All offsets and lengths are in bytes.
pub trait File: Send + Sync + 'static {
    /// Returns the length of the file.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on. Fails with [`ErrorKind::UnexpectedEof`] when the file ends
    /// before the buffer is full.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. The file grows if necessary.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates the file to `length`.
    fn cut_at(&self, length: u64) -> io::Result<()>;
    /// Makes everything that was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads a whole file.
pub fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Writes a file so that it has its final name only after all of its bytes are durable.
pub fn write_whole(files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    write_named(files, name, |file| file.write_at(bytes, 0))
}

/// Like [`write_whole`]; the function `write` writes the content.
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

/// A directory on disk. The log opens it for this process alone.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The lock file, which is locked while it is open. `None` in a directory opened without a
    /// lock.
    lock: Option<fs::File>,
}

impl Directory {
    /// Opens a directory and locks it. A missing directory is created with access for its owner
    /// only.
    ///
    /// # Errors
    /// Fails when the directory cannot be created or written, or when another process uses it. In
    /// the second case the error contains the id of that process.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path)?;
        // The directory may have been created by an earlier version or by a person with access for
        // all users.
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

    /// Opens an existing directory and locks it.
    ///
    /// # Errors
    /// Fails in the same cases as [`Directory::open`], and when the directory does not exist.
    pub fn existing(path: &Path) -> io::Result<Self> {
        fs::metadata(path)?;
        Self::open(path)
    }

    /// Opens an existing directory without a lock. Another process may be writing to it.
    ///
    /// # Errors
    /// Fails when the directory does not exist.
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

/// Files in the memory of this process. They are lost when the process ends.
#[derive(Debug, Default)]
pub struct Memory {
    files: Mutex<HashMap<String, Arc<MemoryFile>>>,
    /// Tests set this, so that the log treats the files as if they survived the process.
    is_durable: bool,
    /// The free space in bytes, which tests limit.
    free: Mutex<Option<u64>>,
}

/// A file in memory.
#[derive(Debug, Default)]
pub struct MemoryFile(RwLock<Vec<u8>>);

#[cfg(any(test, feature = "fuzzing"))]
impl Memory {
    /// Creates files that the log treats as if they survived the process.
    pub fn durable(files: HashMap<String, Vec<u8>>) -> Self {
        let files = files.into_iter();
        let files = files.map(|(name, bytes)| (name, Arc::new(MemoryFile(RwLock::new(bytes)))));
        Self { files: Mutex::new(files.collect()), is_durable: true, ..Self::default() }
    }

    /// Sets the free space in bytes.
    pub fn set_free(&self, bytes: u64) {
        *self.free.lock() = Some(bytes);
    }

    /// Returns the names and the bytes of all files.
    pub fn bytes(&self) -> HashMap<String, Vec<u8>> {
        let bytes = |file: &MemoryFile| file.0.read().clone();
        self.with(|files| files.iter().map(|(name, file)| (name.clone(), bytes(file))).collect())
    }
}

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Arc<MemoryFile>>) -> T) -> T {
        act(&mut self.files.lock())
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
        Ok(*self.free.lock())
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
        Ok(self.0.read().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.read();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let found = bytes.get(from..from.saturating_add(buffer.len()));
        buffer.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.0.write();
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
        let mut file = self.0.write();
        file.truncate(length);
        file.shrink_to_fit();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_reports_what_the_system_refuses() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("log");
        let directory = Directory::open(&path).unwrap();
        directory.create("a").unwrap();
        assert_eq!(directory.list().unwrap(), ["a"]);
        directory.remove("a").unwrap();
        assert!(directory.list().unwrap().is_empty());
        assert_eq!(directory.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(directory.free_bytes().unwrap().is_some_and(|free| free > 0));
        directory.sync_names().unwrap();
        directory.still_there().unwrap();
        fs::rename(&path, parent.path().join("moved")).unwrap();
        assert_eq!(directory.sync_names().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(directory.still_there().unwrap_err().kind(), ErrorKind::NotFound);
        // Another directory in its place is no better.
        fs::create_dir(&path).unwrap();
        fs::write(path.join(LOCK_NAME), "").unwrap();
        assert!(directory.still_there().unwrap_err().to_string().contains("another directory"));
    }

    #[test]
    fn a_file_that_cannot_be_synced_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let file = fs::File::create(directory.path().join("file")).unwrap();
        File::sync(&file).unwrap();
        // The system syncs no device that only discards what is written.
        let device = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert_eq!(File::sync(&device).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
