//! Which conversation of Claude Code makes a call. What its servers are started with (`CLAUDE_CODE_SESSION_ID`) is not
//! always it: `claude -p --continue` gives them an id of no conversation at all, and in a terminal `/resume` and `/clear`
//! change the conversation under a server that stays. Each call names itself (`claudecode/toolUseId`), and the transcript
//! of the conversation that makes it has it, within 20 to 250 ms of the call. Seen in runs of 2.1.330.
//!
//! Only reads, and only what says so beyond doubt counts: a call that is open in exactly one transcript.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::mission::id::BossId;
use crate::orchestrator::{Orchestrator, Scope};

/// How long the first call is looked for: once, where Claude Code keeps no transcripts.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How long a later one is, which is in the same conversation nearly always.
const LATER_LOOK: Duration = Duration::from_millis(300);
const BETWEEN_LOOKS: Duration = Duration::from_millis(15);
/// Transcripts that were written last; several sessions may work in one folder.
const NEWEST: usize = 8;
/// Of each transcript, from its end: more than the longest call.
const TAIL: u64 = 2 << 20;

pub(super) struct Conversations {
    /// Where Claude Code keeps the transcripts of what works in this directory.
    folder: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// Whose the calls so far were.
    boss: Option<BossId>,
    /// No transcript has ever said so: not waited for again.
    silent: bool,
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
        Self { folder, known: Mutex::default() }
    }

    /// The boss that makes this call.
    pub(super) async fn boss(&self, call: &str, orchestrator: &Orchestrator) -> BossId {
        let Known { boss: before, silent } = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let patience = match (silent, &before) {
            (true, _) => Duration::ZERO,
            (false, None) => FIRST_LOOK,
            (false, Some(_)) => LATER_LOOK,
        };
        let found = self.look(call, patience).await;
        let silent = found.is_none() && (silent || before.is_none());
        let boss = match (found, before) {
            (Some(found), None) => found,
            // After `/clear` a conversation goes on that never led: the workers stay with the one before, since its
            // user goes on in the same window. After `/resume` one may that has workers of its own.
            (Some(found), Some(before)) if found == before || leads(orchestrator, &found).await => found,
            (_, Some(before)) => before,
            (None, None) => orchestrator.default_boss().clone(),
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known { boss: Some(boss.clone()), silent };
        boss
    }

    async fn look(&self, call: &str, patience: Duration) -> Option<BossId> {
        let folder = self.folder.as_ref()?;
        let end = Instant::now() + patience;
        loop {
            let (folder, call) = (folder.clone(), call.to_owned());
            let looked = tokio::task::spawn_blocking(move || caller(&folder, &call)).await;
            let found = looked.ok().flatten().and_then(|session| BossId::of_claude(&session));
            if found.is_some() || Instant::now() >= end {
                return found;
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

async fn leads(orchestrator: &Orchestrator, boss: &BossId) -> bool {
    orchestrator.list(boss, Scope::Mine).await.is_ok_and(|list| !list.workers.is_empty())
}

/// As Claude Code names the folder of a project.
fn folder_name(project: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    project.to_string_lossy().chars().map(plain).collect()
}

/// The session in whose transcript alone this call is open.
fn caller(folder: &Path, call: &str) -> Option<String> {
    let mut open = newest(folder).into_iter().filter(|path| is_open_in(path, call));
    let session = open.next()?.file_stem()?.to_str()?.to_owned();
    open.next().is_none().then_some(session)
}

fn newest(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut transcripts: Vec<(SystemTime, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .filter_map(|path| Some((fs::metadata(&path).ok().filter(|it| it.is_file())?.modified().ok()?, path)))
        .collect();
    transcripts.sort_by(|a, b| b.cmp(a));
    transcripts.into_iter().take(NEWEST).map(|(_, path)| path).collect()
}

/// Made there and not answered yet. What was taken along from another conversation is answered.
fn is_open_in(transcript: &Path, call: &str) -> bool {
    let Ok(tail) = tail(transcript) else { return false };
    let tail = String::from_utf8_lossy(&tail);
    let lines = tail.lines().filter(|line| line.contains(call));
    let lines: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let says = |key: &str| {
        let mut parts = lines.iter().filter_map(|line| line["message"]["content"].as_array()).flatten();
        parts.any(|part| part[key] == call)
    };
    says("id") && !says("tool_use_id")
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
    fn the_one_transcript_in_which_a_call_is_open_names_its_conversation() {
        let folder = tempfile::tempdir().unwrap();
        let write = |session: &str, lines: &[String]| {
            fs::write(folder.path().join(session).with_extension("jsonl"), lines.concat()).unwrap();
        };
        assert_eq!(caller(folder.path(), "toolu_1"), None);
        write("a", &[made("toolu_1"), answered("toolu_1"), "\"toolu_2\"\n".into(), "half of a li".into()]);
        assert_eq!((caller(folder.path(), "toolu_1"), caller(folder.path(), "toolu_2")), (None, None));
        write("b", &[made("toolu_1"), answered("toolu_1"), made("toolu_2")]);
        assert_eq!(caller(folder.path(), "toolu_2").as_deref(), Some("b"));
        write("c", &[made("toolu_2")]);
        assert_eq!(caller(folder.path(), "toolu_2"), None, "two say so");
    }

    #[test]
    fn a_long_transcript_is_read_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{{\"text\": \"{}\"}}\n", "é".repeat(TAIL as usize));
        fs::write(folder.path().join("a.jsonl"), long + &made("toolu_9")).unwrap();
        assert_eq!(caller(folder.path(), "toolu_9").as_deref(), Some("a"));
    }

    #[test]
    fn the_folder_of_a_project_is_named_as_claude_code_does() {
        assert_eq!(folder_name(Path::new("/tmp/a b/w.1o_C/repo")), "-tmp-a-b-w-1o-C-repo");
    }
}
