//! `serve` under a service manager. systemd does not run in these tests: a socket of the test
//! receives the messages that `serve` sends, and `systemd-analyze` checks the unit files.

use crate::kit::{Origin, PATIENCE};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

/// The highest exposure that `systemd-analyze security` may report, of 10.
const EXPOSURE_MAX: &str = "--threshold=20";

/// Waits for the messages up to one that has this line.
fn receive(socket: &UnixDatagram, wanted: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let count = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
        if message.lines().any(|line| line == wanted) {
            return message;
        }
    }
}

#[tokio::test]
async fn the_service_manager_learns_of_the_start_the_stop_and_that_the_process_lives() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    let mut origin =
        Origin::wrapped(&["env", &notify, "WATCHDOG_USEC=400000"], &["--store", "memory"]);
    receive(&socket, "READY=1");
    receive(&socket, "WATCHDOG=1");
    receive(&socket, "WATCHDOG=1");
    origin.signal("TERM");
    let stopping = receive(&socket, "STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=75000000"), "{stopping}");
    assert!(origin.ended().await.success());
}

#[test]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    let directory = tempfile::tempdir().expect("a directory");
    // The program is not installed here, so the unit names another one that is.
    let units = ["headwater.service", "headwater.socket", "headwater-backup.service"];
    for unit in units.iter().copied().chain(["headwater-backup.timer"]) {
        let text = std::fs::read_to_string(format!("deploy/systemd/{unit}")).expect("a unit");
        let text = text.replace("/usr/bin/headwater", "/bin/true");
        std::fs::write(directory.path().join(unit), text).expect("a file");
    }
    let path = |unit: &str| directory.path().join(unit).display().to_string();
    let [service, socket, backup] = units.map(path);
    let timer = path("headwater-backup.timer");
    for words in [
        &["verify", "--man=no", &service, &socket, &backup, &timer][..],
        &["security", "--offline=true", EXPOSURE_MAX, &service],
        &["security", "--offline=true", EXPOSURE_MAX, &backup],
    ] {
        let output = Command::new("systemd-analyze").args(words).output().expect("it runs");
        let report = [output.stdout, output.stderr].concat();
        let report = String::from_utf8_lossy(&report);
        assert!(output.status.success(), "{words:?}: {report}");
        assert!(words[0] != "verify" || report.trim().is_empty(), "{report}");
    }
}

#[tokio::test]
async fn sockets_for_another_process_are_not_used_and_this_is_logged() {
    let wrapper = ["env", "LISTEN_FDS=1", "LISTEN_PID=1"];
    let origin = Origin::wrapped(&wrapper, &["--store", "memory"]);
    origin.logs("the sockets of LISTEN_FDS are for another process").await;
    origin.publish("a", "x").await;
}
