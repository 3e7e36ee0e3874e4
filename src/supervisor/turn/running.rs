//! The event loop of one turn: reads the CLI's output, delivers messages, enforces the limits, and stops the CLI.

use std::path::Path;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use uuid::Uuid;

use super::cli_input::CliInput;
use super::stop::{StopEscalation, StopTaken};
use crate::attempt::status::Delivered;
use crate::backend::{AgentEvent, Decoder, LaunchPlan, LongLine, ShortenedLine};
use crate::config::OnStall;
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Exit, FailureKind, Usage};
use crate::process::{self, ProcessScope, SpawnedProcess, Tail, TailLine};
use crate::supervisor::attempt::{LiveAttempt, Stop, TurnEnd};
use crate::supervisor::exit::{end_of, to_exit};
use crate::supervisor::inbox::{POLL_INTERVAL, QueuedMessage};
use crate::supervisor::limits::Exceeded;

/// Time after its final message for which a CLI with an open session waits for a background task.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// Time after an unreadable line until stdin is closed: the line may have been the final message.
const UNREADABLE_GRACE: Duration = Duration::from_secs(10);
/// Time that a CLI gets to exit once its stdin is closed.
const CLOSING_GRACE: Duration = Duration::from_secs(15);
/// Time that a CLI gets for each answer before its first turn, if its protocol has such. Under load, some take 24 s.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Bytes at the end of the output that are still read after the exit. They contain the result, and a flood is not read
/// completely.
const REST_LIMIT: u64 = 8 * 1024 * 1024;
/// Time that the rest of its output takes to arrive in the log, once its processes have ended.
const COPY_GRACE: Duration = Duration::from_secs(2);
/// Bytes of output after which the amount of output is checked without waiting for the next interval.
const CHECK_OUTPUT_AFTER: u64 = 4 * 1024 * 1024;
/// Time by which events are handled early, together with another wake-up. A wake-up costs more than polling the inbox
/// or writing the status.
const EARLY_WAKE: Duration = Duration::from_millis(100);
/// Bytes of a long line that are read at once.
const PIECE_SIZE: usize = 64 * 1024;

pub(super) struct Running {
    cli: SpawnedProcess,
    pub(super) input: CliInput,
    tail: Tail,
    pub(super) decoder: Box<dyn Decoder>,
    /// Time of its start, and then of the last line that it printed.
    pub(super) printed_at: Instant,
    plan: LaunchPlan,
    stderr_from: u64,
    /// Bytes that were read since the amount of output was last checked.
    unchecked: u64,
    /// The reason why not all of its output could be written to the log.
    copy_error: Option<String>,
    pub(super) stop: Option<Stop>,
    pub(super) escalation: StopEscalation,
    /// Time of the agent's final message. Its stdin is closed a little later.
    pub(super) idle_since: Option<Instant>,
    /// True if the idle CLI did not exit by itself, so that it was stopped.
    stopped_when_idle: bool,
    /// Time of an unreadable line, if nothing followed it.
    unreadable_since: Option<Instant>,
    /// Position up to which an unfinished line was read at the last check.
    unfinished_at: Option<u64>,
    /// Time of the next poll of the inbox without a notification. It is independent of other waits, which a CLI that
    /// never stops printing would restart.
    poll_at: Instant,
    /// Time of the next check whether it is alive.
    check_at: Instant,
    /// Messages that were written to the CLI and that it has not acknowledged yet.
    pub(super) unconfirmed: Vec<QueuedMessage>,
}

enum LoopEvent {
    Line(Option<TailLine>),
    Exited(Option<Exit>),
    Wake,
    StopStep,
    Idle,
    UnreadableLine,
    Deadline,
    NoFirstAnswer,
    NoMessageAnswer,
    QuestionOverdue,
    PublishStatus,
    CheckActivity,
}

impl Running {
    pub fn new(
        mut cli: SpawnedProcess,
        tail: Tail,
        decoder: Box<dyn Decoder>,
        plan: LaunchPlan,
        stderr_from: u64,
    ) -> Self {
        Self {
            input: CliInput::new(cli.stdin.take(), &plan.stdin),
            cli,
            tail,
            decoder,
            printed_at: Instant::now(),
            plan,
            stderr_from,
            unchecked: 0,
            copy_error: None,
            stop: None,
            escalation: StopEscalation::default(),
            idle_since: None,
            stopped_when_idle: false,
            unreadable_since: None,
            unfinished_at: None,
            poll_at: Instant::now(),
            check_at: Instant::now(),
            unconfirmed: Vec::new(),
        }
    }

