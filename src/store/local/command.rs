//! The commands for the writer and how they are answered.

use super::super::{Publication, Published, StoreError};
use super::Ticket;
use crate::core::cursor::EventId;
use crate::core::event::ChannelName;
use std::collections::{HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};

/// Maximum number of commands and bytes in one commit. They bound the memory of a commit and the
/// time that its first command waits.
const BATCH_COMMANDS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A publish of more than this many bytes is large.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// Large publishes are added to a commit until they have this many bytes.
const LARGE_BYTES_MAX: usize = 512 * 1024;
/// The work for an event is counted as this many bytes in addition to the bytes of the event.
const EVENT_COST_BYTES: usize = 64;

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A command for the writer, with the channel for its reply.
pub enum WriteCommand {
    Publish(Publication, Reply<Published>, Ticket),
    Close(ChannelName, Reply<EventId>, Ticket),
    Erase(ChannelName, Reply<EventId>, Ticket),
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
        WriteCommand::Close(_, reply, ticket) | WriteCommand::Erase(_, reply, ticket) => {
            refuse(reply, &ticket)
        }
        WriteCommand::Reopen(_, reply, ticket) => refuse(reply, &ticket),
        WriteCommand::Settle(reply) => Some(Box::new(|_| reply.send(()).unwrap_or_default())),
        WriteCommand::Sweep | WriteCommand::Stop => None,
    }
}

/// Returns the answer to a command, which is sent after the commit. The commands of a commit are
/// checked one after the other, so the reason for a refusal may be a command that the commit was to
/// store. If the commit fails, the refused command is answered as one that was not stored.
pub fn answer_later<T: 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Pending {
    Box::new(move |committed| {
        let answer = match (result, committed) {
            (result, Ok(())) => result,
            (Ok(_), Err(failed)) => Err(failed),
            (Err(_), Err(StoreError::Unclear(why))) => Err(StoreError::Down(why)),
            (Err(_), Err(failed)) => Err(failed),
        };
        // Sending fails when the publisher has left, which is no error.
        reply.send(answer).unwrap_or_default();
    })
}

/// A command and the bytes that it adds to a commit, about.
struct Waiting {
    bytes: usize,
    command: WriteCommand,
}

impl From<WriteCommand> for Waiting {
    fn from(command: WriteCommand) -> Self {
        Self { bytes: command.bytes(), command }
    }
}

impl Waiting {
    fn is_large(&self) -> bool {
        self.bytes > SMALL_BYTES_MAX
    }
}

/// The commands that wait for the writer.
pub struct CommandQueue {
    incoming: mpsc::Receiver<WriteCommand>,
    waiting: VecDeque<Waiting>,
    /// Whether the last commit contained a large publish.
    was_large: bool,
}

impl CommandQueue {
    pub fn new(incoming: mpsc::Receiver<WriteCommand>) -> Self {
        Self { incoming, waiting: VecDeque::new(), was_large: false }
    }

    /// Whether all senders are dropped.
    pub fn is_closed(&self) -> bool {
        self.incoming.is_closed()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.incoming.is_empty()
    }

    /// Whether more than one command waits.
    pub fn has_several(&self) -> bool {
        self.waiting.len() + self.incoming.len() > 1
    }

    /// Takes the commands of the next commit, within the limits of a commit. The flag says whether
    /// a stop was among them; commands behind the stop are not taken.
    ///
    /// While small commands wait, only every second commit contains large publishes, so that a
    /// small publish waits for one of them and not for all. The commands of a channel keep their
    /// order.
    pub fn take(&mut self) -> (Vec<WriteCommand>, bool) {
        while self.waiting.len() < BATCH_COMMANDS_MAX
            && let Ok(command) = self.incoming.try_recv()
        {
            self.waiting.push_back(command.into());
        }
        let large_bytes_max = if self.was_large { 0 } else { LARGE_BYTES_MAX };
        self.was_large = false;
        match self.select(large_bytes_max) {
            (commands, false) if commands.is_empty() => self.select(LARGE_BYTES_MAX),
            taken => taken,
        }
    }

