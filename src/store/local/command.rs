//! The commands for the writer and how they are answered.

use super::super::{Publication, Published, StoreError};
use super::Ticket;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use tokio::sync::{mpsc, oneshot};

/// Maximum number of commands and bytes in one commit. They bound the memory of a commit and the
/// time that its first command waits.
const BATCH_COMMANDS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A command for the writer, with the channel for its reply.
pub enum WriteCommand {
    Publish(Publication, Reply<Published>, Ticket),
    Close(ChannelName, Reply<EventId>, Ticket),
    Reopen(ChannelName, Reply<()>, Ticket),
    Settle(oneshot::Sender<()>),
    Sweep,
    Stop,
}

/// An answer that is sent after the commit, with the outcome of that commit.
pub type Pending = Box<dyn FnOnce(Result<(), StoreError>)>;

/// Refuses a command because the log cannot be written. Returns `None` for a withdrawn command and
/// for a command without a reply.
pub fn refuse(command: WriteCommand) -> Option<Pending> {
    fn refuse<T: 'static>(reply: Reply<T>, ticket: &Ticket) -> Option<Pending> {
        let why = || StoreError::Down("the log cannot be written".to_owned());
        let is_waiting = ticket.take();
        is_waiting.then(|| -> Pending {
            Box::new(move |outcome| drop(reply.send(Err(outcome.err().unwrap_or_else(why)))))
        })
    }
    match command {
        WriteCommand::Publish(_, reply, ticket) => refuse(reply, &ticket),
        WriteCommand::Close(_, reply, ticket) => refuse(reply, &ticket),
        WriteCommand::Reopen(_, reply, ticket) => refuse(reply, &ticket),
        WriteCommand::Settle(reply) => Some(Box::new(|_| reply.send(()).unwrap_or_default())),
        WriteCommand::Sweep | WriteCommand::Stop => None,
    }
}

/// Returns the answer to a command, which is sent after the commit.
pub fn answer_later<T: 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Pending {
    // Sending fails when the publisher has left, which is no error. A refused command stays refused
    // whatever the outcome of the commit.
    Box::new(move |committed| drop(reply.send(result.and_then(|done| committed.map(|()| done)))))
}

/// Takes the first command and all commands that wait behind it, within the limits of a commit. The
/// flag says whether a stop was among them; commands behind the stop are not taken.
pub fn take_waiting(
    first: WriteCommand,
    queue: &mut mpsc::Receiver<WriteCommand>,
) -> (Vec<WriteCommand>, bool) {
    let mut commands = Vec::new();
    let (mut bytes, mut next) = (0, Some(first));
    while let Some(command) = next {
        if matches!(command, WriteCommand::Stop) {
            return (commands, true);
        }
        if let WriteCommand::Publish(publication, ..) = &command {
            bytes += publication.events.iter().map(Event::weight).sum::<usize>();
        }
        commands.push(command);
        let is_full = commands.len() == BATCH_COMMANDS_MAX || bytes > BATCH_BYTES_MAX;
        next = if is_full { None } else { queue.try_recv().ok() };
    }
    (commands, false)
}
