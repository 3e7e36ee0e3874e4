//! Whether everything is as it was promised, looked at from outside: the files, git, the state file and the list of
//! processes, and nothing that the server says.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DemoError;
use super::answer::{items, text};
use super::missions::{Fate, Plan};
use super::project::Project;
use crate::attempt::state_dir;
use crate::cli::demo_agent::{GREETINGS, SHOUT};

const MERGED: &[(&str, &str)] = &[
    (GREETINGS, "[english]\nHello, world!\n"),
    (GREETINGS, "[french]\nBonjour, le monde!\n"),
    (GREETINGS, "[german]\nHallo, Welt!\n"),
    (SHOUT, "HELLO, WORLD!\n"),
];

/// The state file follows within 100 ms, a supervisor ends right after its outcome; this is for a loaded machine.
const CEILING: Duration = Duration::from_secs(30);

/// The merged work is in the files, and nothing else was touched.
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

/// The state file tells of every mission what became of it.
pub async fn state(project: &Project, plans: &[Plan]) -> Result<(), DemoError> {
    let path = project.repository.join(state_dir::NAME).join("orchestrator-state.json");
    let complaint = || match fs::read(&path).map(|bytes| serde_json::from_slice::<Value>(&bytes)) {
        Ok(Ok(state)) => plans.iter().find_map(|plan| disagreement(&state, plan)),
        Ok(Err(error)) => Some(format!("it is no JSON: {error}")),
        Err(error) => Some(format!("it cannot be read: {error}")),
    };
    match until_none(complaint).await {
        None => Ok(()),
        Some(why) => Err(DemoError::State { path, why }),
    }
}

fn disagreement(state: &Value, plan: &Plan) -> Option<String> {
    let (list, status, attempts) = match plan.fate {
        Fate::Completes => ("/completed_tasks", "completed", 1),
        Fate::CompletesOnRetry => ("/completed_tasks", "completed", 2),
        Fate::IsCancelled => ("/tasks", "cancelled", 1),
    };
    let Some(task) = items(state, list).iter().find(|task| text(task, "/id") == plan.task) else {
        return Some(format!("{list} has no task {:?}", plan.task));
    };
    let agrees = text(task, "/status") == status && task["attempts"] == attempts;
    (!agrees).then(|| format!("task {:?} is not {status} after {attempts} attempts: {task}", plan.task))
}

/// No process of this demo runs any more: agents and supervisors all have the demo's folder in their command line.
pub async fn nothing_left(project: &Project) -> Result<(), DemoError> {
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

/// Looks again until there is nothing to find, or the time is up: then what was found last.
async fn until_none<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let until = Instant::now() + CEILING;
    loop {
        match look() {
            Some(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            found => return found,
        }
    }
}

/// The command line of every process that this user may see.
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

/// The command line of every process.
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
    fn this_test_is_in_the_list_of_processes() {
        let own = std::env::args().next().unwrap();
        assert!(command_lines().iter().any(|line| line.contains(&own)));
    }
}
