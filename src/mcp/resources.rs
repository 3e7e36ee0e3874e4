//! Resources: the state file, and the log, diff, transcript and prompt of each worker.
//!
//! They are for clients that let their users or models pick resources; the tools report the same data. The list has the
//! workers of this boss. Any worker can be read by its id, as with `get_worker_status`. A text over 40 kB comes in
//! pages, and each page names the next one.

use std::path::Path;

use rmcp::model::{ErrorData, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::transcript::{self, Page};
use super::{arguments, size};
use crate::attempt::assignment::Assignment;
use crate::attempt::prompt;
use crate::attempt::worker_dir::WorkerDir;
use crate::files;
use crate::mcp::hint;
use crate::mission::hint::Advice;
use crate::mission::id::{BossId, WorkerId};
use crate::orchestrator::{Include, Orchestrator, OrchestratorError, Scope, WorkerView};

pub(super) const STATE: &str = "orchestrator://state";
const WORKERS: &str = "orchestrator://workers/";
/// For the line that names the next page, and for what is around the text.
const ENVELOPE: usize = 1_000;
const ROOM: usize = size::LONG_ANSWER - ENVELOPE;
/// Workers in a list, the newest first; each has four resources.
const LISTED: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Log,
    Diff,
    Transcript,
    Prompt,
}

impl Part {
    const ALL: [Part; 4] = [Part::Log, Part::Diff, Part::Transcript, Part::Prompt];

    fn name(self) -> &'static str {
        match self {
            Part::Log => "log",
            Part::Diff => "diff",
            Part::Transcript => "transcript",
            Part::Prompt => "prompt",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Part::Log => "What it did, one line for each event, the newest page first",
            Part::Diff => "What it changed against its base, as a unified diff",
            Part::Transcript => "What it said, ran and edited, in full, attempt by attempt",
            Part::Prompt => "The prompt that it was given, with the frame around it",
        }
    }

    fn mime_type(self) -> &'static str {
        match self {
            Part::Diff => "text/x-diff",
            _ => "text/plain",
        }
    }
}

/// What an address names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    State,
    Worker { name: String, part: Part },
}

impl Address {
    /// With the place to go on from, if there is one. `None`: no address of ours.
    pub(super) fn parse(uri: &str) -> Option<(Self, Option<usize>)> {
        let (path, cursor) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query.strip_prefix("cursor=")?.parse().ok()?)),
            None => (uri, None),
        };
        if path == STATE {
            return Some((Self::State, cursor));
        }
        let (name, part) = path.strip_prefix(WORKERS)?.split_once('/')?;
        let part = Part::ALL.into_iter().find(|known| known.name() == part)?;
        let name = arguments::line("worker_id", name.to_owned(), arguments::NAME).ok()?;
        Some((Self::Worker { name, part }, cursor))
    }

    fn uri(&self) -> String {
        match self {
            Self::State => STATE.to_owned(),
            Self::Worker { name, part } => format!("{WORKERS}{name}/{}", part.name()),
        }
    }
}

/// Lists the state and the resources of this boss's newest workers. Before the orchestrator has started, only the
/// state.
pub(super) async fn list(lead: Option<(Orchestrator, BossId)>) -> Vec<Resource> {
    let mut resources = vec![state()];
    if let Some((orchestrator, boss)) = lead
        && let Ok(list) = orchestrator.list(&boss, Scope::Mine).await
    {
        resources.extend(list.workers.iter().rev().take(LISTED).flat_map(of_worker));
    }
    resources
}

fn state() -> Resource {
    Resource::new(STATE, "state")
        .with_title("Orchestrator state")
        .with_description("orchestrator-state.json: all tasks with their status, worker, branch and attempts")
        .with_mime_type("application/json")
}

fn of_worker(view: &WorkerView) -> impl Iterator<Item = Resource> {
    let name = view.worker.id.to_string();
    let title = size::line(&view.worker.mission.title, 80);
    // What is not there yet is not offered; the prompt is there from the start.
    let begun = view.worker.attempt > 0;
    Part::ALL.into_iter().filter(move |part| begun || *part == Part::Prompt).map(move |part| {
        let address = Address::Worker { name: name.clone(), part };
        Resource::new(address.uri(), format!("{name} {}", part.name()))
            .with_title(format!("{title}: {}", part.name()))
            .with_mime_type(part.mime_type())
    })
}

pub(super) fn templates() -> Vec<ResourceTemplate> {
    let of_worker = Part::ALL.into_iter().map(|part| {
        let uri = format!("{WORKERS}{{id}}/{}{{?cursor}}", part.name());
        let about = format!("{}. id: a worker's, such as w-3. cursor: as a page before named it.", part.about());
        ResourceTemplate::new(uri, format!("worker {}", part.name()))
            .with_description(about)
            .with_mime_type(part.mime_type())
    });
    of_worker.collect()
}

/// One page. An address that nothing lies at is "not found", with what there is.
pub(super) async fn read(orchestrator: &Orchestrator, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let (address, cursor) = Address::parse(uri).ok_or_else(|| unknown(uri))?;
    let (text, mime_type) = match &address {
        Address::State => state_page(orchestrator, cursor).await?,
        Address::Worker { name, part } => {
            let view = orchestrator.get(name).await.map_err(|error| cannot(uri, &error))?;
            (part_page(orchestrator, view, *part, &address, cursor, uri).await?, part.mime_type())
        }
    };
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(mime_type)]))
}