    /// Takes commands out of the waiting ones, in their order. Large publishes are taken until they
    /// have `large_bytes_max` bytes.
    fn select(&mut self, large_bytes_max: usize) -> (Vec<WriteCommand>, bool) {
        let (mut commands, mut kept) = (Vec::new(), VecDeque::new());
        let (mut bytes, mut large_bytes) = (0, 0);
        let mut postponed = HashSet::new();
        while let Some(waiting) = self.waiting.pop_front() {
            if matches!(waiting.command, WriteCommand::Stop) {
                if kept.is_empty() {
                    return (commands, true);
                }
                kept.push_back(waiting);
                kept.append(&mut self.waiting);
                break;
            }
            let channel = waiting.command.channel();
            if bytes > BATCH_BYTES_MAX
                || waiting.is_large() && large_bytes >= large_bytes_max
                || channel.is_some_and(|name| postponed.contains(name))
            {
                postponed.extend(channel.cloned());
                kept.push_back(waiting);
                continue;
            }
            if waiting.is_large() {
                large_bytes += waiting.bytes;
                self.was_large = true;
            }
            bytes += waiting.bytes;
            commands.push(waiting.command);
        }
        self.waiting = kept;
        (commands, false)
    }
}

impl WriteCommand {
    /// Returns the bytes that a small publish adds to a commit, about, and `None` for other
    /// commands.
    pub fn small_bytes(&self) -> Option<usize> {
        let bytes = matches!(self, Self::Publish(..)).then(|| self.bytes());
        bytes.filter(|bytes| *bytes <= SMALL_BYTES_MAX)
    }

    /// Returns the bytes that the command adds to a commit, about.
    fn bytes(&self) -> usize {
        let Self::Publish(publication, ..) = self else { return 0 };
        publication.events.iter().map(|event| EVENT_COST_BYTES + event.weight()).sum()
    }

