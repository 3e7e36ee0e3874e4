//! The event loop of one turn: reads the CLI's output, delivers messages, enforces the limits, and stops the CLI.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{Ended, end_of, to_exit};
use crate::attempt::status::Delivered;
use crate::backend::{self, AgentEvent, Decoder, LaunchPlan, LongLine, Short, StopSignal, StopStep};
use crate::config::OnStall;
use crate::mission::outcome::{Exit, FailureKind, Usage};
use crate::process::{self, Signal, Started, Tail};
use crate::supervisor::inbox::{self, Message};
use crate::supervisor::limits::Exceeded;
use crate::supervisor::run::{Attempt, Stop};

/// Time after its final message for which a CLI with an open session waits for a background task.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// Time after an unreadable line until stdin is closed: the line may have been the final message.
const UNREAD_GRACE: Duration = Duration::from_secs(10);
/// Time that a CLI gets to exit once its stdin is closed.
const CLOSING_GRACE: Duration = Duration::from_secs(15);
/// Time between SIGKILL and giving up on a process.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Maximum time for a write to a CLI. If it does not read, the message is delivered later.
const WRITE_CEILING: Duration = Duration::from_secs(5);
/// Bytes at the end of the output that are still read after the exit. They contain the result, and a flood is not read
/// completely.
const REST: u64 = 8 * 1024 * 1024;
/// Bytes of output after which the amount of output is checked, whatever the time.
const FLOOD: u64 = 4 * 1024 * 1024;
/// Time by which events are handled early, together with another wake-up. A wake-up costs more than polling the inbox
/// or writing the status.
const EARLY: Duration = Duration::from_millis(100);
/// Bytes of a long line that are read at once.
const PIECE: usize = 64 * 1024;

/// A running CLI.
pub(super) struct Running {
    started: Started,
    stdin: Option<ChildStdin>,
    /// Comes back when the first text is written, of a CLI whose stdin is held open.
    held: Option<oneshot::Receiver<ChildStdin>>,
    tail: Tail,
    decoder: Box<dyn Decoder>,
    plan: LaunchPlan,
    stderr_from: u64,
    /// Bytes that were read since the amount of output was last checked.
    unchecked: u64,
    stop: Option<Stop>,
    ladder: Ladder,
    /// Time of the agent's final message. Its stdin is closed a little later.
    idle_since: Option<Instant>,
    /// True if it got a stop signal after its final message, since it did not exit by itself.
    ended_at_rest: bool,
    /// Time of an unreadable line, if nothing followed it.
    unread_since: Option<Instant>,
    /// Position up to which an unfinished line was read at the last check.
    unfinished_at: Option<u64>,
    /// Time of the next poll of the inbox without a notification. It is independent of other waits, which a CLI that
    /// never stops printing would restart.
    letters_at: Instant,
    /// Time of the next check whether it is alive.
    look_at: Instant,
    /// Messages that were written to the CLI and that it has not acknowledged yet.
    unconfirmed: Vec<Message>,
}

/// The stop escalation: the steps of stopping a process, and when the next one is due.
struct Ladder {
    steps: std::collections::VecDeque<Step>,
    due: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Step {
    Signal(StopStep),
    Kill,
    GiveUp,
}

/// Input that the loop of a turn acts on.
enum Happening {
    Line(Option<process::Line>),
    Exited(Option<Exit>),
    Knock,
    StopStep,
    Silence,
    Unread,
    TimeUp,
    Write,
    Look,
}

impl Running {
    pub fn new(
        mut started: Started,
        tail: Tail,
        decoder: Box<dyn Decoder>,
        plan: LaunchPlan,
        stderr_from: u64,
    ) -> Self {
        let stdin = started.stdin.take();
        Self {
            started,
            stdin,
            held: None,
            tail,
            decoder,
            plan,
            stderr_from,
            unchecked: 0,
            stop: None,
            ladder: Ladder { steps: Default::default(), due: None },
            idle_since: None,
            ended_at_rest: false,
            unread_since: None,
            unfinished_at: None,
            letters_at: Instant::now(),
            look_at: Instant::now(),
            unconfirmed: Vec::new(),
        }
    }

