//! Finds the conversation of Claude Code that makes a call, and the ends of background waits that it shows.
//!
//! The environment of a server (`CLAUDE_CODE_SESSION_ID`) is not reliable: `claude -p --continue` passes an id without
//! a conversation, and `/resume` and `/clear` change the conversation of a running server. But each call has an id
//! (`claudecode/toolUseId`), which appears in the transcript of its conversation within 20 to 250 ms. A call must be
//! open in exactly one transcript to count.
//!
//! The client polls for the end of a background wait long before its model gets it, if ever. So no request shows that it
//! has arrived, but the transcript of the conversation does. This module only reads.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::mission::id::{BossId, WaitId};
use crate::orchestrator::{Orchestrator, Scope};

/// The time to search for the first call. Without transcripts it is spent once.
const FIRST_SEARCH: Duration = Duration::from_secs(1);
/// The time to search for a later call, which is nearly always in the same conversation.
const LATER_SEARCH: Duration = Duration::from_millis(300);
const SEARCH_INTERVAL: Duration = Duration::from_millis(15);
/// Number of newest transcripts to search, since several sessions may share a folder.
const SEARCHED: usize = 8;
/// Bytes to read from the end of a transcript: more than the longest call.
const TAIL: u64 = 2 << 20;

pub(super) struct Conversations {
    /// The folder of the transcripts of this directory.
    folder: Option<PathBuf>,
    last: Mutex<LastCall>,
}

#[derive(Debug, Default, Clone)]
struct LastCall {
    boss: Option<BossId>,
    /// No call was ever found in a transcript, so later searches do not wait.
    no_transcripts: bool,
}

impl Conversations {
    pub(super) fn of_this_directory() -> Self {
        let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".claude"));
        let claude = env::var_os("CLAUDE_CONFIG_DIR").map(PathBuf::from).or_else(home);
        let project = env::var_os("CLAUDE_PROJECT_DIR").map(PathBuf::from).or_else(|| env::current_dir().ok());
        let folder = claude.zip(project).map(|(claude, project)| claude.join("projects").join(folder_name(&project)));
        Self::new(folder)
    }

    fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, last: Mutex::default() }
    }

    pub(super) async fn boss(&self, call: &str, orchestrator: &Orchestrator) -> BossId {
        let LastCall { boss: before, no_transcripts } =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let time = match &before {
            _ if no_transcripts => Duration::ZERO,
            None => FIRST_SEARCH,
            Some(_) => LATER_SEARCH,
        };
        let transcript = self.search(call, time).await;
        let found = transcript.as_deref().and_then(session_of);
        let no_transcripts = found.is_none() && (no_transcripts || before.is_none());
        let boss = match (found, before) {
            (Some(found), None) => found,
            // `/clear` starts a conversation without workers; those of the previous one stay with the user's window.
            // `/resume` may continue one that has workers.
            (Some(found), Some(before)) if found == before || has_workers(orchestrator, &found).await => found,
            (_, Some(before)) => before,
            (None, None) => orchestrator.default_boss().clone(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            LastCall { boss: Some(boss.clone()), no_transcripts };
        // The call may not be in a transcript yet, but the message before it is in that of the boss.
        let transcripts = transcript.into_iter().chain(self.transcript_of(&boss)).collect();
        acknowledge_waits(transcripts, &boss, orchestrator).await;
        boss
    }

    /// Returns the path of the transcript of the boss's own conversation, if it can have one.
    fn transcript_of(&self, boss: &BossId) -> Option<PathBuf> {
        let session = boss.as_str().strip_prefix("claude:")?;
        let is_plain = session.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        Some(self.folder.as_ref().filter(|_| is_plain)?.join(session).with_extension("jsonl"))
    }

    /// Returns the transcript of the conversation that makes this call.
    async fn search(&self, call: &str, time: Duration) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        let end = Instant::now() + time;
        loop {
            let (folder, call) = (folder.clone(), call.to_owned());
            let searched = tokio::task::spawn_blocking(move || caller(&folder, &call)).await;
            let found = searched.ok().flatten().filter(|transcript| session_of(transcript).is_some());
            if found.is_some() || Instant::now() >= end {
                return found;
            }
            sleep(SEARCH_INTERVAL).await;
        }
    }
}

