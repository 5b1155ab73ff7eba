//! The signals that the process handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the process, and the signals that it must survive.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    ignored: [(&'static str, Signal); 3],
    /// The signal of a write beyond the size limit of a file. It is ignored, because the write also
    /// fails with an error, which is handled.
    _file_size: Signal,
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
            ignored: [
                ("SIGHUP", signal(SignalKind::hangup())?),
                ("SIGUSR1", signal(SignalKind::user_defined1())?),
                ("SIGUSR2", signal(SignalKind::user_defined2())?),
            ],
            _file_size: signal(SignalKind::from_raw(FILE_SIZE))?,
        })
    }

    /// Completes at the next SIGTERM or SIGINT, which both request a stop.
    pub async fn next(&mut self) {
        let Self { terminate, interrupt, ignored: [one, two, three], .. } = self;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = one.1.recv() => one.0,
                _ = two.1.recv() => two.0,
                _ = three.1.recv() => three.0,
            };
            tracing::info!("{name} is ignored: there is nothing that it could reload or reopen");
        }
    }
}