    /// Handles events until the CLI has exited. `None` if it could not be made to exit.
    pub async fn listen(&mut self, attempt: &mut Attempt) -> Option<Exit> {
        self.give_prompt();
        let bell = attempt.inbox.bell();
        // Not at once: a check scans all processes while others may be starting, and has nothing to find yet.
        self.look_at = Instant::now() + attempt.limits.look_every();
        attempt.limits.note_life();
        attempt.board.set_stalled(None);
        let mut alarm = pin!(sleep_until(Instant::now()));
        loop {
            let happening = match self.due(attempt, Instant::now()) {
                Ok(happening) => happening,
                Err(next) => {
                    // The timer is set only if the deadline changes: a timer for each wait costs more than handling a
                    // line.
                    if alarm.deadline() != next {
                        alarm.as_mut().reset(next);
                    }
                    tokio::select! {
                        biased;
                        exit = self.started.child.wait() => Happening::Exited(exit.ok().map(to_exit)),
                        () = bell.notified() => Happening::Knock,
                        () = alarm.as_mut() => continue,
                        // Last, so that a CLI that never stops printing keeps nothing else from happening.
                        line = self.tail.next() => Happening::Line(line.unwrap_or_else(|error| {
                            tracing::warn!(%error, "could not read the CLI's output");
                            None
                        })),
                    }
                }
            };
            match happening {
                Happening::Exited(exit) => return exit,
                Happening::Line(Some(line)) => {
                    self.take_line(attempt, &line).await;
                    self.unchecked += line.text.len() as u64 + line.dropped_bytes;
                    if self.unchecked > FLOOD {
                        self.check_output(attempt);
                    }
                }
                Happening::Line(None) => tokio::time::sleep(Duration::from_millis(50)).await,
                Happening::Knock => {
                    self.letters_at = Instant::now() + inbox::LOOK_EVERY;
                    self.tail.look_again();
                    self.take_letters(attempt).await;
                }
                Happening::StopStep => {
                    if self.next_stop_step() {
                        return None;
                    }
                }
                Happening::Silence => self.close_when_idle(),
                Happening::Unread => self.close_stdin(),
                Happening::TimeUp => self.begin_stop(Stop::TimedOut),
                Happening::Write => self.write_board(attempt),
                Happening::Look => {
                    self.look_at = Instant::now() + attempt.limits.look_every();
                    self.check_life(attempt);
                }
            }
            // Reading available lines never suspends this task, and on one thread timers run only while it is
            // suspended.
            tokio::task::consume_budget().await;
        }
    }