fn session_of(transcript: &Path) -> Option<BossId> {
    BossId::of_claude(transcript.file_stem()?.to_str()?)
}

/// Acknowledges the content of the background waits whose ends are in one of these conversations of their boss.
async fn acknowledge_waits(transcripts: Vec<PathBuf>, boss: &BossId, orchestrator: &Orchestrator) {
    let waits = orchestrator.unacknowledged_waits(boss).await.unwrap_or_default();
    if waits.is_empty() {
        return;
    }
    let shown = tokio::task::spawn_blocking(move || {
        let tails = transcripts.iter().filter_map(|transcript| tail(transcript).ok());
        tails.flat_map(|tail| shown_in(&String::from_utf8_lossy(&tail), &waits)).collect::<Vec<WaitId>>()
    });
    let shown = shown.await.unwrap_or_default();
    if !shown.is_empty()
        && let Err(error) = orchestrator.waits_shown(boss, shown).await
    {
        tracing::debug!(%error, "cannot acknowledge a background wait");
    }
}

/// Returns the waits whose completion the model has received: as the message that began a turn, or attached to a turn. A
/// completion that is only in the client's queue does not count.
fn shown_in(transcript: &str, waits: &[WaitId]) -> Vec<WaitId> {
    let rows = transcript.lines().filter(|line| line.contains("task-notification"));
    let rows = rows.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let given: Vec<String> = rows.filter_map(|row| notification_in(&row)).collect();
    let is_given = |wait: &WaitId| {
        let completed = format!("MCP task {wait} (");
        given.iter().any(|summary| summary.starts_with(&completed) && summary.ends_with(" completed."))
    };
    waits.iter().filter(|wait| is_given(wait)).cloned().collect()
}

/// Returns the summary of the task notification in a row, if the client wrote the row for the model.
fn notification_in(row: &Value) -> Option<String> {
    let (origin, content) = match row["type"].as_str()? {
        "user" => (&row["origin"], &row["message"]["content"]),
        "attachment" => (&row["attachment"]["origin"], &row["attachment"]["prompt"]),
        _ => return None,
    };
    if origin["kind"] != "task-notification" {
        return None;
    }
    let text = content.as_str().or_else(|| content.as_array()?.iter().find_map(|part| part["text"].as_str()))?;
    // The result comes after the summary, and may contain anything.
    let (_, summary) = text.split_once("<summary>")?;
    Some(summary.split_once("</summary>")?.0.trim().to_owned())
}

async fn has_workers(orchestrator: &Orchestrator, boss: &BossId) -> bool {
    orchestrator.list(boss, Scope::Mine).await.is_ok_and(|list| !list.workers.is_empty())
}

/// Returns the name that Claude Code gives the folder of a project.
fn folder_name(project: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    project.to_string_lossy().chars().map(plain).collect()
}

/// Returns the only transcript in which this call is open.
fn caller(folder: &Path, call: &str) -> Option<PathBuf> {
    let mut open = newest(folder).into_iter().filter(|path| is_open_in(path, call));
    let transcript = open.next()?;
    open.next().is_none().then_some(transcript)
}

