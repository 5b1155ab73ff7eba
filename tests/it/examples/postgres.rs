//! A PostgreSQL server of its own for a test, which can be reached over a socket in its directory
//! only.

use crate::kit::redis::signal;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::sleep;

/// Debian keeps the programs of the server out of the PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The user `nobody` of Debian: PostgreSQL does not run as root.
const NOBODY: u32 = 65534;

/// A running server. It ends when the value is dropped.
pub struct Postgres {
    child: Child,
    directory: TempDir,
}

impl Postgres {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the cluster");
        if is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may do that");
        }
        let path = directory.path().display().to_string();
        let data = format!("{path}/data");
        let fixed =
            ["--auth=trust", "--username=test", "--encoding=UTF8", "--locale=C", "--no-sync"];
        let mut initdb = program("initdb", directory.path());
        let made = initdb.args(fixed).args(["-D", &data]).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = program("postgres", directory.path());
        // It has no address, so that it needs no free port.
        server.args(["-D", &data, "-k", &path, "-c", "listen_addresses=", "-c", "fsync=off"]);
        let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        let postgres = Self { child, directory };
        let answers = async {
            while postgres.psql(&["-c", "SELECT 1"]).is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        super::program::within_patience("PostgreSQL answers", answers).await;
        postgres
    }

    /// The variables with which clients find it.
    pub fn variables(&self) -> [(&'static str, String); 3] {
        let directory = self.directory.path().display().to_string();
        [
            ("PGHOST", directory),
            ("PGUSER", "test".to_owned()),
            ("PGDATABASE", "postgres".to_owned()),
        ]
    }

    /// Runs SQL, and returns its rows with `|` between the columns.
    pub fn run(&self, sql: &str) -> Vec<String> {
        let output = self.psql(&["-c", sql]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        output.lines().map(str::to_owned).collect()
    }

    fn psql(&self, arguments: &[&str]) -> Result<String, String> {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).args(arguments);
        let output = psql.envs(self.variables()).output().expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate shutdown: its processes and its shared memory are gone when it has ended.
        signal(self.child.id(), "QUIT");
        self.child.wait().ok();
    }
}

/// A program of the server in the newest version that is installed, as a user that may run it.
fn program(name: &str, directory: &Path) -> Command {
    let versions = std::fs::read_dir(DEBIAN).expect("PostgreSQL is installed (run tests/run)");
    let programs = versions.map(|version| version.expect("an entry").path().join("bin").join(name));
    let newest: Option<PathBuf> = programs.filter(|path| path.exists()).max();
    let mut command = Command::new(newest.unwrap_or_else(|| panic!("{DEBIAN} has no {name}")));
    command.current_dir(directory);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
