//! Checks the demo's result from outside: the files, git, the state file and the list of processes. It asks the server
//! nothing.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DemoError;
use super::answer::{items, text};
use super::missions::{ExpectedResult, PlannedMission};
use super::project::Project;
use crate::attempt::state_dir;
use crate::cli::demo_agent::{GREETINGS, SHOUT};

const MERGED: &[(&str, &str)] = &[
    (GREETINGS, "[english]\nHello, world!\n"),
    (GREETINGS, "[french]\nBonjour, le monde!\n"),
    (GREETINGS, "[german]\nHallo, Welt!\n"),
    (SHOUT, "HELLO, WORLD!\n"),
];

/// Time limit on a loaded machine. Usually the state file follows within 100 ms, and a supervisor ends at once.
const LIMIT: Duration = Duration::from_secs(30);

/// Checks that the merged work is in the files, and that the working tree is clean.
pub fn files(project: &Project) -> Result<(), DemoError> {
    for (file, wanted) in MERGED {
        let found = fs::read_to_string(project.repository.join(file)).unwrap_or_default();
        if !found.contains(wanted) {
            return Err(DemoError::NotMerged { file, wanted, found });
        }
    }
    match project.git(&["status", "--porcelain"])? {
        status if status.is_empty() => Ok(()),
        status => Err(DemoError::Dirty { status }),
    }
}

/// Checks that the state file has the outcome of every mission.
pub async fn state(project: &Project, plans: &[PlannedMission]) -> Result<(), DemoError> {
    let path = project.repository.join(state_dir::NAME).join("orchestrator-state.json");
    let find_difference = || match fs::read(&path).map(|bytes| serde_json::from_slice::<Value>(&bytes)) {
        Ok(Ok(state)) => plans.iter().find_map(|plan| difference(&state, plan)),
        Ok(Err(error)) => Some(format!("invalid JSON: {error}")),
        Err(error) => Some(format!("cannot read it: {error}")),
    };
    match until_none(find_difference).await {
        None => Ok(()),
        Some(why) => Err(DemoError::State { path, why }),
    }
}

fn difference(state: &Value, plan: &PlannedMission) -> Option<String> {
    let (list, status, attempts) = match plan.expected {
        ExpectedResult::Completes => ("/completed_tasks", "completed", 1),
        ExpectedResult::CompletesOnRetry => ("/completed_tasks", "completed", 2),
        ExpectedResult::IsCancelled => ("/tasks", "cancelled", 1),
    };
    let Some(task) = items(state, list).iter().find(|task| text(task, "/id") == plan.task) else {
        return Some(format!("{list} has no task {:?}", plan.task));
    };
    let is_as_expected = text(task, "/status") == status && task["attempts"] == attempts;
    (!is_as_expected).then(|| format!("task {:?} is not {status} after {attempts} attempts: {task}", plan.task))
}

/// Checks that no process of this demo is left. Agents and supervisors have the demo's folder in their command line.
pub async fn no_process_left(project: &Project) -> Result<(), DemoError> {
    let folder = project.folder.to_string_lossy();
    let left = until_none(|| {
        let lines: Vec<String> = command_lines().into_iter().filter(|line| line.contains(&*folder)).collect();
        (!lines.is_empty()).then_some(lines)
    });
    match left.await {
        None => Ok(()),
        Some(processes) => Err(DemoError::LeftRunning { processes }),
    }
}

/// Repeats a check until it finds nothing, or until the time limit. Returns the last finding.
async fn until_none<T>(check: impl Fn() -> Option<T>) -> Option<T> {
    let until = Instant::now() + LIMIT;
    loop {
        match check() {
            Some(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            found => return found,
        }
    }
}

/// Returns the command lines of all processes that this user may see.
#[cfg(target_os = "linux")]
fn command_lines() -> Vec<String> {
    // Not `ps`, which small container images lack.
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let line = |folder: &std::path::Path| {
        let bytes = fs::read(folder.join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    };
    entries.flatten().filter_map(|entry| line(&entry.path())).collect()
}

#[cfg(not(target_os = "linux"))]
fn command_lines() -> Vec<String> {
    let listed = std::process::Command::new("ps").args(["-A", "-ww", "-o", "args="]).output();
    let text = listed.map(|ended| String::from_utf8_lossy(&ended.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_listed() {
        let own = std::env::args().next().unwrap();
        assert!(command_lines().iter().any(|line| line.contains(&own)));
    }
}