fn newest(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut transcripts: Vec<(SystemTime, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .filter_map(|path| Some((fs::metadata(&path).ok().filter(|it| it.is_file())?.modified().ok()?, path)))
        .collect();
    transcripts.sort_by(|a, b| b.cmp(a));
    transcripts.into_iter().take(SEARCHED).map(|(_, path)| path).collect()
}

/// Returns whether the transcript has the call without its answer. Calls copied from other conversations are answered.
fn is_open_in(transcript: &Path, call: &str) -> bool {
    let Ok(tail) = tail(transcript) else { return false };
    let tail = String::from_utf8_lossy(&tail);
    let lines = tail.lines().filter(|line| line.contains(call));
    let lines: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let has_part = |key: &str| {
        let mut parts = lines.iter().filter_map(|line| line["message"]["content"].as_array()).flatten();
        parts.any(|part| part[key] == call)
    };
    has_part("id") && !has_part("tool_use_id")
}

fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(call: &str) -> String {
        json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": call}]}}).to_string() + "\n"
    }

    fn answered(call: &str) -> String {
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": call}]}}).to_string()
            + "\n"
    }

    #[test]
    fn only_transcript_with_the_open_call_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |session: &str, lines: &[String]| {
            fs::write(folder.path().join(session).with_extension("jsonl"), lines.concat()).unwrap();
        };
        assert_eq!(caller(folder.path(), "toolu_1"), None);
        write("a", &[made("toolu_1"), answered("toolu_1"), "\"toolu_2\"\n".into(), "half of a li".into()]);
        assert_eq!((caller(folder.path(), "toolu_1"), caller(folder.path(), "toolu_2")), (None, None));
        write("b", &[made("toolu_1"), answered("toolu_1"), made("toolu_2")]);
        assert_eq!(caller(folder.path(), "toolu_2"), Some(folder.path().join("b.jsonl")));
        write("c", &[made("toolu_2")]);
        assert_eq!(caller(folder.path(), "toolu_2"), None, "it is open in two");
    }

    #[test]
    fn long_transcript_is_read_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{{\"text\": \"{}\"}}\n", "é".repeat(TAIL as usize));
        fs::write(folder.path().join("a.jsonl"), long + &made("toolu_9")).unwrap();
        assert_eq!(caller(folder.path(), "toolu_9"), Some(folder.path().join("a.jsonl")));
    }

    #[test]
    fn only_rows_for_the_model_show_a_wait() {
        let notification = |wait: &str, end: &str, result: &str| {
            format!(
                "<task-notification>\n<task-id>k1</task-id>\n<status>{end}</status>\n<summary>MCP task {wait} \
                 (orchestrator-boss/wait_for_any_worker) {end}.</summary>\n<result>\n{result}\n</result>\n</task-notification>"
            )
        };
        let origin = json!({"kind": "task-notification", "producer": "session-task", "taskKind": "mcp-task"});
        let row = |content: Value| json!({"type": "user", "message": {"content": content}, "origin": origin});
        let done = |wait: &str| notification(wait, "completed", "{}");
        let attached = |wait: &str| json!({"type": "queued_command", "origin": origin, "prompt": done(wait)});
        let rows = [
            json!({"type": "queue-operation", "operation": "enqueue", "content": done("wait-queued")}),
            row(json!(done("wait-idle"))),
            row(json!([{"type": "text", "text": done("wait-parts")}])),
            json!({"type": "attachment", "attachment": attached("wait-busy")}),
            row(json!(notification("wait-cancelled", "cancelled", "Task cancelled"))),
            row(json!(notification("wait-other", "completed", "MCP task wait-inside (a/b) completed."))),
            json!({"type": "user", "message": {"content": done("wait-typed")}}),
            json!({"type": "assistant", "message": {"content": done("wait-said")}, "origin": origin}),
        ];
        let transcript: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let names = ["queued", "idle", "parts", "busy", "cancelled", "other", "inside", "typed", "said", "idl"];
        let waits = names.map(|name| WaitId::from(format!("wait-{name}"))).to_vec();
        let shown: Vec<String> = shown_in(&transcript, &waits).iter().map(WaitId::to_string).collect();
        assert_eq!(shown, ["wait-idle", "wait-parts", "wait-busy", "wait-other"]);
    }

    #[test]
    fn folder_name_matches_claude_code() {
        assert_eq!(folder_name(Path::new("/tmp/a b/w.1o_C/repo")), "-tmp-a-b-w-1o-C-repo");
    }
}