    /// Handles events until the CLI has exited. `None` if it could not be made to exit.
    pub async fn until_exit(&mut self, attempt: &mut LiveAttempt) -> Option<Exit> {
        let notifier = attempt.inbox.notifier();
        // Not at once: a check scans all processes while others may be starting, and has nothing to find yet.
        self.check_at = Instant::now() + attempt.limits.check_interval();
        attempt.limits.record_activity();
        attempt.status.set_stalled(None);
        let mut alarm = pin!(sleep_until(Instant::now()));
        loop {
            let event = self.next_event(attempt, &notifier, alarm.as_mut()).await;
            match event {
                LoopEvent::Exited(exit) => return exit,
                LoopEvent::Line(Some(line)) => {
                    self.take_line(attempt, &line).await;
                    self.unchecked += line.text.len() as u64 + line.dropped_bytes;
                    if self.unchecked > CHECK_OUTPUT_AFTER {
                        self.check_output(attempt);
                    }
                }
                LoopEvent::Line(None) => tokio::time::sleep(Duration::from_millis(50)).await,
                LoopEvent::Wake => {
                    self.poll_at = Instant::now() + POLL_INTERVAL;
                    self.tail.poll_now();
                    self.take_messages(attempt).await;
                }
                LoopEvent::StopStep => {
                    self.stopped_when_idle |= self.stop.is_none() && self.idle_since.is_some();
                    if self.take_stop_step() == StopTaken::GaveUp {
                        return None;
                    }
                }
                LoopEvent::Idle => {
                    if !self.prompt_next(attempt) {
                        self.close_when_idle();
                    }
                }
                LoopEvent::UnreadableLine => self.close_input(),
                LoopEvent::Deadline => self.begin_stop(Stop::TimedOut),
                LoopEvent::NoFirstAnswer => {
                    let why = format!("it printed nothing for {} s before its first turn", START_LIMIT.as_secs());
                    self.begin_stop(Stop::Failed(FailureKind::CouldNotStart, why));
                }
                LoopEvent::NoMessageAnswer => self.give_up_message(attempt),
                LoopEvent::QuestionOverdue => self.deny_overdue(attempt),
                LoopEvent::PublishStatus => self.publish_status(attempt),
                LoopEvent::CheckActivity => {
                    self.check_at = Instant::now() + attempt.limits.check_interval();
                    self.check_activity(attempt);
                }
            }
            if self.stop.is_some() {
                self.withdraw_questions(attempt);
            }
            // Reading available lines never suspends this task, and on one thread timers run only while it is
            // suspended.
            tokio::task::consume_budget().await;
        }
    }

    fn give_up_message(&mut self, attempt: &mut LiveAttempt) {
        for event in self.decoder.give_up_message() {
            self.take_event(attempt, &event);
        }
    }

