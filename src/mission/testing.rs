//! Helpers for the tests of this room and of those above.

use std::any::type_name;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::causes::with_causes;
use super::create::{Defaults, Draft, DraftPlace, Registered, Rejection, register, register_race};
use super::entry::{AttemptSummary, Entry, Line, NextAttempt, Start};
use super::hint::{Hinted, with_hints};
use super::id::{BossId, ServerId, WorkerId};
use super::lifecycle::Ending;
use super::outcome::{Changes, Usage, Verification};
use super::registry::Registry;
use super::spec::Permissions;

pub fn draft(title: &str) -> Draft {
    Draft {
        title: title.to_owned(),
        prompt: "do it".to_owned(),
        backend: "codex".into(),
        model: None,
        effort: None,
        place: DraftPlace::Worktree { branch: None, base: None, path: None, directory: None },
        setup_command: None,
        verify_command: None,
        task_id: Some(title.into()),
        depends_on: Vec::new(),
        context_from: Vec::new(),
        timeout_minutes: 120,
        max_cost_usd: None,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions: Permissions::Edit,
        run_on: None,
        profile: None,
        needs: Vec::new(),
    }
}

pub fn needs(title: &str, depends_on: &[&str]) -> Draft {
    Draft { depends_on: depends_on.iter().map(|it| (*it).to_owned()).collect(), ..draft(title) }
}

/// Returns a draft that takes the reports of these tasks or workers as context.
pub fn takes(title: &str, context_from: &[&str]) -> Draft {
    Draft { context_from: context_from.iter().map(|it| (*it).to_owned()).collect(), ..draft(title) }
}

pub fn apply(registry: &mut Registry, server: &str, entry: Entry) {
    let line = Line { seq: registry.seq + 1, at: Timestamp::UNIX_EPOCH, server: ServerId::from(server), entry };
    registry.apply(&line);
}

/// Registers drafts as the server `s` for the boss `b`, and applies the accepted ones.
pub fn create(registry: &mut Registry, drafts: &[Draft]) -> Vec<Result<WorkerId, Rejection>> {
    let made = register(registry, &BossId::from("b"), drafts, defaults());
    apply_created(registry, made)
}

fn defaults() -> Defaults<'static> {
    Defaults { worktrees: Path::new("/worktrees"), branch_prefix: "o/", integration_branch: None }
}

fn apply_created(
    registry: &mut Registry,
    made: Vec<Result<Registered, Rejection>>,
) -> Vec<Result<WorkerId, Rejection>> {
    let new = made.iter().filter_map(|it| match it {
        Ok(Registered::New(new)) => Some((**new).clone()),
        _ => None,
    });
    let workers = new.collect();
    apply(registry, "s", Entry::Created { workers });
    let id = |registered| match registered {
        Registered::New(new) => new.id.clone(),
        Registered::Existing(id) => id,
    };
    made.into_iter().map(|it| it.map(id)).collect()
}

/// Registers drafts that race each other.
pub fn create_race(registry: &mut Registry, drafts: &[Draft]) -> Vec<Result<WorkerId, Rejection>> {
    apply_created(registry, register_race(registry, &BossId::from("b"), drafts, defaults()))
}

/// Returns the entry for another attempt at the mission.
pub fn requeued(worker: &WorkerId) -> Entry {
    let (backend, start) = ("codex".into(), Start::Mission);
    let next =
        NextAttempt { backend, model: None, effort: None, start, run_on: None, fresh: false, written: Vec::new() };
    Entry::Requeued { worker: worker.clone(), next: Box::new(next), lease: None }
}

/// Starts and ends the next attempt of a worker.
pub fn settle(registry: &mut Registry, id: &WorkerId, status: Ending) {
    let attempt = registry.get(id).map_or(0, |worker| worker.attempt) + 1;
    apply(registry, "s", Entry::Starting { worker: id.clone(), attempt });
    apply(registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(brief(attempt, status)) });
}

pub fn brief(attempt: u32, status: Ending) -> AttemptSummary {
    AttemptSummary {
        attempt,
        backend: "codex".into(),
        model: None,
        status,
        failure: None,
        exit: None,
        setup: None,
        verification: Verification::NotRequested,
        likely_cause: None,
        changes: Changes::default(),
        final_message: String::new(),
        says_blocked: false,
        undelivered: Vec::new(),
        denials: 0,
        denied: Vec::new(),
        usage: Usage::default(),
        session_id: None,
        usage_is_cumulative: false,
        resets_at: None,
        started_at: None,
        seconds: 1,
        elapsed_seconds: None,
        cancelled: None,
        confinement: None,
        survivors: 0,
        place_failed: false,
        daemons_left: Vec::new(),
        settled_at: Timestamp::UNIX_EPOCH,
    }
}

/// The name of an error's variant, and its text.
pub type MessageRow = (String, String);

pub fn row<E: Hinted>(error: E) -> MessageRow {
    (variant_of(&error), with_hints(&error))
}

/// Returns the row of an error without hints.
pub fn plain_row<E: Error>(error: E) -> MessageRow {
    (variant_of(&error), with_causes(&error))
}

pub fn variant_of<E: Error>(error: &E) -> String {
    let name = type_name::<E>().rsplit("::").next().unwrap_or_default();
    let debug = format!("{error:?}");
    let variant = debug.split([' ', '(']).next().unwrap_or_default();
    format!("{name}::{variant}")
}

/// Returns the rows as one text. Checks their form, and that each variant with a text of its own in these sources has
/// a row.
pub fn all_messages(rows: &[MessageRow], sources: &str) -> String {
    for (name, text) in rows {
        assert!(text.starts_with("cannot ") && !text.contains("cannot cannot"), "{name}: {text}");
    }
    let names: BTreeSet<&String> = rows.iter().map(|(name, _)| name).collect();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(sources);
    assert_eq!(names.len(), errors_in(&sources), "each variant has a row");
    rows.iter().map(|(name, text)| format!("{name}\n  {text}")).collect::<Vec<_>>().join("\n")
}

fn errors_in(source: &Path) -> usize {
    if source.is_dir() {
        let entries = fs::read_dir(source).expect("a readable folder").map(|entry| entry.expect("an entry").path());
        return entries.filter(|path| !path.ends_with("snapshots")).map(|path| errors_in(&path)).sum();
    }
    let text = fs::read_to_string(source).expect("a readable source");
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let attributes = code.split(concat!("#[", "error(")).skip(1);
    attributes.filter(|rest| !rest.starts_with("transparent)")).count()
}
