//! The confinement of a worker: whether its attempt is confined, and what the kernel answered. `write_rules.rs` has what
//! it can write.

use std::thread::JoinHandle;

use super::attempt::{LiveAttempt, TurnEnd};
use super::blocking::blocking;
use super::caches;
use super::own_clone::OwnClone;
use super::signing;
use super::write_rules::{AttemptRules, ConfinementError, why_not, why_without_effect};
use crate::attempt::cli_settings::CliSettings;
use crate::attempt::sockets;
use crate::backend::Refusal;
use crate::config::Confine;
use crate::git::{self, CloneError, Repository};
use crate::mission::confined::{Confined, Confinement};
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Failure, FailureKind};
use crate::mission::spec::Permissions;
use crate::process::confine::{self, Restriction, Support};

impl LiveAttempt {
    /// Starts a thread for what takes time before the rules can be decided: it tries what the kernel enforces, and
    /// creates the caches that tools need. Meanwhile, the attempt waits for the disk.
    pub(super) fn prepare_confinement(&mut self) {
        let is_off = self.assignment.settings.confine == Confine::Off;
        if is_off || self.assignment.mission.permissions == Permissions::Full {
            return;
        }
        let prepare = || {
            if let (Support::Yes(_), Ok(home)) = (confine::support(), etcetera::home_dir()) {
                caches::create_needed(&home, |name| std::env::var_os(name));
            }
        };
        // Without it, the rules take longer, and caches that are missing stay so.
        self.confinement_prepared = std::thread::Builder::new().spawn(prepare).ok();
    }

    /// Decides the rules of the attempt. Fails if the settings demand what the kernel cannot do.
    pub(super) fn confine(&mut self) -> Result<(), Box<TurnEnd>> {
        match self.decide_rules() {
            Ok(rules) => {
                self.rules = rules;
                Ok(())
            }
            Err(error) => {
                let message = with_hints(&error);
                let failure = Failure { kind: FailureKind::CouldNotStart, message, resets_at: None };
                let end = TurnEnd::not_started(failure, None);
                self.record_end(&end);
                Err(Box::new(end))
            }
        }
    }

    fn decide_rules(&mut self) -> Result<AttemptRules, ConfinementError> {
        self.confinement_prepared.take().map(JoinHandle::join);
        let confine = self.assignment.settings.confine;
        let why = match self.assignment.mission.permissions {
            Permissions::Full => Some("permissions: full".to_owned()),
            _ => why_not(confine)?,
        };
        if let Some(why) = why {
            return self.unconfined(why);
        }
        self.sockets.add_temporary(&sockets::folder_beside(&self.assignment.socket));
        let (folders, state) = (self.backend.state_folders(), self.dir.state_dir());
        self.own_clone = OwnClone::of(&self.assignment);
        let has_clone = self.own_clone.is_used();
        let (rules, cli_state) = AttemptRules::of(&self.assignment, &folders, state.root(), &self.sockets, has_clone)?;
        let tried = rules.commands.as_ref().map(|rules| why_without_effect(confine, rules));
        if let Some(why) = tried.transpose()?.flatten() {
            drop(self.sockets.take_temporary());
            self.own_clone = OwnClone::default();
            return self.unconfined(why);
        }
        let settings = CliSettings::record(&state, &self.assignment.worker_id, self.assignment.attempt, cli_state)?;
        self.cli_settings = Some(settings);
        self.sockets.add_signing();
        // Most users do not sign, and the CLI takes longer to start than the agent. If there is a clone, the user's
        // checkout is used: the clone comes into the worktree meanwhile, and its settings are the worker's.
        let repository = self.assignment.repository.as_ref().filter(|_| has_clone);
        let checkout = repository.map_or_else(|| self.assignment.checkout(), Repository::checkout);
        if signing::has_keys() {
            std::thread::spawn(move || signing::start_agent(&checkout));
        }
        Ok(rules)
    }

    /// Returns the rules of an attempt that the kernel does not confine, and records the reason.
    fn unconfined(&mut self, why: String) -> Result<AttemptRules, ConfinementError> {
        if self.needs_kernel_to_only_read() {
            return Err(ConfinementError::ReadOnly { why });
        }
        // If the user has switched it off, its absence is not reported.
        if self.assignment.settings.confine != Confine::Off {
            self.record_confinement(Confinement::Off { why });
        }
        Ok(AttemptRules::default())
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
