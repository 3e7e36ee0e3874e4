//! What fake workers do, and how that ends when nobody interferes.

use std::path::Path;

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Commits,
    CommitsSlowly,
    /// On a branch that its boss has named.
    OwnBranch,
    LeavesWork,
    Fails,
    Crashes,
    /// The first backend fails, the fallback does it.
    FailsOnce,
    FailsTwice,
    VerifyPasses,
    VerifyFails,
    Hangs,
    /// With a daemon and a child, and deaf to SIGTERM.
    HangsStubbornly,
    /// These three race for one task: see [`RACE`].
    RacesQuickly,
    RacesSlowly,
    RacesAndHangs,
}

/// One race. Its racers are given the same prompt, and know by their places which of them they are.
pub const RACE: [Kind; 3] = [Kind::RacesQuickly, Kind::RacesSlowly, Kind::RacesAndHangs];

pub const KINDS: [Kind; 12] = [
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
];

impl Kind {
    /// `request` names the mission and the file that it makes; `needs` are tasks.
    pub fn mission(self, request: &str, task: &str, needs: &[&str], trace: &Path) -> Value {
        let prompt = self.script(request, task, trace);
        let mut mission = json!({
            "title": request, "task_id": task, "request_id": request, "backend": "fake", "prompt": prompt,
            "depends_on": needs,
        });
        match self {
            Kind::OwnBranch => mission["worktree"] = json!({ "branch": format!("own/{request}") }),
            Kind::FailsOnce | Kind::FailsTwice => mission["fallback_backends"] = json!(["other"]),
            Kind::VerifyPasses => mission["verify_command"] = json!("sleep 0.1; true"),
            Kind::RacesQuickly | Kind::RacesSlowly | Kind::RacesAndHangs => mission["verify_command"] = json!("true"),
            Kind::VerifyFails => mission["verify_command"] = json!("exit 7"),
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
            Kind::Commits | Kind::OwnBranch | Kind::VerifyPasses | Kind::VerifyFails => {
                format!("{first}{work}commit work\n{end}")
            }
            Kind::CommitsSlowly => format!("{first}{work}sleep 0.3\ncommit work\n{end}"),
            Kind::LeavesWork => format!("{first}{work}sleep 0.1\n{end}"),
            Kind::Fails | Kind::FailsTwice => format!("{first}session s\nsleep 0.1\nresult error it is hard"),
            Kind::Crashes => format!("{first}sleep 0.1\nexit 3"),
            Kind::FailsOnce => format!("{first}session s\nfail-once {trace}-{request}\n{work}commit work\n{end}"),
            Kind::Hangs => format!("{first}{work}hang"),
            Kind::RacesQuickly | Kind::RacesSlowly | Kind::RacesAndHangs => race_script(task, trace_file),
            Kind::HangsStubbornly => format!("{first}{work}daemon 600\nchild 600\nignore-term\nhang"),
        }
    }

    pub fn ending(self) -> &'static str {
        match self {
            Kind::Fails | Kind::Crashes | Kind::FailsTwice | Kind::VerifyFails => "failed",
            Kind::Hangs | Kind::HangsStubbornly | Kind::RacesAndHangs => "cancelled",
            _ => "completed",
        }
    }

    /// How often its CLI is started when nobody interferes.
    pub fn starts(self) -> usize {
        if matches!(self, Kind::FailsOnce | Kind::FailsTwice) { 2 } else { 1 }
    }

    pub fn hangs(self) -> bool {
        matches!(self, Kind::Hangs | Kind::HangsStubbornly | Kind::RacesAndHangs)
    }

    /// It may be called off at any moment, by the one that won.
    pub fn races(self) -> bool {
        RACE.contains(&self)
    }
}

/// The first of the three has the task's name, `r<n>`; the others have the next numbers. A worktree bears its worker's.
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