    fn channel(&self) -> Option<&ChannelName> {
        match self {
            Self::Publish(publication, ..) => Some(&publication.channel),
            Self::Close(channel, ..) | Self::Erase(channel, ..) | Self::Reopen(channel, ..) => {
                Some(channel)
            }
            Self::Settle(_) | Self::Sweep | Self::Stop => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Event;

    fn publish(channel: &str, bytes: usize) -> WriteCommand {
        let (reply, _) = oneshot::channel();
        let events = vec![Event::new(None, None, "x".repeat(bytes), false)];
        let channel = ChannelName::parse(channel).unwrap();
        let publication = Publication { channel, events, idempotency: None };
        WriteCommand::Publish(publication, reply, Ticket::default())
    }

    fn queue(commands: Vec<WriteCommand>) -> CommandQueue {
        let (sender, incoming) = mpsc::channel(BATCH_COMMANDS_MAX);
        commands.into_iter().for_each(|command| sender.try_send(command).unwrap());
        CommandQueue::new(incoming)
    }

    /// Takes commits until nothing waits. A command is shown as the name of its channel.
    fn commits(queue: &mut CommandQueue) -> Vec<String> {
        let mut commits = Vec::new();
        while !queue.is_empty() {
            let (commands, is_stopped) = queue.take();
            let names = commands.iter().map(|command| command.channel().unwrap().to_string());
            let stop = is_stopped.then(|| "stop".to_owned());
            commits.push(names.chain(stop).collect::<Vec<_>>().join(" "));
        }
        commits
    }

    #[test]
    fn a_small_publish_waits_for_one_commit_with_large_ones() {
        let large = |name| publish(name, LARGE_BYTES_MAX);
        let mut queue = queue(vec![large("a"), large("b"), publish("small", 1), large("c")]);
        assert_eq!(commits(&mut queue), ["a small", "b", "c"]);
        queue.waiting.extend([large("a"), publish("small", 1)].map(Waiting::from));
        assert_eq!(commits(&mut queue), ["small", "a"]);
    }

    #[test]
    fn large_publishes_share_a_commit_up_to_a_limit() {
        let commands = (0..10).map(|_| publish("a", LARGE_BYTES_MAX / 4)).collect();
        assert_eq!(commits(&mut queue(commands)), ["a a a a", "a a a a", "a a"]);
    }

    #[test]
    fn a_commit_has_no_more_than_its_bytes_and_commands() {
        // A small publish goes into the commit while it has no more than 8 MiB.
        let mut queue = queue((0..200).map(|_| publish("a", SMALL_BYTES_MAX - 64)).collect());
        assert_eq!(queue.take().0.len(), 129);
        assert_eq!(queue.take().0.len(), 71);
        let (sender, incoming) = mpsc::channel(1_500);
        (0..1_500).for_each(|_| sender.try_send(publish("a", 1)).unwrap());
        let mut queue = CommandQueue::new(incoming);
        assert_eq!(queue.take().0.len(), 1_024);
        assert_eq!(queue.take().0.len(), 476);
    }

    #[test]
    fn a_publish_of_more_than_64_kib_is_large() {
        let of_weight = |bytes: usize| publish("a", bytes - EVENT_COST_BYTES);
        assert_eq!(of_weight(65_536).small_bytes(), Some(65_536));
        assert_eq!(of_weight(65_537).small_bytes(), None);
        assert!(!Waiting::from(of_weight(65_536)).is_large());
        assert!(Waiting::from(of_weight(65_537)).is_large());
    }

    #[test]
    fn each_command_that_waits_is_refused_with_the_reason() {
        let name = || ChannelName::parse("a").unwrap();
        let withdrawn = || {
            let ticket = Ticket::default();
            assert!(ticket.withdraw());
            ticket
        };
        fn refused<T: 'static>(
            outcome: Result<(), StoreError>,
            command: impl FnOnce(Reply<T>) -> WriteCommand,
        ) -> Option<String> {
            let (reply, mut answer) = oneshot::channel();
            refuse(command(reply))?(outcome);
            Some(answer.try_recv().unwrap().err().unwrap().to_string())
        }
        let full = || Err::<(), _>(StoreError::Down("the disk is full".to_owned()));
        let why = full().unwrap_err().to_string();
        for (ticket, why) in [(Ticket::default as fn() -> _, Some(why)), (withdrawn, None)] {
            let publish = |reply| {
                let publication =
                    Publication { channel: name(), events: vec![], idempotency: None };
                WriteCommand::Publish(publication, reply, ticket())
            };
            assert_eq!(refused(full(), publish), why);
            let close = |reply| WriteCommand::Close(name(), reply, ticket());
            assert_eq!(refused(full(), close), why);
            let erase = |reply| WriteCommand::Erase(name(), reply, ticket());
            assert_eq!(refused(full(), erase), why);
            let reopen = |reply| WriteCommand::Reopen(name(), reply, ticket());
            assert_eq!(refused(full(), reopen), why);
        }
        let close = |reply| WriteCommand::Close(name(), reply, Ticket::default());
        assert!(refused(Ok(()), close).unwrap().contains("cannot be written"));
        let (reply, mut settled) = oneshot::channel();
        refuse(WriteCommand::Settle(reply)).unwrap()(full());
        assert!(settled.try_recv().is_ok());
        assert!(refuse(WriteCommand::Sweep).is_none() && refuse(WriteCommand::Stop).is_none());
    }

    #[test]
    fn a_channel_keeps_the_order_of_its_commands() {
        let large = |name| publish(name, LARGE_BYTES_MAX);
        let mut queue = queue(vec![large("a"), large("b"), publish("b", 1), publish("c", 1)]);
        assert_eq!(commits(&mut queue), ["a c", "b b"]);
    }

    #[test]
    fn a_command_is_not_refused_because_of_one_that_was_not_stored() {
        let answer = |result: Result<(), StoreError>, committed: Result<(), StoreError>| {
            let (reply, mut answer) = oneshot::channel();
            answer_later(reply, result)(committed);
            answer.try_recv().unwrap()
        };
        let unclear = || Err(StoreError::Unclear("the disk did not confirm it".into()));
        assert!(matches!(answer(Err(StoreError::Closed), Ok(())), Err(StoreError::Closed)));
        // The channel may have been ended by a command of the same commit.
        assert!(matches!(answer(Err(StoreError::Closed), unclear()), Err(StoreError::Down(_))));
        assert!(matches!(answer(Ok(()), unclear()), Err(StoreError::Unclear(_))));
    }

    #[test]
    fn a_stop_waits_for_the_commands_before_it() {
        let large = |name| publish(name, LARGE_BYTES_MAX);
        let mut queue = queue(vec![large("a"), large("b"), WriteCommand::Stop]);
        assert_eq!(commits(&mut queue), ["a", "b stop"]);
    }
}
