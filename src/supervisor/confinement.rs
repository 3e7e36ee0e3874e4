//! The confinement of an attempt: its rules are set before anything is started, and the kernel's answer is recorded.
//! `confinement_decision.rs` decides whether it is confined, and `write_rules.rs` what it can write.

use super::attempt::{LiveAttempt, TurnEnd};
use super::blocking::blocking;
use super::confinement_decision::{DecidedRules, Deciding, Decision, decide};
use super::signing;
use super::write_rules::ConfinementError;
use crate::backend::Refusal;
use crate::config::Confine;
use crate::git::{self, CloneError, Repository};
use crate::mission::confined::{Confined, Confinement};
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Failure, FailureKind};
use crate::mission::spec::Permissions;
use crate::process::confine::Restriction;

impl LiveAttempt {
    /// Begins to decide in a thread, since it reads many files. Meanwhile, the attempt waits for the disk.
    pub(super) fn begin_confinement(&mut self) {
        let is_off = self.assignment.settings.confine == Confine::Off;
        if is_off || self.assignment.mission.permissions == Permissions::Full {
            return;
        }
        let (assignment, folders) = (self.assignment.clone(), self.backend.state_folders());
        self.deciding = Some(Deciding::begin(assignment, folders, self.dir.state_dir().root().to_owned()));
    }

    /// Sets the rules of the attempt. Fails if the settings demand what the kernel cannot do.
    pub(super) async fn confine(&mut self) -> Result<(), Box<TurnEnd>> {
        let Err(error) = self.set_rules().await else { return Ok(()) };
        let failure = Failure { kind: FailureKind::CouldNotStart, message: with_hints(&error), resets_at: None };
        let end = TurnEnd::not_started(failure, None);
        self.record_end(&end);
        Err(Box::new(end))
    }

    async fn set_rules(&mut self) -> Result<(), ConfinementError> {
        let state = self.dir.state_dir();
        let decision = match self.deciding.take() {
            Some(deciding) => deciding.end().await?,
            None => decide(&self.assignment, &self.backend.state_folders(), state.root())?,
        };
        let DecidedRules { mut rules, temporary, own_clone, cli_settings } = match decision {
            Decision::Confined(decided) => *decided,
            Decision::Unconfined { why } => return self.leave_unconfined(why),
        };
        cli_settings.record(&state)?;
        self.sockets.add_temporary(temporary);
        rules.grant_folders(&self.sockets);
        self.sockets.add_signing();
        // Most users do not sign, and the CLI takes longer to start than the agent. If there is a clone, the user's
        // checkout is used: the clone comes into the worktree meanwhile, and its settings are the worker's.
        let repository = self.assignment.repository.as_ref().filter(|_| own_clone.is_used());
        let checkout = repository.map_or_else(|| self.assignment.checkout(), Repository::checkout);
        if signing::has_keys() {
            std::thread::spawn(move || signing::start_agent(&checkout));
        }
        (self.rules, self.own_clone, self.cli_settings) = (rules, own_clone, Some(cli_settings));
        Ok(())
    }

    /// Records why the kernel does not confine the attempt. Fails if only the kernel could keep the worker from writing.
    fn leave_unconfined(&mut self, why: String) -> Result<(), ConfinementError> {
        if self.needs_kernel_to_only_read() {
            return Err(ConfinementError::ReadOnly { why });
        }
        // If the user has switched it off, its absence is not reported.
        if self.assignment.settings.confine != Confine::Off {
            self.record_confinement(Confinement::Off { why });
        }
        Ok(())
    }

    /// Returns whether the mission only reads, and its CLI cannot be kept to that.
    pub(super) fn needs_kernel_to_only_read(&self) -> bool {
        self.assignment.mission.permissions == Permissions::ReadOnly
            && matches!(self.backend.check(&self.assignment.mission), Err(Refusal::Permissions { .. }))
    }

    /// Records what the kernel answered when it started the CLI.
    pub(super) fn record_restriction(&mut self, restriction: Option<Restriction>) {
        let Some((Restriction { by, abi, signals, reads }, git)) = restriction.zip(self.rules.git) else { return };
        let cli_state = self.rules.cli_state;
        self.record_confinement(Confinement::Kernel(Confined { by, abi, git, signals, reads, cli_state }));
    }

    fn record_confinement(&mut self, confinement: Confinement) {
        self.status.set_confinement(confinement.clone());
        self.run.confinement = Some(confinement);
    }

    /// Puts the clone into the worktree, for processes of the worker.
    pub(super) async fn enter_clone(&self) -> Result<(), CloneError> {
        let Some(repository) = self.own_clone.repository(&self.assignment) else { return Ok(()) };
        let branch = self.assignment.mission.place.branch().unwrap_or_default().to_owned();
        let (worktree, name) = (self.assignment.directory.clone(), self.assignment.worker_id.to_string());
        blocking(move || git::enter_clone(&repository, &worktree, &branch, &name)).await
    }

    /// Takes the clone out of the worktree, and fetches what the worker made. Its processes have ended. After the claim
    /// was revoked, the server does this.
    pub(super) async fn leave_clone(&mut self) {
        if self.is_revoked() {
            return;
        }
        let Some(mut repository) = self.own_clone.repository(&self.assignment) else { return };
        let worktree = self.assignment.directory.clone();
        if !repository.common_dir.exists() {
            let Some(moved) = self.moved_repository().filter(|_| worktree.is_dir()) else {
                let error = "its repository was moved or removed while it ran: its commits of that turn are only in the .git folder of its worktree";
                return self.own_clone.set_error(Some(error.to_owned()));
            };
            repository = moved;
        }
        let brought = blocking(move || git::bring_back(&repository, &worktree)).await;
        self.own_clone.set_error(match brought {
            Ok(returned) => returned.note().map(str::to_owned),
            Err(error) => Some(with_hints(&error)),
        });
    }

    /// Returns the end of a turn for which there is no clone.
    pub(super) fn without_clone(error: &CloneError) -> TurnEnd {
        let failure = Failure { kind: FailureKind::CouldNotStart, message: with_hints(error), resets_at: None };
        TurnEnd::not_started(failure, None)
    }
}
