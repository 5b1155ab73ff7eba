//! What the writer is asked to do, and how it answers.

use super::super::{Publication, Published, StoreError};
use super::Ticket;
use crate::core::cursor::EventId;
use crate::core::event::{ChannelName, Event};
use tokio::sync::{mpsc, oneshot};

/// Most commands and bytes in one commit: bounds its memory and the wait of its first.
const BATCH_COMMANDS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// One command.
pub enum WriteCommand {
    Publish(Publication, Reply<Published>, Ticket),
    Close(ChannelName, Reply<EventId>, Ticket),
    Reopen(ChannelName, Reply<()>, Ticket),
    Settle(oneshot::Sender<()>),
    Sweep,
    Stop,
}

/// An answer that waits for the commit.
pub type Pending = Box<dyn FnOnce(Result<(), StoreError>)>;

/// Answers a command that had no turn.
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

/// The command's answer goes out after the commit.
pub fn answer_later<T: 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Pending {
    // A publisher that has left gets no answer. A refusal stays one, whatever became of the commit.
    Box::new(move |committed| drop(reply.send(result.and_then(|done| committed.map(|()| done)))))
}

/// The first command and all that wait behind it, within the limits of a commit.
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
