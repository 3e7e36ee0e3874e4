//! Kinds of fake workers: their scripts, and how they end without interference.

use std::path::Path;

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Commits,
    CommitsSlowly,
    /// Commits on a branch that its boss has named.
    OwnBranch,
    LeavesWork,
    Fails,
    Crashes,
    /// Fails on the first backend, completes on the fallback.
    FailsOnce,
    FailsTwice,
    VerifyPasses,
    VerifyFails,
    Hangs,
    /// Leaves a daemon and a child, and ignores SIGTERM.
    HangsStubbornly,
    /// Speaks the Agent Client Protocol, as the next one does.
    AgentCommits,
    AgentHangs,
    /// Races for one task with the next two, see [`RACE`].
    RacesQuickly,
    RacesSlowly,
    RacesAndHangs,
}

/// The racers of one race. They get the same prompt, and identify themselves by their worktrees.
pub const RACE: [Kind; 3] = [Kind::RacesQuickly, Kind::RacesSlowly, Kind::RacesAndHangs];

pub const KINDS: [Kind; 14] = [
    Kind::Commits,
    Kind::CommitsSlowly,
    Kind::OwnBranch,
    Kind::LeavesWork,
    Kind::Fails,
    Kind::Crashes,
    Kind::FailsOnce,
    Kind::FailsTwice,
    Kind::VerifyPasses,
    Kind::VerifyFails,
    Kind::Hangs,
    Kind::HangsStubbornly,
    Kind::AgentCommits,
    Kind::AgentHangs,
];

impl Kind {
    /// Returns a mission. `request` names the mission and its file; `needs` are tasks.
    pub fn mission(self, request: &str, task: &str, needs: &[&str], trace: &Path) -> Value {
        let prompt = self.script(request, task, trace);
        let mut mission = json!({
            "title": request, "task_id": task, "request_id": request, "backend": "fake", "prompt": prompt,
            "depends_on": needs,
        });
        match self {
            Kind::OwnBranch => mission["worktree"] = json!({ "branch": format!("own/{request}") }),
            Kind::FailsOnce | Kind::FailsTwice => mission["fallback_backends"] = json!(["other"]),
            Kind::VerifyPasses => {
                mission["setup_command"] = json!("sleep 0.1; true");
                mission["verify_command"] = json!("sleep 0.1; true");
            }
            Kind::RacesQuickly | Kind::RacesSlowly | Kind::RacesAndHangs => mission["verify_command"] = json!("true"),
            Kind::VerifyFails => mission["verify_command"] = json!("exit 7"),
            Kind::AgentCommits | Kind::AgentHangs => mission["backend"] = json!("agent"),
            _ => {}
        }
        mission
    }

    fn script(self, request: &str, task: &str, trace_file: &Path) -> String {
        let trace = trace_file.display();
        let first = format!("FAKE:\ntrace {trace} begin\n");
        let work = format!("session s\nwrite {request}.txt done\ntrace {trace} wrote\n");
        let end = format!("trace {trace} end\nsay done");
        match self {
            Kind::Commits | Kind::OwnBranch | Kind::VerifyPasses | Kind::VerifyFails | Kind::AgentCommits => {
                format!("{first}{work}commit work\n{end}")
            }
            Kind::CommitsSlowly => format!("{first}{work}sleep 0.3\ncommit work\n{end}"),
            Kind::LeavesWork => format!("{first}{work}sleep 0.1\n{end}"),
            Kind::Fails | Kind::FailsTwice => format!("{first}session s\nsleep 0.1\nresult error it is hard"),
            Kind::Crashes => format!("{first}sleep 0.1\nexit 3"),
            Kind::FailsOnce => format!("{first}session s\nfail-once {trace}-{request}\n{work}commit work\n{end}"),
            Kind::Hangs | Kind::AgentHangs => format!("{first}{work}hang"),
            Kind::RacesQuickly | Kind::RacesSlowly | Kind::RacesAndHangs => race_script(task, trace_file),
            Kind::HangsStubbornly => format!("{first}{work}daemon 600\nchild 600\nignore-term\nhang"),
        }
    }

    pub fn ending(self) -> &'static str {
        match self {
            Kind::Fails | Kind::Crashes | Kind::FailsTwice | Kind::VerifyFails => "failed",
            Kind::Hangs | Kind::HangsStubbornly | Kind::AgentHangs | Kind::RacesAndHangs => "cancelled",
            _ => "completed",
        }
    }

    /// Returns how often the CLI is started without interference.
    pub fn starts(self) -> usize {
        if matches!(self, Kind::FailsOnce | Kind::FailsTwice) { 2 } else { 1 }
    }

    pub fn hangs(self) -> bool {
        self.ending() == "cancelled"
    }

    /// Returns whether the winner of a race may cancel it at any moment.
    pub fn races(self) -> bool {
        RACE.contains(&self)
    }
}

/// Returns the script of all racers. The first has the task's name, `r<n>`; the others have the next numbers, which are
/// part of the names of their worktrees.
fn race_script(task: &str, trace: &Path) -> String {
    let first: usize = task.trim_start_matches('r').parse().expect("a request has a number");
    let (slow, hangs) = (first + 1, first + 2);
    let trace = trace.display();
    let own_file = "name=${PWD##*-}; echo done > $name.txt";
    format!(
        "FAKE:\ntrace {trace} begin\nsession s\nrun {own_file}\ntrace {trace} wrote\n\
         run case \"$PWD\" in *-r{slow}) sleep 0.3;; *-r{hangs}) (sleep 600 &) ; sleep 600;; esac\n\
         commit work\ntrace {trace} end\nsay done"
    )
}