    /// Returns the event whose time has come, or else the time of the next one.
    fn due(&self, attempt: &Attempt, now: Instant) -> Result<Happening, Instant> {
        let soon = now + EARLY;
        let clocks = [
            (Some(self.letters_at), soon, Happening::Knock),
            (self.ladder.due, now, Happening::StopStep),
            (self.idle_deadline(), now, Happening::Silence),
            (self.unread_since.map(|since| since + UNREAD_GRACE), now, Happening::Unread),
            (self.stop.is_none().then_some(attempt.limits.deadline), now, Happening::TimeUp),
            (attempt.board.due(), soon, Happening::Write),
            (Some(self.look_at), now, Happening::Look),
        ];
        let mut next = self.look_at;
        for (at, by, happening) in clocks {
            match at {
                Some(at) if at <= by => return Ok(happening),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        Err(next)
    }

    /// In a task of its own: a CLI that does not read must not hold up the loop.
    fn give_prompt(&mut self) {
        let Some(mut stdin) = self.stdin.take() else { return };
        match &self.plan.stdin {
            backend::Stdin::Once(text) => {
                let text = text.clone();
                // A CLI that ends without reading closes the pipe; its exit tells the story.
                tokio::spawn(async move {
                    let _ = stdin.write_all(text.as_bytes()).await;
                });
            }
            backend::Stdin::Held(text) => {
                let (text, (sender, receiver)) = (text.clone(), oneshot::channel());
                tokio::spawn(async move {
                    let _ = stdin.write_all(text.as_bytes()).await;
                    let _ = stdin.flush().await;
                    let _ = sender.send(stdin);
                });
                self.held = Some(receiver);
            }
        }
    }

    async fn take_line(&mut self, attempt: &mut Attempt, line: &process::Line) {
        attempt.limits.note_life();
        self.unread_since = None;
        if line.dropped_bytes == 0 {
            return self.decode(attempt, &line.text);
        }
        match self.shortened(line).await {
            Short::Objects(objects) => self.decode(attempt, &objects),
            Short::Text(text) => {
                self.unread_since = Some(Instant::now());
                let cut = format!("a line was cut: {} bytes of it were left out", line.dropped_bytes);
                attempt.board.note(&AgentEvent::Warning { text: cut });
                self.decode(attempt, if text.is_empty() { &line.text } else { &text });
            }
        }
    }

    fn decode(&mut self, attempt: &mut Attempt, line: &str) {
        for event in self.decoder.line(line) {
            self.take_event(attempt, &event);
        }
    }

    /// Reads a line that is too long to be held once more from the file, in shortened form: it may be the result.
    async fn shortened(&self, line: &process::Line) -> Short {
        let mut long = LongLine::new();
        let mut piece = vec![0; PIECE];
        let mut at = line.at.start;
        while at < line.at.end {
            let most = PIECE.min((line.at.end - at) as usize);
            match self.tail.read_again(at, &mut piece[..most]) {
                Ok(count) if count > 0 => {
                    long.push(&piece[..count]);
                    at += count as u64;
                }
                _ => break,
            }
            tokio::task::consume_budget().await;
        }
        long.finish()
    }

    fn take_event(&mut self, attempt: &mut Attempt, event: &AgentEvent) {
        match event {
            // The unconfirmed message holds the text that the event lacks. The first prompt of a turn is not among
            // these messages.
            AgentEvent::Received { message_id, .. } => {
                let message = self.unconfirmed.iter().find(|message| message.id == *message_id);
                message.into_iter().for_each(|message| attempt.board.note(&heard(message)));
            }
            AgentEvent::Edited { paths } => {
                let paths = paths.iter().map(|path| within(&attempt.assignment.directory, path)).collect();
                attempt.board.note(&AgentEvent::Edited { paths });
            }
            event => attempt.board.note(event),
        }
        match event {
            AgentEvent::Session { id, .. } => {
                attempt.run.session_id = Some(id.clone());
                // The CLI has read its configuration and no tool has run yet, so its own edits are not committed yet.
                attempt.own_edits.undo(&*attempt.backend);
            }
            AgentEvent::Edited { paths } => paths.iter().for_each(|path| attempt.outside.note_edit(path)),
            AgentEvent::Idle => self.idle_since = Some(Instant::now()),
            AgentEvent::Busy => self.idle_since = None,
            AgentEvent::Received { message_id, .. } => {
                self.unconfirmed.retain(|message| message.id != *message_id);
                attempt.note_received(*message_id);
            }
            AgentEvent::Usage { usage } => self.check_usage(attempt, usage),
            AgentEvent::Retrying { failure, fatal: true } => {
                self.begin_stop(Stop::Failed(failure.kind, failure.message.clone()));
            }
            _ => {}
        }
    }

    fn check_usage(&mut self, attempt: &mut Attempt, usage: &Usage) {
        let spent = attempt.spent_with(*usage);
        attempt.board.set_usage(spent);
        if let Some(Exceeded::Budget(why)) = attempt.limits.check_usage(&spent) {
            self.begin_stop(Stop::Failed(FailureKind::Budget, why));
        }
    }

    async fn take_letters(&mut self, attempt: &mut Attempt) {
        let messages = attempt.inbox.look();
        if attempt.inbox.is_cancelled() {
            self.begin_stop(Stop::Cancelled);
        } else if let Some(why) = attempt.inbox.over_budget().cloned() {
            self.begin_stop(Stop::Failed(FailureKind::Budget, why));
        } else if attempt.inbox.is_leaving() {
            self.begin_stop(Stop::Interrupted);
        }
        for message in messages {
            self.deliver(attempt, message).await;
        }
    }

    /// Live where the CLI hears it; by interrupt where that was asked for; else it waits for the end of the turn.
    async fn deliver(&mut self, attempt: &mut Attempt, message: Message) {
        if message.interrupt {
            attempt.inbox.keep(message);
            return self.begin_stop(Stop::ForMessage);
        }
        match attempt.backend.live_message(message.id, &message.text) {
            Some(frame) if self.stop.is_none() && self.write(&frame).await => {
                self.idle_since = None;
                attempt.board.note_receipt(message.id, Delivered::Sent);
                self.unconfirmed.push(message);
            }
            _ => attempt.inbox.keep(message),
        }
    }

    /// False when the CLI does not take it (any more).
    async fn write(&mut self, frame: &str) -> bool {
        if let Some(held) = &mut self.held {
            // It may not even have read its first text; the loop cannot wait for that.
            let Ok(stdin) = tokio::time::timeout(WRITE_CEILING, held).await else { return false };
            (self.held, self.stdin) = (None, stdin.ok());
        }
        let Some(stdin) = &mut self.stdin else { return false };
        let write = async { stdin.write_all(frame.as_bytes()).await.and(stdin.flush().await) };
        matches!(tokio::time::timeout(WRITE_CEILING, write).await, Ok(Ok(())))
    }

    fn is_open(&self) -> bool {
        self.stdin.is_some() || self.held.is_some()
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let grace = if self.is_open() { IDLE_GRACE } else { CLOSING_GRACE };
        self.idle_since.filter(|_| self.stop.is_none() && self.ladder.due.is_none()).map(|since| since + grace)
    }

    /// Closes stdin, which lets the CLI exit, since nothing more will come. A CLI that does not exit is stopped.
    fn close_when_idle(&mut self) {
        let grace = if self.is_open() { CLOSING_GRACE } else { Duration::ZERO };
        self.stdin = None;
        self.held = None;
        self.ladder = Ladder::down(&self.plan.stop);
        self.ladder.due = Some(Instant::now() + grace);
    }

    /// Closes stdin. An idle CLI exits, and a busy one exits after its turn.
    fn close_stdin(&mut self) {
        self.stdin = None;
        self.held = None;
        self.unread_since = None;
    }

    /// Closes stdin if the output stays in the middle of a line, which may be the final message. A line of whole JSON
    /// values lacks only its newline, so it is read.
    fn check_unfinished(&mut self) {
        let unfinished_at = self.tail.unfinished_at();
        if unfinished_at.is_some() && unfinished_at == self.unfinished_at {
            self.close_stdin();
            self.tail.end_unfinished_if(is_whole_json);
        }
        self.unfinished_at = unfinished_at;
    }

    /// Begins to stop the CLI. The first reason counts, but a cancellation or the deadline overrides a message.
    fn begin_stop(&mut self, stop: Stop) {
        match self.stop {
            None => {
                self.ladder = Ladder::down(&self.plan.stop);
                self.ladder.due = Some(Instant::now());
                self.stop = Some(stop);
            }
            Some(Stop::ForMessage) => self.stop = Some(stop),
            Some(_) => {}
        }
    }

    /// Takes the next step. Returns true if there is none left.
    fn next_stop_step(&mut self) -> bool {
        let Some(step) = self.ladder.steps.pop_front() else {
            return true;
        };
        self.ended_at_rest |= self.stop.is_none() && self.idle_since.is_some();
        let grace = match step {
            Step::Signal(step) => {
                let signal = match step.signal {
                    StopSignal::Interrupt => Signal::Interrupt,
                    StopSignal::Terminate => Signal::Terminate,
                };
                process::send(&self.started.identity, signal);
                step.grace
            }
            Step::Kill => {
                // Not its group: a daemon that is shared between projects may be in there. The rest is swept.
                process::send(&self.started.identity, Signal::Kill);
                KILL_GRACE
            }
            Step::GiveUp => return true,
        };
        self.ladder.due = Some(Instant::now() + grace);
        false
    }

    /// Comes soon after any output, and so is the moment to look how much it is.
    fn write_board(&mut self, attempt: &mut Attempt) {
        attempt.board.write();
        self.check_output(attempt);
    }

    fn check_output(&mut self, attempt: &Attempt) {
        self.unchecked = 0;
        if let Some(Exceeded::Output(why)) = attempt.limits.check_output() {
            self.begin_stop(Stop::Failed(FailureKind::OutputLimit, why));
        }
    }

    fn check_life(&mut self, attempt: &mut Attempt) {
        if !attempt.dir.is_still_claimed() {
            let why = "its folder was removed, so nobody could be told how it ends".to_owned();
            return self.begin_stop(Stop::Failed(FailureKind::Lost, why));
        }
        if let Some(Exceeded::Output(why)) = attempt.limits.check_output() {
            return self.begin_stop(Stop::Failed(FailureKind::OutputLimit, why));
        }
        self.check_unfinished();
        let scope = process::Scope { own_children: self.children(), ..attempt.scope() };
        let evidence = attempt.limits.check_stall(&scope);
        if let Some(evidence) = &evidence {
            self.wake(attempt, evidence);
        }
        attempt.board.set_stalled(evidence);
        process::reap_orphans(&self.children());
    }

    /// Where the settings say so: it is interrupted and goes on in its session, once; the second time it may be ended.
    fn wake(&mut self, attempt: &mut Attempt, evidence: &str) {
        if self.stop.is_some() {
            return;
        }
        match (attempt.assignment.settings.on_stall, attempt.woken) {
            (OnStall::Tell, _) | (OnStall::Resume, true) => {}
            (OnStall::Resume | OnStall::End, false) => {
                attempt.woken = true;
                let text =
                    format!("You were interrupted, since there was {evidence}. Look at what is there, and go on.");
                attempt.inbox.keep(Message { id: Uuid::new_v4(), text, interrupt: true });
                self.begin_stop(Stop::ForMessage);
            }
            (OnStall::End, true) => {
                let why = format!("{evidence}, again after it was interrupted and went on");
                self.begin_stop(Stop::Failed(FailureKind::Stalled, why));
            }
        }
    }

    /// Children whose exit tokio waits for.
    fn children(&self) -> Vec<u32> {
        vec![self.started.identity.pid]
    }

    pub async fn read_rest(&mut self, attempt: &mut Attempt) {
        self.tail.skip_to_last(REST);
        self.tail.finish();
        while let Ok(Some(line)) = self.tail.next().await {
            self.take_line(attempt, &line).await;
        }
    }

    pub fn end(&mut self, attempt: &mut Attempt, exit: Option<Exit>) -> Ended {
        // Messages that were written to the CLI and never acknowledged begin the next turn.
        for message in std::mem::take(&mut self.unconfirmed) {
            attempt.inbox.keep(message);
        }
        let stderr = end_of(&attempt.dir.stderr(), self.stderr_from);
        // How it ended says nothing about the work if it was done and we ended it.
        let counts = if self.ended_at_rest { Exit::Code(0) } else { exit.unwrap_or(Exit::Signal(9)) };
        let report = self.decoder.end(counts, &stderr);
        attempt.board.write();
        Ended { report, exit, stop: self.stop.take() }
    }
}

impl Ladder {
    fn down(steps: &[StopStep]) -> Self {
        let steps = steps.iter().copied().map(Step::Signal).chain([Step::Kill, Step::GiveUp]).collect();
        Self { steps, due: None }
    }
}

fn is_whole_json(line: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<serde::de::IgnoredAny>().peekable();
    line.trim_ascii().starts_with(b"{") && values.peek().is_some() && values.all(|value| value.is_ok())
}

pub(super) fn heard(message: &Message) -> AgentEvent {
    AgentEvent::Received { message_id: message.id, text: Some(message.text.clone()) }
}

/// Returns a path relative to the worker's directory. Some CLIs report absolute paths and some relative ones.
fn within(directory: &Path, path: &str) -> String {
    let inside =
        |directory: &Path| Path::new(path).strip_prefix(directory).ok().filter(|it| !it.as_os_str().is_empty());
    let real = || directory.canonicalize().ok();
    let inside = inside(directory).map(Path::to_owned).or_else(|| inside(&real()?).map(Path::to_owned));
    inside.map_or_else(|| path.to_owned(), |inside| inside.to_string_lossy().into_owned())
}