/// JSON only if it is whole.
async fn state_page(orchestrator: &Orchestrator, cursor: Option<usize>) -> Result<(String, &'static str), ErrorData> {
    let path = orchestrator.state_file();
    let text = off_the_runtime(move || std::fs::read_to_string(path)).await?;
    let text = match text {
        Ok(text) => text,
        // It is written with the first mission; it is listed before, so it has to be readable.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({"tasks": [], "completed_tasks": [], "blocked_tasks": []}).to_string()
        }
        Err(error) => return Err(ErrorData::internal_error(format!("the state file cannot be read: {error}"), None)),
    };
    let mut page = Page::new(cursor.unwrap_or(0), ROOM);
    page.push(&text);
    let (page, next) = page.end();
    let whole = cursor.is_none() && next.is_none();
    let mime_type = if whole { "application/json" } else { "text/plain" };
    Ok((with_next(page, next, &Address::State), mime_type))
}

async fn part_page(
    orchestrator: &Orchestrator,
    view: WorkerView,
    part: Part,
    address: &Address,
    cursor: Option<usize>,
    uri: &str,
) -> Result<String, ErrorData> {
    let folder = orchestrator.folder(&view.worker.id);
    let start = cursor.unwrap_or(0);
    let (text, next) = match part {
        Part::Diff => diff(orchestrator, &view.worker.id, start).await.map_err(|error| cannot(uri, &error))?,
        Part::Log => {
            let events = folder.attempt(view.worker.attempt).events();
            let (text, first) = off_the_runtime(move || transcript::newest_lines(&events, cursor, ROOM)).await?;
            let text = if text.is_empty() { "nothing yet\n".to_owned() } else { text };
            // Read backwards, so the way on stands where the reader looks first.
            return Ok(match first {
                0 => text,
                first => format!("[earlier: {}?cursor={first}]\n{text}", address.uri()),
            });
        }
        Part::Transcript => {
            off_the_runtime(move || {
                let mut page = Page::new(start, ROOM);
                tell_attempts(&folder, &mut page);
                page.end()
            })
            .await?
        }
        Part::Prompt => {
            off_the_runtime(move || {
                let mut page = Page::new(start, ROOM);
                page.push(&framed(&folder, &view));
                page.end()
            })
            .await?
        }
    };
    Ok(with_next(text, next, address))
}

async fn diff(
    orchestrator: &Orchestrator,
    id: &WorkerId,
    start: usize,
) -> Result<(String, Option<usize>), OrchestratorError> {
    let include = Include { diff: true, diff_offset: start, diff_bytes: ROOM, ..Include::default() };
    let Some(page) = orchestrator.details(id.as_str(), include).await?.diff else {
        return Ok((
            "there is nothing to compare with: it has not begun, or works outside of a repository\n".into(),
            None,
        ));
    };
    let text = size::head(&page.text, ROOM);
    Ok(match text.len() == page.text.len() {
        true => (page.text, page.next_offset),
        false => (text.to_owned(), Some(start + text.len())),
    })
}

fn tell_attempts(folder: &WorkerDir, page: &mut Page) {
    for number in folder.attempts() {
        let attempt = folder.attempt(number);
        page.push(&format!("== attempt {number} ==\n"));
        transcript::tell(&attempt.events(), page);
        if let Ok(Some(outcome)) = attempt.outcome() {
            page.push(&format!("== {} ==\n", outcome.status.as_str()));
        }
        if page.is_full() {
            return;
        }
    }
}

/// As its newest attempt was given it; before the first, the boss's own words.
fn framed(folder: &WorkerDir, view: &WorkerView) -> String {
    match assignment(&folder.attempt(view.worker.attempt).assignment()) {
        Some(assignment) => prompt::first(&assignment).0,
        None => view.worker.mission.prompt.clone(),
    }
}

fn assignment(path: &Path) -> Option<Assignment> {
    files::read_json(path).ok().flatten()
}

fn with_next(text: String, next: Option<usize>, address: &Address) -> String {
    match next {
        Some(next) => format!("{text}\n[goes on at {}?cursor={next}]", address.uri()),
        None => text,
    }
}

pub(super) fn unknown(uri: &str) -> ErrorData {
    let shown = size::line(uri, 200);
    let why = format!(
        "there is no resource {shown:?}: there are {STATE} and {WORKERS}<worker id>/log, /diff, /transcript and /prompt, each with ?cursor=<number> as a page before named it"
    );
    ErrorData::resource_not_found(why, Some(json!({ "uri": shown })))
}

fn cannot(uri: &str, error: &OrchestratorError) -> ErrorData {
    let why = size::line(&hint::line(&Advice::of(error)), 2_000);
    match error {
        OrchestratorError::UnknownWorker { .. }
        | OrchestratorError::NoWorkers { .. }
        | OrchestratorError::AmbiguousWorker { .. } => {
            ErrorData::resource_not_found(why, Some(json!({ "uri": size::line(uri, 200) })))
        }
        _ => ErrorData::internal_error(why, None),
    }
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ErrorData> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ErrorData::internal_error("it could not be read, which is a bug: the log (stderr) has more", None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let log = Address::Worker { name: "w-3".into(), part: Part::Log };
        assert_eq!(Address::parse("orchestrator://state"), Some((Address::State, None)));
        assert_eq!(Address::parse("orchestrator://workers/w-3/log"), Some((log.clone(), None)));
        assert_eq!(Address::parse(&format!("{}?cursor=7", log.uri())), Some((log, Some(7))));
        let strange = [
            "",
            "state",
            "file:///etc/passwd",
            "orchestrator://",
            "orchestrator://state/",
            "orchestrator://workers",
            "orchestrator://workers/w-3",
            "orchestrator://workers/w-3/logs",
            "orchestrator://workers//log",
            "orchestrator://workers/w-3/log/x",
            "orchestrator://workers/w-3/log?cursor=-1",
            "orchestrator://workers/w-3/log?page=1",
            "orchestrator://workers/a\nb/log",
        ];
        for uri in strange {
            assert_eq!(Address::parse(uri), None, "{uri}");
        }
    }
}