    async fn next_event(&mut self, attempt: &LiveAttempt, notifier: &Notify, mut alarm: Pin<&mut Sleep>) -> LoopEvent {
        loop {
            let next = match self.due(attempt, Instant::now()) {
                Ok(event) => return event,
                Err(next) => next,
            };
            // The timer is set only if the deadline changes: a timer for each wait costs more than handling a line.
            if alarm.deadline() != next {
                alarm.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                exit = self.cli.child.wait() => return LoopEvent::Exited(exit.ok().map(to_exit)),
                () = notifier.notified() => return LoopEvent::Wake,
                () = alarm.as_mut() => {}
                // Last, so that a CLI that never stops printing does not delay other events.
                line = self.tail.next() => return LoopEvent::Line(line.unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot read the CLI's output");
                    None
                })),
            }
        }
    }

    /// Returns the event whose time has come, or else the time of the next one.
    fn due(&self, attempt: &LiveAttempt, now: Instant) -> Result<LoopEvent, Instant> {
        let soon = now + EARLY_WAKE;
        // Time spent waiting for an answer counts against no limit.
        let works = self.stop.is_none() && !attempt.questions.is_any_open();
        let clocks = [
            (Some(self.poll_at), soon, LoopEvent::Wake),
            (self.escalation.due(), now, LoopEvent::StopStep),
            (self.idle_deadline(), now, LoopEvent::Idle),
            (self.unreadable_since.map(|since| since + UNREADABLE_GRACE), now, LoopEvent::UnreadableLine),
            (works.then_some(attempt.limits.deadline), now, LoopEvent::Deadline),
            (self.first_answer_deadline().filter(|_| works), now, LoopEvent::NoFirstAnswer),
            (self.message_answer_deadline().filter(|_| works), now, LoopEvent::NoMessageAnswer),
            (attempt.questions.due(), now, LoopEvent::QuestionOverdue),
            (attempt.status.due(), soon, LoopEvent::PublishStatus),
            (Some(self.check_at), now, LoopEvent::CheckActivity),
        ];
        let mut next = self.check_at;
        for (at, by, event) in clocks {
            match at {
                Some(at) if at <= by => return Ok(event),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        Err(next)
    }

    async fn take_line(&mut self, attempt: &mut LiveAttempt, line: &TailLine) {
        attempt.limits.record_activity();
        self.printed_at = Instant::now();
        self.unreadable_since = None;
        if line.dropped_bytes == 0 {
            self.decode(attempt, &line.text);
            return;
        }
        match self.shortened(line).await {
            ShortenedLine::Objects(objects) => drop(self.decode(attempt, &objects)),
            ShortenedLine::Text(text) => {
                let cut = format!("a line was cut by {} bytes", line.dropped_bytes);
                attempt.status.record(&AgentEvent::Warning { text: cut });
                // A request that was answered from its beginning was not the final message.
                if !self.decode(attempt, if text.is_empty() { &line.text } else { &text }) {
                    self.unreadable_since = Some(Instant::now());
                }
            }
        }
    }

    /// Decodes a line. Returns whether it was answered.
    fn decode(&mut self, attempt: &mut LiveAttempt, line: &str) -> bool {
        let events = self.decoder.line(line);
        let is_answered = self.send_replies();
        for event in events {
            self.take_event(attempt, &event);
        }
        is_answered
    }

    /// Sends what the decoder has for the CLI. Returns whether there was anything.
    pub(super) fn send_replies(&mut self) -> bool {
        let replies = self.decoder.replies();
        let is_answered = !replies.is_empty();
        for reply in replies {
            if !self.input.enqueue(reply) {
                let why = "it does not read the answers to its requests".to_owned();
                self.begin_stop(Stop::Failed(FailureKind::Other, why));
            }
        }
        is_answered
    }

    /// Reads a line that is too long for the memory again from the file, in shortened form: it may be the result.
    async fn shortened(&self, line: &TailLine) -> ShortenedLine {
        let mut long = LongLine::new();
        let mut piece = vec![0; PIECE_SIZE];
        let mut at = line.at.start;
        while at < line.at.end {
            let most = PIECE_SIZE.min((line.at.end - at) as usize);
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

    pub(super) fn take_event(&mut self, attempt: &mut LiveAttempt, event: &AgentEvent) {
        match event {
            // The unconfirmed message holds the text that the event lacks. The first prompt of a turn is not among
            // these messages.
            AgentEvent::Received { message_id, .. } => {
                let message = self.unconfirmed.iter().find(|message| message.id == *message_id);
                message.into_iter().for_each(|message| attempt.status.record(&received(message)));
            }
            AgentEvent::Edited { paths } => {
                let paths = paths.iter().map(|path| within(&attempt.assignment.directory, path)).collect();
                attempt.status.record(&AgentEvent::Edited { paths });
            }
            event => attempt.status.record(event),
        }
        match event {
            AgentEvent::Session { id, .. } => {
                attempt.run.session_id = Some(id.clone());
                // If this supervisor is killed, the next attempt finds the session there.
                attempt.status.publish();
                // The CLI has read its configuration and no tool has run yet, so its own edits are not committed yet.
                attempt.self_edits.undo(&*attempt.backend);
            }
            AgentEvent::Edited { paths } => paths.iter().for_each(|path| attempt.outside_edits.record(path)),
            AgentEvent::ToolEnded { output, .. } => {
                attempt.refused_writes.record(output, attempt.rules.cli.as_ref());
            }
            AgentEvent::Idle => {
                self.idle_since = Some(Instant::now());
                // Its turn was cancelled for a message, which it now gets in the same process.
                if self.stop != Some(Stop::ForMessage) || !self.prompt_next(attempt) {
                    self.escalation.turn_ended();
                }
            }
            AgentEvent::Busy => self.idle_since = None,
            AgentEvent::Received { message_id, .. } => {
                self.unconfirmed.retain(|message| message.id != *message_id);
                attempt.status.record_receipt(*message_id, Delivered::Received);
            }
            AgentEvent::Usage { usage } => self.check_usage(attempt, usage),
            AgentEvent::Asked { question } => self.take_question(attempt, question),
            AgentEvent::Withdrawn { question } => self.close(attempt, question, None),
            AgentEvent::Denied { what } => attempt.run.record_denied(what),
            AgentEvent::Retrying { failure, fatal: true } => {
                self.begin_stop(Stop::Failed(failure.kind, failure.message.clone()));
            }
            _ => {}
        }
    }

    fn check_usage(&mut self, attempt: &mut LiveAttempt, usage: &Usage) {
        let spent = attempt.spent_with(*usage);
        attempt.status.set_usage(spent);
        if let Some(Exceeded::Budget(why)) = attempt.limits.check_usage(&spent) {
            self.begin_stop(Stop::Failed(FailureKind::Budget, why));
        }
    }

    async fn take_messages(&mut self, attempt: &mut LiveAttempt) {
        let messages = attempt.inbox.poll();
        if attempt.inbox.is_cancelled() {
            self.begin_stop(Stop::Cancelled);
        } else if let Some(why) = attempt.inbox.over_budget().cloned() {
            self.begin_stop(Stop::Failed(FailureKind::Budget, why));
        } else if attempt.inbox.is_shutting_down() {
            self.begin_stop(Stop::Interrupted);
        } else if !attempt.dir.is_still_claimed() {
            let why = "its folder was removed, so its outcome could not be recorded".to_owned();
            self.begin_stop(Stop::Failed(FailureKind::Lost, why));
        }
        self.take_answers(attempt);
        for message in messages {
            self.deliver(attempt, message);
        }
    }

    /// Delivers a message: by interrupt if requested, else to the running CLI if it reads messages, else at the end of
    /// the turn.
    fn deliver(&mut self, attempt: &mut LiveAttempt, message: QueuedMessage) {
        if message.interrupt {
            attempt.inbox.enqueue(message);
            // Between two turns there is nothing to interrupt.
            if self.idle_since.is_none() || self.stop.is_some() || !self.prompt_next(attempt) {
                self.begin_stop(Stop::ForMessage);
            }
            return;
        }
        let can_receive = self.stop.is_none() && self.input.is_open();
        if !can_receive || !self.decoder.message(message.id, &message.text) {
            return attempt.inbox.enqueue(message);
        }
        self.idle_since = None;
        attempt.status.record_receipt(message.id, Delivered::Sent);
        self.unconfirmed.push(message);
        self.send_replies();
    }

    fn first_answer_deadline(&self) -> Option<Instant> {
        self.decoder.is_starting().then(|| self.printed_at + START_LIMIT)
    }

    fn message_answer_deadline(&self) -> Option<Instant> {
        self.decoder.awaits_message_only().then(|| self.printed_at + START_LIMIT)
    }

    fn take_stop_step(&mut self) -> StopTaken {
        let taken = self.escalation.advance(&self.cli.identity);
        let has_effect = match taken {
            StopTaken::CancelTurn => self.input.is_open() && self.decoder.cancel(),
            StopTaken::CloseStdin => self.input.is_open(),
            StopTaken::Signalled | StopTaken::GaveUp => true,
        };
        match taken {
            _ if !has_effect => self.escalation.skip(),
            StopTaken::CancelTurn => drop(self.send_replies()),
            StopTaken::CloseStdin => self.input.close(),
            StopTaken::Signalled | StopTaken::GaveUp => {}
        }
        taken
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let grace = if self.input.is_open() { IDLE_GRACE } else { CLOSING_GRACE };
        self.idle_since.filter(|_| self.stop.is_none() && self.escalation.due().is_none()).map(|since| since + grace)
    }

    /// Closes stdin, which lets the CLI exit, since nothing more will come. A CLI that does not exit is stopped.
    fn close_when_idle(&mut self) {
        let grace = if self.input.is_open() { CLOSING_GRACE } else { Duration::ZERO };
        self.input.close();
        self.escalation = StopEscalation::starting_at(Instant::now() + grace, &self.plan.stop);
    }

    fn close_input(&mut self) {
        self.input.close();
        self.unreadable_since = None;
    }

    /// Closes stdin if the output stays in the middle of a line, which may be the final message. A line of whole JSON
    /// values lacks only its newline, so it is read.
    fn check_unfinished(&mut self) {
        let unfinished_at = self.tail.unfinished_at();
        if unfinished_at.is_some() && unfinished_at == self.unfinished_at {
            self.close_input();
            self.tail.end_unfinished_if(is_whole_json);
        }
        self.unfinished_at = unfinished_at;
    }

    /// Begins to stop the CLI. The first reason counts, but a cancellation or the deadline overrides a message.
    fn begin_stop(&mut self, stop: Stop) {
        match self.stop {
            None => {
                self.escalation = StopEscalation::starting_at(Instant::now(), &self.plan.stop);
                self.stop = Some(stop);
            }
            Some(Stop::ForMessage) => self.stop = Some(stop),
            Some(_) => {}
        }
    }

    /// Publishes the status. This follows soon after any output, so the amount of output is checked too.
    fn publish_status(&mut self, attempt: &mut LiveAttempt) {
        attempt.status.publish();
        self.check_output(attempt);
    }

    fn check_output(&mut self, attempt: &LiveAttempt) {
        self.unchecked = 0;
        if let Some(Exceeded::Output(why)) = attempt.limits.check_output() {
            self.begin_stop(Stop::Failed(FailureKind::OutputLimit, why));
        }
    }

    fn check_activity(&mut self, attempt: &mut LiveAttempt) {
        if let Some(Exceeded::Output(why)) = attempt.limits.check_output() {
            return self.begin_stop(Stop::Failed(FailureKind::OutputLimit, why));
        }
        self.check_unfinished();
        if attempt.questions.is_any_open() {
            attempt.limits.record_activity();
        }
        let scope = ProcessScope { own_children: self.children(), ..attempt.scope() };
        let evidence = attempt.limits.check_stall(&scope);
        if let Some(evidence) = &evidence {
            self.handle_stall(attempt, evidence);
        }
        attempt.status.set_stalled(evidence);
        process::reap_orphans(&self.children());
    }

    /// Interrupts a stalled CLI once, so that it continues in its session, or ends it at the second stall. The user's
    /// settings decide whether and how.
    fn handle_stall(&mut self, attempt: &mut LiveAttempt, evidence: &str) {
        if self.stop.is_some() {
            return;
        }
        match (attempt.assignment.settings.on_stall, attempt.was_interrupted_as_stalled) {
            (OnStall::Tell, _) | (OnStall::Resume, true) => {}
            (OnStall::Resume | OnStall::End, false) => {
                attempt.was_interrupted_as_stalled = true;
                let text =
                    format!("You were interrupted, since there was {evidence}. Check what is there, and continue.");
                attempt.inbox.enqueue(QueuedMessage { id: Uuid::new_v4(), text, interrupt: true });
                self.begin_stop(Stop::ForMessage);
            }
            (OnStall::End, true) => {
                let why = format!("{evidence}, again after it was interrupted and continued");
                self.begin_stop(Stop::Failed(FailureKind::Stalled, why));
            }
        }
    }

    /// Children whose exit tokio waits for.
    fn children(&self) -> Vec<u32> {
        vec![self.cli.identity.pid]
    }

    pub async fn read_rest(&mut self, attempt: &mut LiveAttempt) {
        self.input.close();
        self.copy_error = match &mut self.cli.output {
            Some(output) => output.finish(COPY_GRACE).await.err().map(|error| with_hints(&error)),
            None => None,
        };
        self.tail.skip_to_last(REST_LIMIT);
        self.tail.finish();
        while let Ok(Some(line)) = self.tail.next().await {
            self.take_line(attempt, &line).await;
        }
    }

    pub fn end(&mut self, attempt: &mut LiveAttempt, exit: Option<Exit>) -> TurnEnd {
        // Messages that were written to the CLI and never acknowledged begin the next turn.
        for message in std::mem::take(&mut self.unconfirmed) {
            attempt.inbox.enqueue(message);
        }
        let stderr = end_of(&attempt.dir.stderr(), self.stderr_from);
        attempt.refused_writes.record(&stderr, attempt.rules.cli.as_ref());
        // The exit of an idle CLI that was stopped is no evidence about its work.
        let exit_of_work = if self.stopped_when_idle { Exit::Code(0) } else { exit.unwrap_or(Exit::Signal(9)) };
        let report = self.decoder.end(exit_of_work, &stderr);
        attempt.status.publish();
        // What was lost may have been the result.
        let lost = self.copy_error.take().filter(|_| report.end.is_err());
        let stop = self.stop.take().or(lost.map(|why| Stop::Failed(FailureKind::Other, why)));
        TurnEnd { report, exit, stop }
    }
}

fn is_whole_json(line: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<serde::de::IgnoredAny>().peekable();
    line.trim_ascii().starts_with(b"{") && values.peek().is_some() && values.all(|value| value.is_ok())
}

pub(super) fn received(message: &QueuedMessage) -> AgentEvent {
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
