//! One turn: the start of the CLI, and the end of the turn. The event loop in between is in `turn/running.rs`.

mod cli_input;
mod next_prompt;
mod questions;
mod running;
mod stop;

use std::collections::BTreeMap;
use std::ffi::OsString;

use thiserror::Error;
use uuid::Uuid;

use self::running::{Running, received};
use super::attempt::{LiveAttempt, TurnEnd, TurnInput};
use super::isolation::reaches_boss_terminal;
use super::self_edits::SelfEdits;
use super::signing::inherited_settings;
use crate::attempt::prompt;
use crate::attempt::status::Delivered;
use crate::backend::{GitDirs, LaunchPlan, Session, Turn};
use crate::crash_point::{self, Point};
use crate::files::{self, FileError};
use crate::mission::hint::{Hint, Hinted, with_hints};
use crate::mission::outcome::{Failure, FailureKind};
use crate::mission::question::QuestionRules;
use crate::mission::spec::Permissions;
use crate::process::{self, Launch, SpawnError, StdinSource, TAG_VARIABLE, Tail, TailError};

/// An error before the CLI runs, or in opening its output.
#[derive(Debug, Error)]
enum TurnStartError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Tail(#[from] TailError),
}

impl Hinted for TurnStartError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::File(error) => error.hints(),
            Self::Spawn(error) => error.hints(),
            Self::Tail(error) => error.hints(),
        }
    }
}

impl LiveAttempt {
    pub(super) async fn turn(&mut self, input: TurnInput) -> TurnEnd {
        if let Err(error) = self.enter_clone().await {
            return Self::without_clone(&error);
        }
        let mut running = match self.start(&input) {
            Ok(running) => running,
            Err(error) => {
                // The CLI may run if only opening its output failed.
                self.sweep().await;
                self.leave_clone().await;
                // A text, since the failure is stored.
                let message = with_hints(&error);
                let failure = Failure { kind: FailureKind::CouldNotStart, message, resets_at: None };
                return TurnEnd::not_started(failure, None);
            }
        };
        let exit = running.until_exit(self).await;
        running.withdraw_questions(self);
        crash_point::at(Point::CliEnded);
        // Before the rest is read: processes that outlive the CLI may print for ever.
        self.sweep().await;
        self.self_edits.undo(&*self.backend);
        crash_point::at(Point::TurnSwept);
        self.leave_clone().await;
        running.read_rest(self).await;
        running.end(self, exit)
    }

    fn start(&mut self, input: &TurnInput) -> Result<Running, TurnStartError> {
        let assignment = &self.assignment;
        let scratch = self.dir.scratch();
        files::make_private_dir_within(&scratch, &scratch)?;
        let mut mission = assignment.mission.clone();
        mission.backend = assignment.backend.clone();
        (mission.model, mission.effort) = (assignment.model.clone(), assignment.effort.clone());
        if self.rules.cli.is_some() && self.needs_kernel_to_only_read() {
            // The kernel keeps it from writing.
            mission.permissions = Permissions::Edit;
        }
        let git = self.git.as_ref();
        let identity = git.and_then(|git| git.identity.as_ref());
        let directory = assignment.start_directory();
        let prefix = format!("q{}.{}", assignment.attempt, self.run.turns + 1);
        let turn = Turn {
            mission: &mission,
            prompt: &input.text,
            prompt_anew: &prompt::anew(assignment, &input.text),
            dir: &directory,
            session: match &input.session {
                Some(session) => Session::Resume(session),
                None => Session::New(Uuid::new_v4()),
            },
            message_id: input.messages.first().map_or_else(Uuid::new_v4, |message| message.id),
            git: git.map(|git| GitDirs { common: &git.common, own: &git.own }),
            identity: identity.map(|identity| (identity.name.as_str(), identity.email.as_str())),
            scratch: &scratch,
            own_registrations: &assignment.own_registrations,
            root: rustix::process::getuid().is_root(),
            questions: QuestionRules { policy: assignment.settings.questions, prefix: &prefix },
            confined: self.rules.cli.is_some(),
        };
        let self_edits = SelfEdits::before(&*self.backend, &assignment.directory);
        let plan = self.backend.plan(&turn);
        let decoder = self.backend.decoder(&turn);
        for (path, content) in &plan.files {
            files::replace(path, content.as_bytes(), false)?;
        }
        let stdout = self.dir.stdout();
        let from = std::fs::metadata(&stdout).map_or(0, |metadata| metadata.len());
        let stderr_from = std::fs::metadata(self.dir.stderr()).map_or(0, |metadata| metadata.len());
        let cli = process::spawn(&self.launch(&plan))?;
        crash_point::at(Point::CliSpawned);
        self.self_edits = self_edits;
        self.record_restriction(cli.restriction);
        let tail = Tail::open(&stdout, from)?;
        self.status.begin_turn(cli.identity);
        for message in &input.messages {
            self.status.record_receipt(message.id, Delivered::Turn);
            self.status.record(&received(message));
        }
        Ok(Running::new(cli, tail, decoder, plan, stderr_from))
    }

    fn launch(&self, plan: &LaunchPlan) -> Launch {
        let mut env_set: BTreeMap<String, OsString> =
            plan.env_set.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        env_set.insert(TAG_VARIABLE.to_owned(), self.assignment.tag.clone().into());
        env_set.extend(self.assignment.variables().into_iter().map(|(name, value)| (name, value.into())));
        let signing = self.sockets.signing_variables(inherited_settings());
        for (name, value) in self.sockets.variables().into_iter().chain(signing) {
            env_set.entry(name).or_insert(value);
        }
        let inherited = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Launch {
            program: self.assignment.program.clone(),
            args: plan.args.iter().map(OsString::from).collect(),
            cwd: self.assignment.start_directory(),
            env_set,
            env_remove: inherited.filter(|name| plan.removes(name) || reaches_boss_terminal(name)).collect(),
            stdin: StdinSource::Pipe,
            output_pipe: plan.needs_output_pipe,
            stdout: self.dir.stdout(),
            stderr: self.dir.stderr(),
            confine: self.rules.cli.clone(),
        }
    }
}
