//! The signals that the process handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process obeys, and the signals that it must survive.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    ignored: [(&'static str, Signal); 2],
    /// The signal of a write beyond the size limit of a file. It is ignored, because the write also
    /// fails with an error, which is handled.
    _file_size: Signal,
}

/// The request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP: read the settings again.
    Reload,
}

/// The number of SIGXFSZ, for which tokio has no name: 25 on every Linux except MIPS and PA-RISC.
const FILE_SIZE: i32 = 25;

impl Signals {
    /// Installs the handlers, so that from now on none of these signals ends the process by itself.
    ///
    /// # Errors
    /// Fails when the system cannot install a handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            ignored: [
                ("SIGUSR1", signal(SignalKind::user_defined1())?),
                ("SIGUSR2", signal(SignalKind::user_defined2())?),
            ],
            _file_size: signal(SignalKind::from_raw(FILE_SIZE))?,
        })
    }

    /// Completes at the next signal that requests something.
    pub async fn next(&mut self) -> Requested {
        let Self { terminate, interrupt, hangup, ignored: [one, two], .. } = self;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => return Requested::Stop,
                _ = interrupt.recv() => return Requested::Stop,
                _ = hangup.recv() => return Requested::Reload,
                _ = one.1.recv() => one.0,
                _ = two.1.recv() => two.0,
            };
            tracing::info!("{name} is ignored: there is nothing that it could reopen");
        }
    }
}
