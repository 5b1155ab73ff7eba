//! The fan-out: sends the live streams of plain HTTP/1.1 connections.
//!
//! A stream that has caught up with its channels waits for the same bytes as all other such streams
//! with the same channels, format and end. The task of the connection then gives the socket to a
//! pump, a thread that sends to all of them. The task sleeps until the pump returns the socket:
//! when the response is complete, or when the subscriber has to continue on its own. Meanwhile a
//! subscriber costs no timer, no future of a stream and no buffer.
//!
//! There is one pump for each processor. Each pump watches its own sockets and has its own groups.
//! The pumps share the channels and the counters of the metrics, and they compare their loads, so
//! that subscribers can move from a busy pump to another one.

pub mod group;
mod pump;
pub mod socket;
mod tests;
pub mod window;

use crate::hub::event_stream::CountedStream;
use group::{Joiner, Outcome};
use parking_lot::Mutex;
use pump::{AllPumps, Pump};
use socket::Socket;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

/// The pumps of a process. Dropping them closes the connections that they still have.
pub struct Pumps {
    pumps: AllPumps,
    threads: Mutex<Vec<JoinHandle<()>>>,
    died: Arc<Notify>,
}

/// Reports when its thread panics.
struct Watch(Arc<Notify>);

impl Pumps {
    /// Starts `count` pumps, whose streams use the runtime of the caller, and whose windows share
    /// `windows_bytes` bytes.
    ///
    /// # Errors
    /// Fails when the process has no file descriptor or no thread left.
    pub fn start(count: usize, windows_bytes: usize) -> io::Result<Self> {
        let (all, pumps) = Pump::all(count.max(1), windows_bytes)?;
        let (mut threads, died) = (Vec::new(), Arc::new(Notify::new()));
        for (number, pump) in all.into_iter().enumerate() {
            let (runtime, watch) = (Handle::current(), Watch(died.clone()));
            let name = format!("headwater-pump{number}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || {
                let _watch = watch;
                let _entered = runtime.enter();
                pump.run();
            })?);
        }
        Ok(Self { pumps, threads: Mutex::new(threads), died })
    }

    /// Completes with a message when a pump has died. Its streams are then lost, and the process
    /// has to be started again.
    pub async fn failed(&self) -> String {
        self.died.notified().await;
        "a thread of the fan-out has died (see the messages before this one); nothing \
         acknowledged is lost, start the process again"
            .to_owned()
    }

    /// Sends a live stream on a connection, by the pump with the fewest subscribers, and returns why
    /// that has ended. Everything up to the places of the stream was sent.
    pub async fn send(&self, socket: Socket, stream: Box<CountedStream>) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let Some(pump) = self.pumps.iter().min_by_key(|pump| pump.load()) else {
            return Outcome::Gone;
        };
        pump.join(Joiner { socket, stream, reply });
        outcome.await.unwrap_or(Outcome::Gone)
    }

    /// Ends the pumps, and waits for them.
    pub fn stop(&self) {
        self.pumps.iter().for_each(|pump| pump.stop());
        let mut threads = self.threads.lock();
        threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The notification is stored for a waiter that comes later.
            self.0.notify_one();
        }
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        self.stop();
    }
}
