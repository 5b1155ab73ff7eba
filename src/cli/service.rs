//! The messages to a service manager (systemd), over the socket that `NOTIFY_SOCKET` names. See
//! sd_notify(3). Without that variable nothing is sent.

use sd_notify::NotifyState;
use std::time::Duration;

/// Tells the service manager that the process serves requests.
pub fn is_ready() {
    send(&[NotifyState::Ready]);
}

/// Tells the service manager that the process drains, and that this may take as long as `most`.
pub fn is_stopping(most: Duration) {
    let most = u32::try_from(most.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(most)]);
}

/// Tells the service manager again and again that the process works, if it asks for that
/// (`WatchdogSec=`). This future never completes.
pub async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // systemd recommends half of the limit.
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be reached (NOTIFY_SOCKET)");
    }
}
