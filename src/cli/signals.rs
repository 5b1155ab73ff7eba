//! What the process does with signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process acts on, and those that it must survive.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    ignored: [(&'static str, Signal); 3],
    /// A write over the limit of a file's size: the write itself fails too, and that is handled.
    _file_size: Signal,
}

/// SIGXFSZ, for which tokio has no name; 25 on every Linux but MIPS and PA-RISC.
const FILE_SIZE: i32 = 25;

impl Signals {
    /// Takes them over from now on.
    ///
    /// # Errors
    /// When the system has no room for a handler.
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

    /// Ends with the next SIGTERM or SIGINT: both ask the process to stop.
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
