//! What must be true in the end, seen from outside: in the files, in git, in what the fake CLIs left as their trace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::files::lease::is_held;
use orchestrator_boss::mission::id::ServerId;
use orchestrator_boss::store::journal::Journal;
use serde_json::Value;

use crate::model::{Mission, Model};
use crate::world::{CEILING, World};

/// While servers live: no open worker is left to a dead one.
pub fn leases(world: &World) {
    let Ok(dir) = StateDir::open(&world.state_dir()) else { return };
    let mut journal = Journal::open(&dir.journal(), ServerId::from("s-look")).expect("the journal can be read");
    let began = Instant::now();
    loop {
        journal.catch_up().expect("the journal can be read");
        let open = journal.registry().workers().filter(|worker| !worker.status.is_settled());
        let orphans: Vec<_> = open.filter(|worker| !is_held(&dir.server_lock(&worker.lease))).collect();
        if orphans.is_empty() {
            return;
        }
        assert!(began.elapsed() < CEILING, "nobody takes over: {orphans:#?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Once all servers have gone.
pub fn all(world: &World, model: &Model) {
    let looked = Looked::at(world, model);
    for (request, mission) in &model.missions {
        let worker = mission.worker.as_ref().unwrap_or_else(|| panic!("{request} was never answered"));
        looked.check_told(request, worker, mission);
        looked.check_ending(request, worker, mission);
        looked.check_starts(worker, mission);
        looked.check_work(request, worker, mission);
        looked.check_race(request, worker, mission);
    }
    looked.check_main_checkout();
}

struct Looked<'a> {
    world: &'a World,
    model: &'a Model,
    /// The state file's tasks by worker.
    tasks: BTreeMap<String, Value>,
    /// Worker, attempt, and how far it came.
    trace: Vec<(String, u64, String)>,
    /// Files that some ref holds.
    committed: BTreeSet<String>,
}

impl<'a> Looked<'a> {
    fn at(world: &'a World, model: &'a Model) -> Self {
        let tasks = tasks(world);
        assert_eq!(tasks.len(), model.missions.len(), "{tasks:#?}");
        // -m: a salvage may have several parents.
        let log = world.git(&["log", "--all", "-m", "--name-only", "--format="]).expect("git works");
        let committed = log.lines().map(str::to_owned).collect();
        Self { world, model, tasks, trace: trace(world), committed }
    }

    fn task(&self, worker: &str) -> &Value {
        self.tasks.get(worker).unwrap_or_else(|| panic!("{worker} is not in the state file"))
    }

    fn check_told(&self, request: &str, worker: &str, mission: &Mission) {
        let told: Vec<_> = self.model.told.iter().filter(|((id, _), _)| id == worker).collect();
        for (attempt, times) in &told {
            assert!(**times <= 1, "{attempt:?} was told {times} times without a mark");
        }
        let task = self.task(worker);
        if is_waiting(task) {
            return assert!(
                self.model.told_blocked.contains(&mission.task),
                "nobody was told that {request} is blocked"
            );
        }
        let last = task["attempts"].as_u64().expect("a number");
        assert!(told.iter().any(|((_, attempt), _)| *attempt == last), "the end of {worker} was never told: {task:#}");
        if mission.disturbed.is_not() {
            assert_eq!(told.len(), 1, "{worker} settled once: {told:?}");
        }
    }

    fn check_ending(&self, request: &str, worker: &str, mission: &Mission) {
        let task = self.task(worker);
        let attempt = task["attempts"].as_u64().expect("a number");
        if is_waiting(task) {
            let broken = mission.needs.iter().any(|need| {
                // Of a race, its winner has to complete.
                let racers = self.model.racers(need).map(|racer| self.task(self.model.worker(racer)));
                let mut decisive =
                    racers.filter(|task| task["race"].is_null() || task["race"]["winner"] == task["worker_id"]);
                decisive.all(|need| need["status"] != "completed")
            });
            assert!(broken, "{request} waits for nothing: {task:#}");
            // Earlier attempts began when nothing blocked it yet.
            let began = self.trace.iter().filter(|(id, _, word)| id == worker && word == "begin");
            let newest = began.map(|(_, attempt, _)| *attempt).max().unwrap_or(0);
            return assert!(newest <= attempt, "{worker} began attempt {newest} though it is blocked: {task:#}");
        }
        let path = self.world.state_dir().join(format!("workers/{worker}/attempts/{attempt}/outcome.json"));
        let record = std::fs::read(&path).unwrap_or_else(|error| panic!("{worker} has no record: {error}: {task:#}"));
        let outcome: Value = serde_json::from_slice(&record).expect("a whole record");
        let status = outcome["status"].as_str().expect("a status");
        assert!(task["status"] == status || task["status"] == "blocked", "{task:#} {outcome:#}");
        assert_eq!(outcome["cleanup"]["survivors"], 0, "{outcome:#}");
        assert!(mission.may_end_as(status), "{request} {mission:?}: {outcome:#}");
        if status == "completed" && !mission.disturbed.messaged && !mission.disturbed.retried {
            assert!(self.has_come(worker, "end"), "{worker} never came to its end: {outcome:#}");
        }
    }

    /// Each attempt was started once at most, and nobody tried again unasked.
    fn check_starts(&self, worker: &str, mission: &Mission) {
        let began = self.trace.iter().filter(|(id, _, word)| id == worker && word == "begin");
        let mut attempts: Vec<u64> = began.map(|(_, attempt, _)| *attempt).collect();
        let starts = attempts.len();
        attempts.sort_unstable();
        attempts.dedup();
        assert_eq!(attempts.len(), starts, "an attempt of {worker} was started twice");
        if mission.disturbed.is_not() && !is_waiting(self.task(worker)) {
            // What hangs is called off in the end, maybe before it came to its first line.
            let few = (mission.kind.hangs() || mission.kind.races()) && starts == 0;
            assert!(few || starts == mission.kind.starts(), "{worker} was started {starts} times: {mission:?}");
        }
    }

    /// What it wrote is committed somewhere, or still lies where it was written.
    fn check_work(&self, request: &str, worker: &str, mission: &Mission) {
        if !self.has_come(worker, "wrote") {
            return;
        }
        let file = format!("{request}.txt");
        let task = self.task(worker);
        let worktree = task["worktree"].as_str().expect("each has a worktree");
        let kept = self.committed.contains(&file) || std::path::Path::new(worktree).join(&file).exists();
        assert!(kept, "{worker} lost its work: {mission:?} {task:#}");
        if task["status"] == "completed" {
            assert!(self.committed.contains(&file), "{worker} completed, and its work is not committed: {task:#}");
        }
    }

    /// All racers tell of the same winner, if of any, and that one did complete at some time. Where there is none, no
    /// record says that there should be. That all of them settle, and nothing of them is left, is looked at for everybody.
    fn check_race(&self, request: &str, worker: &str, mission: &Mission) {
        if !mission.kind.races() {
            return;
        }
        let winner = &self.task(worker)["race"]["winner"];
        let told_of = |racer: &String| &self.task(self.model.worker(racer))["race"]["winner"];
        assert!(self.model.racers(request).all(|racer| told_of(racer) == winner), "{request}: not one winner");
        let is_winner = winner == worker;
        let completed = self.world.attempts(worker).into_iter().any(|(_, attempt)| {
            let record = std::fs::read(attempt.join("outcome.json")).unwrap_or_default();
            serde_json::from_slice::<Value>(&record).is_ok_and(|outcome| outcome["status"] == "completed")
        });
        assert!(completed || !is_winner, "{worker} has won and never completed");
        assert!(!completed || !winner.is_null(), "{worker} completed, and nobody has won");
    }

    fn has_come(&self, worker: &str, how_far: &str) -> bool {
        self.trace.iter().any(|(id, _, word)| id == worker && word == how_far)
    }

    /// It has what was integrated, and nothing else.
    fn check_main_checkout(&self) {
        assert_eq!(self.world.git(&["status", "--porcelain"]).as_deref(), Ok(""), "the main checkout was changed");
        assert_eq!(self.world.git(&["branch", "--show-current"]).as_deref(), Ok("main"));
        let files = self.world.git(&["ls-tree", "-r", "--name-only", "main"]).expect("git works");
        let files: BTreeSet<&str> = files.lines().collect();
        // The first commit has a README.
        let mut may = BTreeSet::from(["README".to_owned()]);
        for (request, mission) in &self.model.missions {
            let file = format!("{request}.txt");
            if mission.merged && self.has_come(self.model.worker(request), "wrote") {
                assert!(files.contains(&*file), "{request} was merged, and {file} is not in main: {files:?}");
            }
            if mission.merge_asked {
                self.add_with_needs(request, &mut may);
            }
        }
        for file in files {
            assert!(may.contains(file), "nobody asked to merge {file}");
        }
    }

    fn add_with_needs(&self, request: &str, files: &mut BTreeSet<String>) {
        files.insert(format!("{request}.txt"));
        let needs = self.model.missions[request].needs.iter();
        for need in needs.flat_map(|need| self.model.racers(need)) {
            self.add_with_needs(need, files);
        }
    }
}

/// For a task that ended badly.
fn is_waiting(task: &Value) -> bool {
    task["status"] == "blocked" && task["settled_at"].is_null()
}

fn tasks(world: &World) -> BTreeMap<String, Value> {
    let Ok(bytes) = std::fs::read(world.state_dir().join("orchestrator-state.json")) else { return BTreeMap::new() };
    let file: Value = serde_json::from_slice(&bytes).expect("it is valid");
    let lists = ["tasks", "completed_tasks", "blocked_tasks"];
    let tasks = lists.iter().flat_map(|list| file[list].as_array().expect("a list"));
    let mut by_worker = BTreeMap::new();
    for task in tasks {
        let worker = task["worker_id"].as_str().expect("an id").to_owned();
        assert!(by_worker.insert(worker, task.clone()).is_none(), "{task:#} is there twice");
    }
    by_worker
}

/// What the fake CLIs said: the tag of the attempt, and a word.
fn trace(world: &World) -> Vec<(String, u64, String)> {
    let text = std::fs::read_to_string(world.trace()).unwrap_or_default();
    let line = |line: &str| {
        let (tag, word) = line.split_once(' ')?;
        let mut parts = tag.split('.');
        Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, word.to_owned()))
    };
    text.lines().map(|it| line(it).unwrap_or_else(|| panic!("{it:?} is no trace"))).collect()
}
