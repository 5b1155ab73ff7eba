//! Most tests wait more than they compute, so many run at once; tests that load the machine take turns.
//!
//! `tests/run` runs the tests with browsers in one process, and all others in a second process. A
//! test therefore holds two locks: one in memory for its process, and one on a file for both
//! processes. The tests of a process get the lock in memory in the order of their requests.

use std::fs::File;
use std::io;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static LOAD: RwLock<()> = RwLock::const_new(());

/// The turn of a test. The next one begins when it is dropped.
pub struct Turn<Guard> {
    _file: File,
    _guard: Guard,
}

/// For a test that loads the machine: no other such test runs beside it.
pub async fn alone() -> Turn<RwLockWriteGuard<'static, ()>> {
    let _guard = LOAD.write().await;
    Turn { _file: lock(File::lock).await, _guard }
}

/// For a test that looks at delays: no test that loads the machine runs beside it.
pub async fn quiet() -> Turn<RwLockReadGuard<'static, ()>> {
    let _guard = LOAD.read().await;
    Turn { _file: lock(File::lock_shared).await, _guard }
}

/// Locks the file that both processes know.
async fn lock(how: fn(&File) -> io::Result<()>) -> File {
    let open = |name| File::create(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    let locked = tokio::task::spawn_blocking(move || {
        // The holder of this lock is the next one. Shared locks would otherwise keep an exclusive
        // one waiting as long as new ones follow.
        let next = open("load.next")?;
        next.lock()?;
        let load = open("load")?;
        how(&load)?;
        Ok::<_, io::Error>(load)
    });
    locked.await.expect("no panic").expect("the file is locked")
}
