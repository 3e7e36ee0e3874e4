//! One turn: the start of the CLI, and the end of the turn. The event loop in between is in [`running`].

mod running;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitStatus;

use uuid::Uuid;

use self::running::{Running, heard};
use super::apart;
use super::inbox::Message;
use super::own_edits::OwnEdits;
use super::run::{Attempt, Stop};
use crate::attempt::status::Delivered;
use crate::backend::{GitDirs, LaunchPlan, Session, Turn, TurnReport};
use crate::crash_point::{self, Point};
use crate::files;
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Exit, Failure, FailureKind, Usage};
use crate::process::{self, Launch, TAG_VARIABLE, Tail};

/// The input of a turn.
#[derive(Debug)]
pub(super) struct Begin {
    pub text: String,
    /// The session to resume.
    pub session: Option<String>,
    /// Messages that this text delivers.
    pub messages: Vec<Message>,
}

/// The end of a turn.
#[derive(Debug)]
pub(super) struct Ended {
    pub report: TurnReport,
    /// The exit of the CLI. `None` if nothing was started.
    pub exit: Option<Exit>,
    pub stop: Option<Stop>,
}

/// Bytes at the end of stderr that failures may quote.
const STDERR_TAIL: u64 = 8 * 1024;

impl Attempt {
    pub(super) async fn turn(&mut self, begin: Begin) -> Ended {
        let mut running = match self.start(&begin) {
            Ok(running) => running,
            Err(message) => {
                // It may be that only following it failed.
                self.sweep().await;
                return Ended { report: not_started(message), exit: None, stop: None };
            }
        };
        let exit = running.listen(self).await;
        crash_point::at(Point::CliEnded);
        // Before the rest is read: processes that outlive the CLI may print for ever.
        self.sweep().await;
        self.own_edits.undo(&*self.backend);
        crash_point::at(Point::TurnSwept);
        running.read_rest(self).await;
        running.end(self, exit)
    }

    fn start(&mut self, begin: &Begin) -> Result<Running, String> {
        let assignment = &self.assignment;
        let scratch = self.dir.scratch();
        files::make_private_dir_within(&scratch, &scratch).map_err(|error| with_hints(&error))?;
        let mut mission = assignment.mission.clone();
        mission.backend = assignment.backend.clone();
        (mission.model, mission.effort) = (assignment.model.clone(), assignment.effort.clone());
        let git = self.git.as_ref();
        let identity = git.and_then(|git| git.identity.as_ref());
        let directory = assignment.start_directory();
        let turn = Turn {
            mission: &mission,
            prompt: &begin.text,
            dir: &directory,
            session: match &begin.session {
                Some(session) => Session::Resume(session),
                None => Session::New(Uuid::new_v4()),
            },
            message_id: begin.messages.first().map_or_else(Uuid::new_v4, |message| message.id),
            git: git.map(|git| GitDirs { common: &git.common, own: &git.own }),
            identity: identity.map(|identity| (identity.name.as_str(), identity.email.as_str())),
            scratch: &scratch,
            own_registrations: &assignment.own_registrations,
            root: rustix::process::getuid().is_root(),
        };
        let own_edits = OwnEdits::before(&*self.backend, &assignment.directory);
        let plan = self.backend.plan(&turn);
        let decoder = self.backend.decoder(&turn);
        for (path, content) in &plan.files {
            files::replace(path, content.as_bytes(), false).map_err(|error| with_hints(&error))?;
        }
        let stdout = self.dir.stdout();
        let from = std::fs::metadata(&stdout).map_or(0, |metadata| metadata.len());
        let stderr_from = std::fs::metadata(self.dir.stderr()).map_or(0, |metadata| metadata.len());
        let started = process::spawn(&self.launch(&plan)).map_err(|error| with_hints(&error))?;
        crash_point::at(Point::CliSpawned);
        self.own_edits = own_edits;
        let tail = Tail::open(&stdout, from).map_err(|error| with_hints(&error))?;
        self.board.begin_turn(started.identity);
        for message in &begin.messages {
            self.board.note_receipt(message.id, Delivered::Turn);
            self.board.note(&heard(message));
        }
        Ok(Running::new(started, tail, decoder, plan, stderr_from))
    }

    fn launch(&self, plan: &LaunchPlan) -> Launch {
        let mut env_set: BTreeMap<String, OsString> =
            plan.env_set.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        env_set.insert(TAG_VARIABLE.to_owned(), self.assignment.tag.clone().into());
        for (name, value) in self.sockets.variables() {
            env_set.entry(name).or_insert(value);
        }
        let inherited = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Launch {
            program: self.assignment.program.clone(),
            args: plan.args.iter().map(OsString::from).collect(),
            cwd: self.assignment.start_directory(),
            env_set,
            env_remove: inherited.filter(|name| plan.removes(name) || apart::leads_to_the_terminal(name)).collect(),
            stdin: process::Stdin::Pipe,
            stdout: self.dir.stdout(),
            stderr: self.dir.stderr(),
        }
    }
}

pub(super) fn to_exit(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

fn not_started(message: String) -> TurnReport {
    TurnReport {
        end: Err(Failure { kind: FailureKind::CouldNotStart, message, resets_at: None }),
        session_id: None,
        final_message: String::new(),
        usage: Usage::default(),
        // Adds nothing either way.
        usage_is_cumulative: false,
        denials: 0,
    }
}

/// The end of a file from an offset on, a few kB at most.
pub(super) fn end_of(path: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(STDERR_TAIL))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
